"""Operators without weights of their own that compute in floats in an fx graph, and why they do."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import REASON, arguments_of

__all__ = ["FUNCTIONS", "computes_in_float", "name_of", "not_lowered", "why_float"]

# Functions of one value and of numbers: `lower` makes tables of them.
FUNCTIONS = (
    "abs", "acos", "add", "asin", "atan", "ceil", "celu", "cos", "cosh", "div", "elu", "erf", "exp", "exp2",
    "expm1", "floor", "hardshrink", "log", "log1p", "log2", "log_sigmoid", "mish", "mul", "neg", "pow",
    "prelu", "reciprocal", "relu", "round", "rsqrt", "rsub", "selu", "sgn", "sign", "sin", "sinh",
    "softplus", "softshrink", "sqrt", "square", "sub", "tan", "threshold", "trunc",
)  # fmt: skip
# They have an int8 form only where a quantize stands behind them.
_BEFORE_QUANTIZE = {
    *FUNCTIONS, "clamp", "clamp_max", "clamp_min", "gelu", "hardsigmoid", "hardswish", "hardtanh",
    "leaky_relu", "relu6", "sigmoid", "silu", "tanh", "upsample_bilinear2d", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_nearest3d",
}  # fmt: skip
_OF_TWO_TENSORS = {"add", "mul"}
_HAVE_INT8 = {
    *_BEFORE_QUANTIZE, "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "batch_norm", "group_norm", "instance_norm", "layer_norm", "max_pool1d",
    "max_pool2d", "max_pool3d", "mean", "rms_norm", "softmax",
}  # fmt: skip
# They move, select, join, convert or make values and compute none.
_MOVES = {
    "_to", "_unsafe_view", "alias", "as_strided", "broadcast_tensors", "broadcast_to", "cat",
    "channel_shuffle", "chunk", "clone", "column_stack", "concat", "concatenate", "constant_pad_nd",
    "contiguous", "convert_element_type", "copy", "detach", "diag", "diag_embed", "diagonal",
    "diagonal_scatter", "dsplit", "dstack", "empty_like", "expand", "expand_as", "fill", "flatten", "flip",
    "fliplr", "flipud", "full_like", "gather", "hsplit", "hstack", "im2col", "imag", "index", "index_put",
    "index_select", "lift_fresh", "masked_fill", "masked_scatter", "masked_select", "meshgrid", "movedim",
    "moveaxis", "narrow", "native_channel_shuffle", "new_empty", "new_empty_strided", "new_full",
    "new_ones", "new_zeros", "numpy_T", "ones_like", "pad", "permute", "pixel_shuffle", "pixel_unshuffle",
    "rand_like", "randn_like", "real", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "repeat",
    "repeat_interleave", "replication_pad1d", "replication_pad2d", "replication_pad3d", "reshape",
    "reshape_as", "resize", "roll", "rot90", "scatter", "select", "select_scatter", "slice",
    "slice_scatter", "split", "split_with_sizes", "squeeze", "stack", "swapaxes", "swapdims", "t", "take",
    "take_along_dim", "tensor_split", "tile", "to", "transpose", "tril", "triu", "type_as", "unbind",
    "unflatten", "unfold", "unsafe_chunk", "unsafe_split", "unsqueeze", "view", "view_as",
    "view_as_complex", "view_as_real", "vsplit", "vstack", "where", "zero", "zeros_like",
}  # fmt: skip
# Ours are rows by themselves; quantize and dequantize are no computation between layers.
_OTHER_SPACES = ("torch_ao", "quantized_decomposed")


def name_of(target: Any) -> str:
    """Name of an operator without namespace and overload; one in place has the name of the other."""
    name = target._schema.name.split("::")[1]
    return name if name.startswith("__") else name.removesuffix("_").removesuffix("_copy")


def _tensors(node: fx.Node) -> Iterator[torch.Tensor]:
    value = node.meta.get("val")
    for part in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(part, torch.Tensor):
            yield part


def _float(node: fx.Node) -> bool:
    return any(t.is_floating_point() or t.is_complex() for t in _tensors(node))


def computes_in_float(node: fx.Node) -> bool:
    """Whether a node calls an operator of torch, or of another library, that computes from or to floats.

    Where no values are noted (`meta["val"]`), its own or its inputs', it is taken for one that does not.

    Args:
        node: any; products and lookups count, too.
    """
    target = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload):
        return False
    if target.namespace in _OTHER_SPACES or name_of(target) in _MOVES:
        return False
    if "dropout" in target._schema.name and not arguments_of(node).get("train", False):
        return False
    inputs = [n for n in node.all_input_nodes if any(True for _ in _tensors(n))]
    results = any("Tensor" in str(returned.type) for returned in target._schema.returns)
    return results and bool(inputs) and any(_float(n) for n in (node, *inputs))


def _moves(node: fx.Node) -> bool:
    known = node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
    return known and name_of(node.target) in _MOVES


def _dequantized(node: fx.Node) -> bool:
    """Whether a value comes from integers, past moves."""
    while _moves(node) and node.args and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node.op == "call_function" and ".dequantize_per_" in str(node.target)


def _quantized(node: fx.Node) -> bool:
    """Whether all that reads a value quantizes it, past moves."""
    return bool(node.users) and all(
        ".quantize_per_" in str(user.target) or (_moves(user) and _quantized(user)) for user in node.users
    )


def not_lowered(graph: fx.Graph) -> bool:
    """Whether a graph has operators of convert_pt2e and none of ours."""
    targets = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    ours = any(target.startswith("torch_ao.") for target in targets)
    return not ours and any(target.startswith("quantized_decomposed.") for target in targets)


def why_float(node: fx.Node) -> str:
    """Why a node of a lowered graph that `computes_in_float` does so, and is no product or lookup."""
    if REASON in node.meta:
        return node.meta[REASON]
    name = name_of(node.target)
    what = f"{node.target.namespace}.{name}"
    sources = [n for n in node.all_input_nodes if n.op != "get_attr" and _float(n)]
    if name not in _HAVE_INT8:
        return f"no int8 operator for {what}"
    if name in FUNCTIONS and name not in _OF_TWO_TENSORS and len(sources) > 1:
        return f"no int8 operator for {what} of two tensors"
    given, taken = [_dequantized(n) for n in sources], _quantized(node)
    if not any(given):
        return "its inputs are not quantized" if taken else "its neighbours are not quantized"
    if not all(given):
        return "not all of its inputs are quantized"
    alone = name == "prelu" or len(node.all_input_nodes) == 1
    if not taken and name in _BEFORE_QUANTIZE and alone:
        return "its result is not quantized"
    return f"no int8 operator for {what} with these arguments"
