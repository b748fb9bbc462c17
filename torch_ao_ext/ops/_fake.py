"""Checks of the fake kernels: the rules and texts of csrc/core/checks.cpp.

Values are not known while tracing, so only shapes and dtypes are checked here.
A symbolic size that cannot be compared without a guard is left to the kernel.
"""

from collections.abc import Sequence

import torch
from torch.fx.experimental.symbolic_shapes import guard_or_true

Tensor = torch.Tensor

FLOAT_INPUT = (torch.float32, torch.bfloat16)
QUANTIZED = (torch.uint8, torch.int8)

# At most this many post-ops in one op (csrc/core/post_ops.h).
MAX_POST_OPS = 8

# name -> number of values it takes from post_op_args
POST_OPS = {
    "relu": 0,
    "clamp": 2,
    "leaky_relu": 1,
    "silu": 0,
    "gelu_erf": 0,
    "gelu_tanh": 0,
    "hardswish": 0,
    "hardsigmoid": 0,
    "sigmoid": 0,
    "tanh": 0,
    "add": 0,
}


def dtype_name(dtype: torch.dtype) -> str:
    """'float32' of torch.float32."""
    return str(dtype).removeprefix("torch.")


def _join(dtypes: Sequence[torch.dtype]) -> str:
    names = [dtype_name(d) for d in dtypes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _message(op: str, name: str, rule: str, got: object) -> str:
    return f"torch_ao::{op}: argument '{name}' must {rule}, got {got}"


def check_tensor(op: str, name: str, t: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    """TypeError unless t is strided and of one of the dtypes."""
    if t.layout is not torch.strided or t.is_nested:
        raise TypeError(_message(op, name, "be a dense CPU tensor", f"layout {t.layout}"))
    if t.dtype not in dtypes:
        raise TypeError(_message(op, name, f"have dtype {_join(dtypes)}", dtype_name(t.dtype)))


def check_dtype(op: str, name: str, dtype: torch.dtype, dtypes: Sequence[torch.dtype]) -> None:
    """TypeError unless a dtype argument is one of the dtypes."""
    if dtype not in dtypes:
        raise TypeError(_message(op, name, f"be {_join(dtypes)}", dtype_name(dtype)))


def check_value(ok: object, op: str, name: str, rule: str, got: object) -> None:
    """ValueError when the condition is known to be false."""
    if not guard_or_true(ok):
        raise ValueError(_message(op, name, rule, got))


def sizes(t: Tensor) -> str:
    """'sizes [2, 3]', as the kernels print it."""
    return f"sizes [{', '.join(str(s) for s in t.shape)}]"


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
    text = f"have the sizes of {what} [{', '.join(str(s) for s in shape)}]"
    check_value(t.dim() == len(shape), op, name, text, sizes(t))
    for have, want in zip(t.shape, shape, strict=True):
        check_value(have == want, op, name, text, sizes(t))


def check_per_channel(op: str, name: str, t: Tensor, channels: object) -> None:
    """ValueError unless t has one value, or one for each channel."""
    rule = f"have sizes [1] or [{channels}]"
    check_value(t.dim() <= 1, op, name, rule, sizes(t))
    count = t.numel()
    if not (guard_or_true(count == 1) or guard_or_true(count == channels)):
        raise ValueError(_message(op, name, rule, sizes(t)))


def check_weight(
    op: str, weight: Tensor, scale: Tensor, zero_point: Tensor | None, bias: Tensor | None
) -> None:
    """The weight [N, K] of a linear op with its qparams and bias."""
    check_tensor(op, "weight", weight, (torch.int8,))
    check_rank(op, "weight", weight, 2)
    rows = weight.shape[0]
    check_tensor(op, "weight_scale", scale, (torch.float32,))
    check_per_channel(op, "weight_scale", scale, rows)
    if zero_point is not None:
        check_tensor(op, "weight_zero_point", zero_point, (torch.int32,))
        check_per_channel(op, "weight_zero_point", zero_point, rows)
    if bias is not None:
        check_tensor(op, "bias", bias, (torch.float32,))
        check_rank(op, "bias", bias, 1)
        check_size(op, "bias", bias, 0, rows, "weight.size(0)")


def check_post_ops(
    op: str, post_ops: str, args: Sequence[float], other: Tensor | None, output: Tensor
) -> None:
    """Names and argument counts of the post-ops, and the operand of `add`."""
    names = post_ops.split(",") if post_ops else []
    for name in names:
        if name not in POST_OPS:
            known = ", ".join(POST_OPS)
            raise ValueError(_message(op, "post_ops", f"be one of {known}", f"'{name}'"))
    if len(names) > MAX_POST_OPS:
        raise ValueError(
            _message(op, "post_ops", f"have at most {MAX_POST_OPS} names", len(names))
        )
    needed = sum(POST_OPS[name] for name in names)
    if len(args) != needed:
        raise ValueError(_message(op, "post_op_args", f"have {needed} values", len(args)))
    if names.count("add") > 1:
        raise ValueError(_message(op, "post_ops", "have 'add' at most once", f"'{post_ops}'"))
    if ("add" in names) != (other is not None):
        rule = "be given with post-op 'add'" if other is None else "be None without post-op 'add'"
        raise ValueError(_message(op, "other", rule, "None" if other is None else "a tensor"))
    if other is not None:
        check_tensor(op, "other", other, FLOAT_INPUT)
        check_same_sizes(op, "other", other, output.shape, "the output")
