"""ATen operators by family, as torch.export writes them, and steps along graph edges."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

CONV = {
    aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding,
    aten.conv3d.default, aten.conv3d.padding,
}  # fmt: skip
CONV_TRANSPOSE = {
    aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input
}  # fmt: skip
# Spatial dimensions.
RANK = {
    aten.conv1d.default: 1, aten.conv1d.padding: 1, aten.conv2d.default: 2, aten.conv2d.padding: 2,
    aten.conv3d.default: 3, aten.conv3d.padding: 3, aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 2, aten.conv_transpose3d.input: 3,
}  # fmt: skip
LINEAR = {aten.linear.default}
MATMUL = {aten.matmul.default, aten.bmm.default}
BATCH_NORM = {aten.batch_norm.default}
ADD = {aten.add.Tensor, aten.add_.Tensor}
MUL = {aten.mul.Tensor, aten.mul_.Tensor}
RELU = {aten.relu.default, aten.relu_.default}
HARDTANH = {aten.hardtanh.default, aten.hardtanh_.default, aten.relu6.default, aten.relu6_.default}
CAT = {aten.cat.default}


def is_call(node: Any, targets: set[Any]) -> bool:
    """Whether node calls one of the operators."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def float_value(node: Any) -> bool:
    """Whether node is known to give a float32, float16 or bfloat16 tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.dtype in (
        torch.float32,
        torch.bfloat16,
        torch.float16,
    )


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that reads this one, None when there are none or several."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def argument(node: fx.Node, index: int, default: Any = None) -> Any:
    """A positional argument, the default when the call leaves it out."""
    return node.args[index] if len(node.args) > index else default


def plain_add(node: fx.Node) -> bool:
    """An add of two float tensors without a factor."""
    return (
        is_call(node, ADD)
        and len(node.args) == 2
        and node.kwargs.get("alpha", 1) == 1
        and all(float_value(arg) for arg in node.args)
    )
