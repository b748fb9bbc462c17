"""Float modules with fake-quantized weights, for quantization-aware training."""

from torch_ao_ext.nn.qat.modules import *  # noqa: F403
from torch_ao_ext.nn.qat.modules import __all__ as _names

from torch_ao_ext.nn.qat import dynamic  # isort: skip  (needs Linear)

__all__ = ["dynamic", *_names]
