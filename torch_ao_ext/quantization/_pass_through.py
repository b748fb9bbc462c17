"""Calls in graphs of torch.fx that take floats and quantized tensors alike."""

import torch
import torch.nn.functional as F
from torch import fx, nn

__all__ = ["check_node"]

_MODULES = {
    nn.ReLU, nn.ReLU6, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AvgPool1d,
    nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Identity, nn.Hardsigmoid,
    nn.Sigmoid, nn.Tanh,
}  # fmt: skip
_FUNCTIONS = {
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, F.elu, F.hardswish, F.instance_norm,
    F.layer_norm, F.leaky_relu, F.silu, F.mish, F.dropout, F.max_pool1d, F.max_pool2d, F.max_pool3d, F.relu,
    F.hardtanh, F.hardtanh_, F.hardsigmoid, F.sigmoid, torch.transpose, torch.repeat_interleave,
    torch.sigmoid, torch.squeeze, torch.stack, torch.sum, torch.tanh, torch.unsqueeze, torch.cat,
}  # fmt: skip
_METHODS = {
    "relu", "relu_", "contiguous", "detach", "detach_", "hardsigmoid", "hardsigmoid_", "permute", "repeat",
    "repeat_interleave", "reshape", "resize_", "shape", "sigmoid", "sigmoid_", "size", "squeeze", "squeeze_",
    "tanh", "tanh_", "transpose", "unsqueeze", "unsqueeze_", "view",
}  # fmt: skip


def check_node(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[bool, bool, bool]:
    """Whether a node calls such a function, such a method, such a module.

    Activations, norms, pooling and what moves or joins values; no products and no arithmetic.

    Args:
        node: any.
        modules: of the graph, by name.
    """
    return (
        node.op == "call_function" and node.target in _FUNCTIONS,
        node.op == "call_method" and node.target in _METHODS,
        node.op == "call_module" and type(modules[str(node.target)]) in _MODULES,
    )
