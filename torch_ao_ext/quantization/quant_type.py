"""Kinds of quantization, as torch.ao numbers them."""

import enum

__all__ = ["QuantType"]


class QuantType(enum.IntEnum):
    """How an op is quantized; values are torch.ao's."""

    DYNAMIC = 0
    STATIC = 1
    QAT = 2
    WEIGHT_ONLY = 3


def _get_quant_type_to_str(quant_type: QuantType) -> str:
    return quant_type.name.lower()


def _quant_type_from_str(name: str) -> QuantType:
    for quant_type in QuantType:
        if _get_quant_type_to_str(quant_type) == name:
            return quant_type
    names = ", ".join(_get_quant_type_to_str(t) for t in QuantType)
    raise ValueError(f"QuantType: argument 'name' must be one of {names}, got {name!r}")
