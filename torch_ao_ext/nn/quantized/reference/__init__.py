"""Float modules that round their weights: what a quantized model means, for other backends."""

from torch_ao_ext.nn.quantized.reference.modules import *  # noqa: F403
from torch_ao_ext.nn.quantized.reference.modules import __all__ as _names

__all__ = [*_names]
