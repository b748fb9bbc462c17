"""Parts of FX graph mode; as in torch.ao, `convert`, `fuse` and `prepare` are functions of their files."""

from torch_ao_ext.quantization.fx import custom_config
from torch_ao_ext.quantization.fx.convert import convert
from torch_ao_ext.quantization.fx.fuse import fuse
from torch_ao_ext.quantization.fx.prepare import prepare

__all__ = ["convert", "custom_config", "fuse", "prepare"]
