"""Parts of FX graph mode: custom configs and the quantizer of a QConfigMapping."""

from torch_ao_ext.quantization.fx import custom_config

__all__ = ["custom_config"]
