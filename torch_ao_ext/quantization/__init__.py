"""Quantization flows under the names of torch.ao.quantization."""

from torch_ao_ext.quantization.fake_quantize import *  # noqa: F403
from torch_ao_ext.quantization.fake_quantize import __all__ as _fake_quantize_names
from torch_ao_ext.quantization.observer import *  # noqa: F403
from torch_ao_ext.quantization.observer import __all__ as _observer_names
from torch_ao_ext.quantization.qconfig import *  # noqa: F403
from torch_ao_ext.quantization.qconfig import __all__ as _qconfig_names
from torch_ao_ext.quantization.qconfig_mapping import *  # noqa: F403
from torch_ao_ext.quantization.qconfig_mapping import __all__ as _qconfig_mapping_names
from torch_ao_ext.quantization.quant_type import QuantType
from torch_ao_ext.quantization.quantization_mappings import (
    DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS,
    get_default_dynamic_quant_module_mappings,
    get_dynamic_quant_module_class,
)
from torch_ao_ext.quantization.quantize import quantize_dynamic
from torch_ao_ext.quantization.weight_only import quantize_weight_only

__all__ = [
    "DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS",
    "QuantType",
    "get_default_dynamic_quant_module_mappings",
    "get_dynamic_quant_module_class",
    "quantize_dynamic",
    "quantize_weight_only",
    *_fake_quantize_names,
    *_observer_names,
    *_qconfig_names,
    *_qconfig_mapping_names,
]
