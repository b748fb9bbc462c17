"""Checks of the fake kernels: the rules and texts of csrc/core/checks.cpp.

Values are not known while tracing, so only shapes and dtypes are checked here.
A symbolic size that cannot be compared without a guard is left to the kernel.
"""

from collections.abc import Sequence
from typing import NoReturn

import torch

Tensor = torch.Tensor

FLOAT = (torch.float32, torch.bfloat16)
QUANTIZED = (torch.uint8, torch.int8)
OUTPUT = (torch.uint8, torch.int8, torch.float32, torch.bfloat16)
SCALES = (torch.float32, torch.float64)
ZERO_POINTS = (torch.int32, torch.int64)


def dtype_name(dtype: torch.dtype) -> str:
    """'float32' of torch.float32."""
    return str(dtype).removeprefix("torch.")


def _join(dtypes: Sequence[torch.dtype]) -> str:
    names = [dtype_name(d) for d in dtypes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _message(op: str, name: str, rule: str, got: object) -> str:
    return f"torch_ao::{op}: argument '{name}' must {rule}, got {got}"


def refuse(op: str, name: str, rule: str, got: object) -> NoReturn:
    """ValueError: the argument must follow the rule."""
    raise ValueError(_message(op, name, rule, got))


def check_device(op: str, name: str, t: Tensor) -> None:
    """TypeError for a plain tensor in memory.

    It gets here beside one on the meta device only: the result would be memory that nobody wrote to.
    """
    if type(t) in (torch.Tensor, torch.nn.Parameter) and t.device.type != "meta":
        rule = "be on the meta device, as another argument is"
        raise TypeError(_message(op, name, rule, f"a tensor on device {t.device}"))


def check_tensor(op: str, name: str, t: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    """TypeError unless t is strided and of one of the dtypes."""
    if t is None:
        raise TypeError(_message(op, name, "be a dense CPU tensor", "None"))
    check_device(op, name, t)
    if t.layout is not torch.strided or t.is_nested:
        raise TypeError(_message(op, name, "be a dense CPU tensor", f"layout {t.layout}"))
    if t.dtype not in dtypes:
        raise TypeError(_message(op, name, f"have dtype {_join(dtypes)}", dtype_name(t.dtype)))


def check_dtype(op: str, name: str, dtype: torch.dtype, dtypes: Sequence[torch.dtype]) -> None:
    """TypeError unless a dtype argument is one of the dtypes."""
    if dtype not in dtypes:
        raise TypeError(_message(op, name, f"be {_join(dtypes)}", dtype_name(dtype)))


def check_output_dtype(op: str, dtype: torch.dtype | None, dtypes: Sequence[torch.dtype] = OUTPUT) -> None:
    """TypeError unless an operator's argument output_dtype is None or one of the dtypes."""
    if dtype is not None:
        check_dtype(op, "output_dtype", dtype, dtypes)


def _maybe(condition: object) -> bool:
    """False only when the condition is known to be false; adds no guard."""
    if isinstance(condition, bool):
        return condition
    # Imported late: it brings sympy, and a symbolic size means it is loaded.
    from torch.fx.experimental.symbolic_shapes import guard_or_true

    return guard_or_true(condition)


def check_value(ok: object, op: str, name: str, rule: str, got: object) -> None:
    """ValueError when the condition is known to be false."""
    if not _maybe(ok):
        raise ValueError(_message(op, name, rule, got))


def check_numbers(op: str, name: str, values: int | Sequence[int], rank: int, least: int) -> list[int]:
    """One for each of these spatial dimensions; ValueError for another count, or one below `least`."""
    values = [values] * rank if isinstance(values, int) else list(values)
    check_value(len(values) == rank, op, name, f"have {rank} values", values)
    for value in values:
        check_value(least <= value < 2**31, op, name, f"hold values in [{least}, 2^31)", value)
    return values


def listed(shape: Sequence[object]) -> str:
    """'[2, 3]', as the kernels print it."""
    return f"[{', '.join(str(s) for s in shape)}]"


def sizes(t: Tensor) -> str:
    """'sizes [2, 3]', as the kernels print it."""
    return f"sizes {listed(t.shape)}"


def check_rank(op: str, name: str, t: Tensor, rank: int) -> None:
    """ValueError unless t has exactly this many dimensions."""
    check_value(t.dim() == rank, op, name, f"have {rank} dimensions", sizes(t))


def check_min_rank(op: str, name: str, t: Tensor, rank: int) -> None:
    """ValueError unless t has at least this many dimensions."""
    plural = "dimension" if rank == 1 else "dimensions"
    check_value(t.dim() >= rank, op, name, f"have at least {rank} {plural}", sizes(t))


def check_size(op: str, name: str, t: Tensor, dim: int, size: object, what: str) -> None:
    """ValueError unless t.size(dim) is that size, which comes from `what`."""
    got = t.size(dim)
    check_value(got == size, op, name, f"have size({dim}) equal to {what} ({size})", got)


def check_same_sizes(op: str, name: str, t: Tensor, shape: Sequence[object], what: str) -> None:
    """ValueError unless t has this shape, which is that of `what`."""
    rule = f"have the sizes of {what} [{', '.join(str(s) for s in shape)}]"
    check_shape(op, name, t, shape, rule)


def check_expands(op: str, name: str, t: Tensor, shape: Sequence[object], rule: str) -> None:
    """ValueError unless t's sizes expand to this shape."""
    check_value(t.dim() <= len(shape), op, name, rule, sizes(t))
    for have, want in zip(t.shape[::-1], shape[::-1], strict=False):
        if not (isinstance(have, int) and have == 1):
            check_value(have == want, op, name, rule, sizes(t))


def check_shape(op: str, name: str, t: Tensor, shape: Sequence[object], rule: str) -> None:
    """ValueError with this rule unless t has this shape."""
    check_value(t.dim() == len(shape), op, name, rule, sizes(t))
    for have, want in zip(t.shape, shape, strict=True):
        check_value(have == want, op, name, rule, sizes(t))


def broadcast(op: str, other: Tensor, a: Sequence, b: Sequence, rule: str) -> list:
    """Sizes of both, broadcast; ValueError naming 'other' where they do not."""
    result = []
    for i in range(max(len(a), len(b))):
        x = a[-1 - i] if i < len(a) else 1
        y = b[-1 - i] if i < len(b) else 1
        one_of = isinstance(x, int) and x == 1 or isinstance(y, int) and y == 1
        if not one_of:
            check_value(x == y, op, "other", rule, sizes(other))
        result.append(y if isinstance(x, int) and x == 1 else x)
    return result[::-1]


def check_axis(op: str, name: str, axis: int, rank: int) -> int:
    """The axis counted from 0; IndexError when there is none."""
    if not -rank <= axis < rank:
        raise IndexError(_message(op, name, f"be in [{-rank}, {rank - 1}]", axis))
    return axis % rank


def empty_like(input: Tensor, dtype: torch.dtype) -> Tensor:
    """torch.empty_like as the kernels do it: a dense input keeps its strides.

    torch's own fake loses those of dimensions with 0 or 1 elements.
    """
    if all(isinstance(n, int) for n in (*input.shape, *input.stride())):
        from torch._prims_common import is_non_overlapping_and_dense_or_false

        if 0 in input.shape or is_non_overlapping_and_dense_or_false(input):
            return input.new_empty_strided(input.shape, input.stride(), dtype=dtype)
    elif any(isinstance(size, int) and size == 0 for size in input.shape):
        return input.new_empty_strided(input.shape, input.stride(), dtype=dtype)
    return torch.empty_like(input, dtype=dtype)


def dequantized(op: str, input: Tensor, output_dtype: torch.dtype | None) -> Tensor:
    """Checks of a dequantize op; an empty float tensor with input's shape and strides."""
    check_tensor(op, "input", input, QUANTIZED)
    dtype = torch.float32 if output_dtype is None else output_dtype
    check_dtype(op, "output_dtype", dtype, FLOAT)
    return empty_like(input, dtype)


def check_per_channel(op: str, name: str, t: Tensor, channels: object) -> None:
    """ValueError unless t has one value, or one for each channel."""
    rule = f"have sizes [1] or [{channels}]"
    check_value(t.dim() <= 1, op, name, rule, sizes(t))
    count = t.numel()
    if not (_maybe(count == 1) or _maybe(count == channels)):
        raise ValueError(_message(op, name, rule, sizes(t)))


def check_weight(
    op: str, weight: Tensor, scale: Tensor, zero_point: Tensor | None, bias: Tensor | None
) -> None:
    """The weight [N, K] of a linear op with its qparams and bias."""
    check_tensor(op, "weight", weight, (torch.int8,))
    check_rank(op, "weight", weight, 2)
    check_columns(op, weight.shape[0], "weight.size(0)", scale, zero_point, bias)


def check_columns(
    op: str, rows: object, what: str, scale: Tensor, zero_point: Tensor | None, bias: Tensor | None
) -> None:
    """Scales, zero points and bias of this many output columns, a number that comes from `what`."""
    check_tensor(op, "weight_scale", scale, (torch.float32,))
    check_per_channel(op, "weight_scale", scale, rows)
    if zero_point is not None:
        check_tensor(op, "weight_zero_point", zero_point, ZERO_POINTS)
        check_per_channel(op, "weight_zero_point", zero_point, rows)
    if bias is not None:
        check_tensor(op, "bias", bias, (torch.float32,))
        check_rank(op, "bias", bias, 1)
        check_size(op, "bias", bias, 0, rows, what)


def check_batch_norm(
    op: str, rows: object, what: str, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None
) -> None:
    """Statistics and affine of a batch normalization of this many columns (csrc/ops/batch_norm.cpp)."""
    for name, t in (("running_mean", mean), ("running_var", var), ("bn_weight", weight), ("bn_bias", bias)):
        if t is not None or name.startswith("running"):
            check_tensor(op, name, t, (torch.float32,))
            check_rank(op, name, t, 1)
            check_size(op, name, t, 0, rows, what)


def check_one_element(op: str, name: str, t: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    """A qparam that comes as a tensor."""
    check_tensor(op, name, t, dtypes)
    check_value(t.numel() == 1, op, name, "have 1 element", sizes(t))
