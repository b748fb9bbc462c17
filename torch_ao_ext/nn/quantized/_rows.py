"""Rows of embedding tables: codes, scale and bias as tensors, and fused as the operators take them."""

from typing import Any, NamedTuple

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor

__all__ = [
    "BITS", "Rows", "as_quantized_tensor", "check_observer", "clipped_weight", "fuse_rows", "observed_rows",
    "reference_weight", "row_observer", "rows_of_weight", "split_rows",
]  # fmt: skip

# The dtypes that name a width, as torch.ao spells them and as integers.
BITS = {torch.uint8: 8}
for _name, _bits in (("quint8", 8), ("quint4x2", 4), ("quint2x4", 2)):
    if hasattr(torch, _name):
        BITS[getattr(torch, _name)] = _bits

_FLOAT_QPARAMS = torch.per_channel_affine_float_qparams

# This library's activation observers mark its own default qconfigs.
_OWN_RULE = "dynamic_quant"


class Rows(NamedTuple):
    """Real value = scale[n] * codes[n] + bias[n].

    codes uint8 `[N, D]`, one code an element; scale and bias float32 `[N]`.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor


def _tail_bytes(bits: int) -> int:
    return 8 if bits == 8 else 4


def fuse_rows(rows: Rows, bits: int) -> torch.Tensor:
    """One uint8 tensor `[N, bytes]`: torch's fused row-wise format.

    Raises:
        ValueError: a scale or bias that the format cannot hold (float16 below 8 bits).
    """
    count, dim = rows.codes.shape
    in_byte = 8 // bits
    code_bytes = -(-dim // in_byte)
    table = torch.zeros(count, code_bytes + _tail_bytes(bits), dtype=torch.uint8)
    for k in range(in_byte):  # element k of each byte
        part = rows.codes[:, k::in_byte]
        table[:, : part.shape[1]] |= part << (k * bits)
    stored = torch.stack([rows.scale, rows.bias], 1)
    if bits != 8:
        stored = stored.to(torch.float16)
    if not bool(torch.isfinite(stored).all()):
        raise ValueError(
            f"weight must have scales and biases of its rows in the range of {stored.dtype}"
        )
    table[:, code_bytes:] = stored.view(torch.uint8)
    return table


def split_rows(table: torch.Tensor, bits: int, dim: int) -> Rows:
    """The inverse of `fuse_rows`."""
    tail = _tail_bytes(bits)
    code_bytes = table.shape[1] - tail
    codes = torch.empty(table.shape[0], dim, dtype=torch.uint8)
    in_byte = 8 // bits
    for k in range(in_byte):
        part = codes[:, k::in_byte]
        part.copy_(table[:, : part.shape[1]] >> (k * bits) & (2**bits - 1))
    stored = table[:, code_bytes:].clone(memory_format=torch.contiguous_format)
    stored = stored.view(torch.float32 if bits == 8 else torch.float16).to(torch.float32)
    return Rows(codes, stored[:, 0].contiguous(), stored[:, 1].contiguous())


def as_quantized_tensor(rows: Rows) -> QuantizedTensor:
    """The rows with float zero points, as torch.ao's weights have them."""
    # A constant row has scale 0 and codes 0: as scale 1 it keeps its value.
    scale = torch.where(rows.scale == 0, torch.ones_like(rows.scale), rows.scale)
    return QuantizedTensor(rows.codes, scale, -rows.bias / scale)


