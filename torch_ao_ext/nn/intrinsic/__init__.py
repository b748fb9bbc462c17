"""Fused float containers and their quantized counterparts."""

from torch_ao_ext.nn.intrinsic import quantized
from torch_ao_ext.nn.intrinsic.modules import *  # noqa: F403
from torch_ao_ext.nn.intrinsic.modules import __all__ as _names
from torch_ao_ext.nn.intrinsic.modules.fused import _FusedModule  # noqa: F401  (as in torch.ao)

from torch_ao_ext.nn.intrinsic import qat  # isort: skip  (needs the containers)

__all__ = ["qat", "quantized", *_names]
