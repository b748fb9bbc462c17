"""Where programs know parts of torch.ao from, and where they are here."""

__all__ = ["MOVED", "PACKAGES"]

# Packages of torch.ao, and the names under which they were known before.
PACKAGES = {
    **{f"torch.ao.{part}": f"torch_ao_ext.{part}" for part in ("nn", "ns", "pruning", "quantization")},
    "torch.quantization": "torch_ao_ext.quantization",
    **{f"torch.nn.{p}": f"torch_ao_ext.nn.{p}" for p in ("quantized", "intrinsic", "qat", "quantizable")},
}
# Modules in them that had another name or place then.
MOVED = {
    "torch.quantization._numeric_suite": "torch_ao_ext.ns._numeric_suite",
    "torch.quantization._numeric_suite_fx": "torch_ao_ext.ns._numeric_suite_fx",
    "torch.quantization.fx.fusion_patterns": "torch_ao_ext.quantization.fx.fuse_handler",
    "torch.quantization.fx.quantization_patterns": "torch_ao_ext.quantization.fx.quantize_handler",
    "torch.quantization.fx.quantization_types": "torch_ao_ext.quantization.utils",
    "torch.nn.quantized._reference": "torch_ao_ext.nn.quantized.reference",
}
