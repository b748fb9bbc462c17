"""Which float module becomes which sparse int8 module."""

from torch import nn

__all__ = ["get_dynamic_sparse_quantized_mapping", "get_static_sparse_quantized_mapping"]


def get_static_sparse_quantized_mapping() -> dict[type[nn.Module], type[nn.Module]]:
    """Float module -> sparse int8 module with a fixed output scale."""
    from torch_ao_ext.nn.sparse import quantized

    return {nn.Linear: quantized.Linear}


def get_dynamic_sparse_quantized_mapping() -> dict[type[nn.Module], type[nn.Module]]:
    """Float module -> sparse int8 module that quantizes its input row by row."""
    from torch_ao_ext.nn.sparse import quantized

    return {nn.Linear: quantized.dynamic.Linear}
