"""What torch.ao's packed objects hold, as plain tensors."""

from typing import Any, NamedTuple

import torch

from torch_ao_ext.nn.quantized import _rows
from torch_ao_ext.nn.quantized._observed import QuantizedWeight
from torch_ao_ext.nn.quantized._weighted import weight_of_tensor

__all__ = [
    "ROW_DTYPES",
    "Cell",
    "Convolution",
    "cell_of",
    "conv_of",
    "linear_of",
    "product_of",
    "recurrent_weight",
    "sparse_of",
    "symmetric_weight",
    "table_of",
    "table_weight",
    "weight_of",
]

_ops = torch.ops.quantized  # only what unpacks
ROW_DTYPES = tuple(dtype for dtype in _rows.BITS if dtype != torch.uint8)


class Cell(NamedTuple):
    """One layer and direction: W_ih, W_hh in int8 with a scale a row, and b_ih, b_hh in float32."""

    weights: list[torch.Tensor]
    scales: list[torch.Tensor]
    biases: list[torch.Tensor]
    reduce_range: bool = False


def check_quantized(weight: Any, *dtypes: torch.dtype) -> None:
    """ValueError unless it is a quantized tensor of one of these dtypes."""
    if not isinstance(weight, torch.Tensor) or not weight.is_quantized:
        got = weight.dtype if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise ValueError(f"must be a quantized tensor, got {got}")
    if weight.dtype not in dtypes:
        raise ValueError(f"must be {' or '.join(str(dtype) for dtype in dtypes)}, got {weight.dtype}")


def weight_of(weight: Any, axis: int) -> QuantizedWeight:
    """An int8 weight.

    Args:
        weight: torch's quantized tensor.
        axis: of the output channels.

    Raises:
        ValueError: of another dtype or axis.
    """
    check_quantized(weight, torch.qint8)
    return weight_of_tensor(weight, axis)


def symmetric_weight(weight: Any) -> QuantizedWeight:
    """An int8 weight with zero point 0.

    Raises:
        ValueError: not int8, or with a zero point.
    """
    found = weight_of(weight, 0)
    if found.zero_point is not None:
        raise ValueError("must have zero point 0")
    return found


def product_of(kind: str, packed: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The quantized weight of a product, and its bias.

    Args:
        kind: linear, conv1d to conv_transpose3d.
        packed: its weight.
    """
    return getattr(_ops, f"{kind}_unpack")(packed)


def linear_of(packed: Any) -> tuple[QuantizedWeight, torch.Tensor | None]:
    """Weight and bias of a linear layer.

    Raises:
        ValueError: not int8.
    """
    weight, bias = product_of("linear", packed)
    return weight_of(weight, 0), bias


class Convolution(NamedTuple):
    """Weight, bias, and stride, padding (output padding), dilation, groups in the operators' order."""

    weight: QuantizedWeight
    bias: torch.Tensor | None
    numbers: list[Any]


def conv_of(kind: str, packed: Any) -> Convolution:
    """A convolution.

    Args:
        kind: conv1d to conv_transpose3d.
        packed: its weight.

    Raises:
        ValueError: not int8.
    """
    rank, transposed = int(kind[-2]), "transpose" in kind
    weight, bias = product_of(kind, packed)
    wide = f"{'conv_transpose' if transposed else 'conv'}{max(rank, 2)}d"

    def geometry(name: str) -> list[int]:
        return list(getattr(_ops, f"{wide}_{name}")(packed))[-rank:]

    stride, padding, dilation = (geometry(name) for name in ("stride", "padding", "dilation"))
    groups = int(getattr(_ops, f"{wide}_groups")(packed))
    numbers = [stride, padding, dilation, groups]
    if transposed:
        numbers = [stride, padding, geometry("output_padding"), groups, dilation]
    return Convolution(weight_of(weight, 1 if transposed else 0), bias, numbers)


def recurrent_weight(packed: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Int8 `[rows, K]` and scale `[rows]` of a packed linear weight.

    Raises:
        ValueError: not int8, or with a zero point.
    """
    found = symmetric_weight(packed.unpack()[0])
    return found.data, found.scale.expand(found.data.shape[0]).contiguous()


def cell_of(params: Any) -> Cell:
    """Weights of a `CellParamsBase`.

    Raises:
        ValueError: no int8 weights.
    """
    kind, tensors, _, flags, packed = params.__getstate__()[0]
    if kind != "quantized_dynamic":
        raise ValueError(f"must have int8 weights, got {kind}")
    weights, scales = zip(*(recurrent_weight(weight) for weight in packed), strict=True)
    return Cell(list(weights), list(scales), [bias.detach() for bias in tensors], any(flags))


def table_weight(packed: Any) -> torch.Tensor:
    """The quantized weight of an embedding."""
    return _ops.embedding_bag_unpack(packed)


def table_of(weight: Any, shape: tuple[int, int] | None = None) -> tuple[torch.Tensor, int]:
    """Fused rows and bits of an embedding's weight.

    Args:
        weight: torch's quantized tensor.
        shape: what it must have; None for its own.

    Raises:
        ValueError: another dtype, axis or shape.
    """
    check_quantized(weight, *_rows.BITS)
    bits = _rows.BITS[weight.dtype]
    rows = _rows.rows_of_weight(weight, bits, tuple(weight.shape) if shape is None else shape)
    return _rows.fuse_rows(rows, bits), bits


def sparse_parts(packed: Any) -> tuple[torch.Tensor, torch.Tensor | None, int, int]:
    """Dense quantized weight, bias and the two sizes of a block, as a state_dict of torch.ao has them."""
    weight, bias, block = torch.ops.sparse.qlinear_unpack(packed)
    return weight, bias, *block


def sparse_of(packed: Any) -> tuple[QuantizedWeight, torch.Tensor | None, tuple[int, int]]:
    """Dense int8 weight, bias and block shape of a sparse layer.

    Raises:
        ValueError: not int8, or with a zero point.
    """
    weight, bias, rows, columns = sparse_parts(packed)
    return symmetric_weight(weight), bias, (int(rows), int(columns))
