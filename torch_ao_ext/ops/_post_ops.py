"""Post-ops: their names, what they read, and the checks of them in fake kernels.

Rules and texts are those of csrc/ops/post_ops.cpp and csrc/ops/post_op_tensors.cpp.
"""

from collections.abc import Sequence

import torch

from torch_ao_ext.ops import _fake

Tensor = torch.Tensor

# At most this many post-ops in one op (csrc/core/post_ops.h).
MAX_POST_OPS = 8

# name -> number of values it takes from post_op_args
POST_OPS = {
    "relu": 0,
    "clamp": 2,
    "leaky_relu": 1,
    "silu": 0,
    "gelu": 0,
    "gelu_tanh": 0,
    "hardswish": 0,
    "hardsigmoid": 0,
    "sigmoid": 0,
    "tanh": 0,
    "add": 0,
    "prelu": 0,
    "affine": 0,
}

# Post-ops that read more than the value they change -> the operator's arguments with it.
OPERANDS = {
    "add": ("other",),
    "prelu": ("slope",),
    "affine": ("affine_weight", "affine_bias"),
}


def check_post_ops(op: str, post_ops: str, args: Sequence[float]) -> None:
    """Names and argument counts of the post-ops (csrc/ops/post_ops.cpp)."""
    names = post_ops.split(",") if post_ops else []
    for name in names:
        if name not in POST_OPS:
            _fake.refuse(op, "post_ops", f"be one of {', '.join(POST_OPS)}", f"'{name}'")
    if len(names) > MAX_POST_OPS:
        _fake.refuse(op, "post_ops", f"have at most {MAX_POST_OPS} names", len(names))
    needed = sum(POST_OPS[name] for name in names)
    if len(args) != needed:
        _fake.refuse(op, "post_op_args", f"have {needed} values", len(args))
    for name in ("add", "affine"):
        if names.count(name) > 1:
            _fake.refuse(op, "post_ops", f"have '{name}' at most once", f"'{post_ops}'")


def _check_post_op_tensor(op: str, name: str, t: Tensor | None, post_ops: str, reader: str) -> bool:
    """Whether the tensor that one post-op reads is there."""
    if reader not in post_ops:
        if t is not None:
            _fake.refuse(op, name, f"be None without post-op '{reader}'", "a tensor")
        return False
    if t is None:
        _fake.refuse(op, name, f"be given with post-op '{reader}'", "None")
    _fake.check_tensor(op, name, t, (torch.float32,))
    return True


def check_post_op_tensors(
    op: str, post_ops: str, rows: object, what: str, slope: Tensor | None, *affine: Tensor | None
) -> None:
    """What post-ops read for each of this many columns, a number that comes from `what`."""
    if _check_post_op_tensor(op, "slope", slope, post_ops, "prelu"):
        _fake.check_per_channel(op, "slope", slope, rows)
    for name, t in zip(OPERANDS["affine"], affine, strict=True):
        if _check_post_op_tensor(op, name, t, post_ops, "affine"):
            _fake.check_rank(op, name, t, 1)
            _fake.check_size(op, name, t, 0, rows, what)


def refuse_post_op_tensors(op: str, post_ops: str) -> None:
    """For an op without them."""
    for name, arguments in OPERANDS.items():
        if arguments != ("other",) and name in post_ops:
            _fake.refuse(op, "post_ops", f"not contain '{name}'", f"'{post_ops}'")


def check_output(op: str, output_dtype: torch.dtype | None, post_ops: str, post_op_args) -> None:
    """Dtype and post-ops of an operator between activations: `add` is an operator there."""
    _fake.check_output_dtype(op, output_dtype)
    check_post_ops(op, post_ops, post_op_args)
    if any(name in post_ops for name in OPERANDS):
        *names, last = (f"'{name}'" for name in OPERANDS)
        _fake.refuse(op, "post_ops", f"not contain {', '.join(names)} or {last}", f"'{post_ops}'")


def check_other(
    op: str, post_ops: str, other: Tensor | None, output: Tensor, dtypes: Sequence[torch.dtype]
) -> None:
    """The operand of the post-op `add`."""
    if "add" not in post_ops:
        if other is not None:
            _fake.refuse(op, "other", "be None without post-op 'add'", "a tensor")
        return
    if other is None:
        _fake.refuse(op, "other", "be given with post-op 'add'", "None")
    _fake.check_tensor(op, "other", other, dtypes)
    _fake.check_same_sizes(op, "other", other, output.shape, "the output")
