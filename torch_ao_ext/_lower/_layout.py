"""Convolutions and pooling give channels last: what the float graph took for granted still holds."""

import torch
from torch import fx

from torch_ao_ext._graph_ops import FUSED
from torch_ao_ext.quantization.quantizer._targets import aten, is_call

ao = torch.ops.torch_ao

# What torch_ao::contiguous takes; ATen's takes the rest, indices of a maximum for one.
_COPIED = {torch.uint8, torch.int8, torch.float32, torch.bfloat16}
_VIEWS = {aten.view.default, aten._unsafe_view.default}


def views_become_reshapes(model: fx.GraphModule) -> None:
    """A view of a contiguous tensor needs a copy when the tensor is channels last."""
    for node in model.graph.nodes:
        if is_call(node, _VIEWS):
            node.target = aten.reshape.default


def _channels_last(node: fx.Node) -> bool:
    """Whether the node is an operator of ours that gives channels last."""
    name = str(node.target)
    return (
        node.op == "call_function"
        and name.startswith("torch_ao.")
        and any(kind in name for kind in ("conv", "pool", "interpolate"))
    )


def quantize_to_channels_last(model: fx.GraphModule) -> None:
    """What convolutions and pooling alone read is made channels last at once."""
    for node in model.graph.nodes:
        if node.target is not ao.quantize_per_tensor.default or not node.users:
            continue
        value = node.args[0].meta.get("val")
        images = isinstance(value, torch.Tensor) and 3 <= value.dim() <= 5
        if images and all(_channels_last(user) and user.args[0] is node for user in node.users):
            node.update_kwarg("memory_format", torch.channels_last)


def contiguous_outputs(model: fx.GraphModule) -> None:
    """Results of the graph have the contiguous layout that the exported graph gave them."""
    output = next(node for node in reversed(model.graph.nodes) if node.op == "output")
    marked: set[fx.Node] = set()  # what may be channels last
    for node in model.graph.nodes:
        if _channels_last(node) or any(source in marked for source in node.all_input_nodes):
            marked.add(node)
    for node in list(output.all_input_nodes):
        value = node.meta.get("val")
        images = isinstance(value, torch.Tensor) and value.dim() >= 3
        if node not in marked or not images or node.op != "call_function" or not value.is_contiguous():
            continue
        if node.target is ao.dequantize_per_tensor.default and len(node.users) == 1:
            node.update_kwarg("memory_format", torch.contiguous_format)
            continue
        target = ao.contiguous.default if value.dtype in _COPIED else aten.contiguous.default
        with model.graph.inserting_after(node):
            copy = model.graph.call_function(target, (node,))
        copy.meta = {key: known for key, known in node.meta.items() if key != FUSED}
        output.replace_input_with(node, copy)
