"""torch.ao's containers of packed weights, read into this library's."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized.dynamic.modules.rnn import PackedParameter, pack_weight_bias
from torch_ao_ext.nn.quantized.modules.embedding_ops import EmbeddingPackedParams
from torch_ao_ext.nn.quantized.modules.linear import LinearPackedParams
from torch_ao_ext.nn.sparse import quantized as sparse
from torch_ao_ext.quantization import _packed

__all__ = ["CONTAINERS", "container_of", "held_in"]

# What torch.ao calls the object in them.
CONTAINERS = {
    LinearPackedParams: "_packed_params",
    sparse.LinearPackedParams: "_packed_params",
    EmbeddingPackedParams: "_packed_weight",
    PackedParameter: "param",
}


def held_in(kind: type[nn.Module], packed: Any) -> Any:
    """What a state_dict of torch.ao has for a packed object.

    Args:
        kind: of the container.
        packed: its object; PackedParameter holds anything.
    """
    if kind is PackedParameter:
        return packed
    if kind is EmbeddingPackedParams:
        return _packed.table_weight(packed)
    if kind is LinearPackedParams:
        return packed.unpack()
    return _packed.sparse_parts(packed)


def container_of(kind: type[nn.Module], held: Any) -> nn.Module:
    """A container with the weight that a state_dict of torch.ao has for it.

    Args:
        kind: of the container.
        held: from `held_in`.

    Raises:
        ValueError: a weight that the container does not take.
    """
    if kind is PackedParameter:
        return kind(_recurrent(held))
    if kind is EmbeddingPackedParams:
        _packed.check_quantized(held, *_packed.ROW_DTYPES)
        new = kind(0, 0, dtype=held.dtype)
        new.set_weight(held)
        return new
    weight, bias, *block = held
    new = kind(*map(int, block), dtype=torch.qint8 if weight.is_quantized else torch.float16)
    new.set_weight_bias(weight, bias, *map(int, block))
    return new


def _linear(packed: Any, bias: torch.Tensor | None = None) -> nn.Module:
    """A weight of a recurrent layer; its own bias unless one is given."""
    weight, own = packed.unpack()
    dtype = torch.qint8 if weight.is_quantized else torch.float16
    return pack_weight_bias(weight, own if bias is None else bias.detach(), dtype)


def _recurrent(held: Any) -> Any:
    """W_ih and W_hh of one layer and direction with their biases, or one weight."""
    if not isinstance(held, torch.ScriptObject):
        return held
    if "CellParams" not in str(held._type()):
        return _linear(held)
    _, tensors, _, _, weights = held.__getstate__()[0]
    biases = tensors if len(tensors) == len(weights) else [None] * len(weights)
    return nn.ModuleList(_linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))