def rows_of_weight(w: Any, bits: int, shape: tuple[int, int]) -> Rows:
    """Rows of a weight with `int_repr()` and per-channel qparams: ours or torch's own.

    Raises:
        ValueError: wrong shape, dtype or axis.
    """
    codes = w.int_repr()
    name = "weight"
    if w.dtype not in BITS or BITS[w.dtype] != bits and not isinstance(w, QuantizedTensor):
        raise ValueError(f"{name} must have codes of {bits} bits (unsigned), got {w.dtype}")
    if w.q_per_channel_axis() != 0:
        raise ValueError(f"{name} must be quantized along axis 0, got axis {w.q_per_channel_axis()}")
    if not isinstance(w, QuantizedTensor) and bits != 8:  # torch gives its packed bytes
        in_byte = 8 // bits
        packed = codes.reshape(shape[0], -1)
        codes = torch.stack([packed >> (k * bits) & (2**bits - 1) for k in range(in_byte)], -1)
        codes = codes.flatten(1)[:, : shape[1]]
    if codes.dtype != torch.uint8 or tuple(codes.shape) != shape:
        raise ValueError(
            f"{name} must be {list(shape)} in uint8, got {list(codes.shape)} in {codes.dtype}"
        )
    if codes.numel() and int(codes.max()) >= 2**bits:
        raise ValueError(f"{name} must have codes below {2**bits}, got {int(codes.max())}")
    scale = w.q_per_channel_scales().to(torch.float32)
    zero_point = w.q_per_channel_zero_points().to(torch.float32)
    return Rows(codes, scale, zero_point * scale * -1)


def check_observer(observer: Any) -> int:
    """Bits of the codes that a weight observer is for.

    Raises:
        ValueError: not an observer of rows with float zero points.
    """
    dtype, qscheme = getattr(observer, "dtype", None), getattr(observer, "qscheme", None)
    if qscheme != _FLOAT_QPARAMS or dtype not in BITS or getattr(observer, "ch_axis", 0) != 0:
        raise ValueError(
            "qconfig.weight must observe rows with float zero points "
            f"(float_qparams_weight_only_qconfig and _4bit), got {dtype} with {qscheme}"
        )
    return BITS[dtype]


def observed_rows(weight: torch.Tensor, observer: Any) -> Rows:
    """Rows under a weight observer, with torch.ao's numbers.

    codes = clamp(round_half_even(w * (1 / scale) + zero_point), 0, 2^bits - 1), bias =
    -scale * zero_point.
    """
    bits = check_observer(observer)
    weight = weight.detach().to(torch.float32)
    observer(weight)
    scale, zero_point = observer.calculate_qparams()
    scale, zero_point = scale.to(torch.float32), zero_point.to(torch.float32)
    codes = weight * scale.reciprocal().unsqueeze(1)
    codes = codes.add_(zero_point.unsqueeze(1)).round_().clamp_(0, 2**bits - 1)
    return Rows(codes.to(torch.uint8), scale, zero_point * scale * -1)


def row_observer(qconfig: Any) -> Any:
    """The weight observer of a qconfig; None for the default rule, 8 bits.

    None comes from a qconfig without a weight observer, and from the defaults of
    `quantize_dynamic`, whose weight rule is for products.

    Raises:
        ValueError: the qconfig observes its weight for anything but rows.
    """
    if qconfig is None or qconfig.weight is None:
        return None
    activation = qconfig.activation() if qconfig.activation is not None else None
    if hasattr(activation, _OWN_RULE):
        return None
    observer = qconfig.weight()
    check_observer(observer)
    return observer


def clipped_weight(mod: nn.Module) -> torch.Tensor:
    """The float weight as lookups see it: rows above max_norm are scaled down on use."""
    weight = mod.weight.detach()
    if mod.max_norm is None:
        return weight
    norm = weight.float().norm(p=mod.norm_type, dim=1, keepdim=True)
    factor = torch.where(norm > mod.max_norm, mod.max_norm / (norm + 1e-7), torch.ones_like(norm))
    return (weight.float() * factor).to(weight.dtype)


def reference_weight(ref: Any) -> Any:
    """Of a reference layer: ours give plain integers, torch.ao's a quantized tensor."""
    weight = ref.get_quantized_weight()
    if not isinstance(weight, torch.Tensor) or weight.is_quantized or weight.dtype != torch.uint8:
        return weight
    qparams = (ref.weight_scale.detach(), ref.weight_zero_point.detach())
    rows = (weight.shape[0],)
    return QuantizedTensor(weight, *(part.to(torch.float32).reshape(-1).expand(rows) for part in qparams))
