"""Files of quantized models; docs/saved_models.md specifies the format."""
