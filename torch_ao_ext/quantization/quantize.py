"""Eager mode: float model in, model of int8 modules out."""

from torch_ao_ext.quantization._convert import convert, quantize, swap_module
from torch_ao_ext.quantization._prepare import (
    add_quant_dequant,
    get_default_custom_config_dict,
    prepare,
    propagate_qconfig_,
)
from torch_ao_ext.quantization._quantize_dynamic import quantize_dynamic
from torch_ao_ext.quantization._train import prepare_qat, quantize_qat

__all__ = [
    "add_quant_dequant",
    "convert",
    "get_default_custom_config_dict",
    "prepare",
    "prepare_qat",
    "propagate_qconfig_",
    "quantize",
    "quantize_dynamic",
    "quantize_qat",
    "swap_module",
]
