"""Which modules, functions and operators compute the same: in float, in training, in int8."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.nn import intrinsic
from torch_ao_ext.ns.fx.ns_types import NSNodeTargetType
from torch_ao_ext.quantization.backend_config import get_native_backend_config
from torch_ao_ext.quantization.backend_config.utils import in_data_order
from torch_ao_ext.quantization.quantization_mappings import (
    DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS,
    DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS,
    DEFAULT_QAT_MODULE_MAPPINGS,
    DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS,
    DEFAULT_STATIC_QUANT_MODULE_MAPPINGS,
)

__all__ = [
    "add_op_to_sets_of_related_ops",
    "get_base_name_for_op",
    "get_base_name_to_sets_of_related_ops",
    "get_node_type_to_io_type_map",
    "get_unmatchable_types_map",
]

_Set = set[NSNodeTargetType]

# Name of an operator -> its forms in Python; ATen's and this library's follow from the name.
_FORMS: dict[str, tuple[Any, ...]] = {
    "conv1d": (nn.Conv1d, F.conv1d), "conv2d": (nn.Conv2d, F.conv2d), "conv3d": (nn.Conv3d, F.conv3d),
    "conv_transpose1d": (nn.ConvTranspose1d, F.conv_transpose1d),
    "conv_transpose2d": (nn.ConvTranspose2d, F.conv_transpose2d),
    "conv_transpose3d": (nn.ConvTranspose3d, F.conv_transpose3d),
    "linear": (nn.Linear, F.linear), "matmul": (torch.matmul, operator.matmul),
    "lstm": (nn.LSTM,), "gru": (nn.GRU,), "rnn": (nn.RNN,),
    "lstm_cell": (nn.LSTMCell,), "gru_cell": (nn.GRUCell,), "rnn_cell": (nn.RNNCell,),
    "embedding": (nn.Embedding, F.embedding), "embedding_bag": (nn.EmbeddingBag, F.embedding_bag),
    "add": (torch.add, operator.add, operator.iadd, "add", "add_"),
    "mul": (torch.mul, operator.mul, operator.imul, "mul", "mul_"),
    "sum": (torch.sum, "sum"), "floor_divide": (operator.floordiv, torch.floor_divide), "cat": (torch.cat,),
    "avg_pool1d": (nn.AvgPool1d, torch.avg_pool1d), "avg_pool2d": (nn.AvgPool2d, F.avg_pool2d),
    "avg_pool3d": (nn.AvgPool3d, F.avg_pool3d),
    "adaptive_avg_pool1d": (nn.AdaptiveAvgPool1d, F.adaptive_avg_pool1d),
    "adaptive_avg_pool2d": (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d),
    "adaptive_avg_pool3d": (nn.AdaptiveAvgPool3d, F.adaptive_avg_pool3d),
    "max_pool1d": (nn.MaxPool1d, F.max_pool1d), "max_pool2d": (nn.MaxPool2d, F.max_pool2d),
    "max_pool3d": (nn.MaxPool3d, F.max_pool3d),
    "relu": (nn.ReLU, F.relu, torch.relu, "relu", "relu_"), "relu6": (nn.ReLU6, F.relu6),
    "hardtanh": (nn.Hardtanh, F.hardtanh, F.hardtanh_), "elu": (nn.ELU, F.elu), "celu": (nn.CELU, F.celu),
    "selu": (nn.SELU, F.selu),
    "leaky_relu": (nn.LeakyReLU, F.leaky_relu), "prelu": (nn.PReLU, F.prelu, torch.prelu),
    "sigmoid": (nn.Sigmoid, torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_"),
    "tanh": (nn.Tanh, torch.tanh, F.tanh, "tanh", "tanh_"), "gelu": (nn.GELU, F.gelu),
    "hardsigmoid": (nn.Hardsigmoid, F.hardsigmoid, "hardsigmoid", "hardsigmoid_"),
    "hardswish": (nn.Hardswish, F.hardswish), "silu": (nn.SiLU, F.silu), "mish": (nn.Mish, F.mish),
    "softmax": (nn.Softmax, nn.Softmax2d, F.softmax, torch.softmax, "softmax"),
    "batch_norm1d": (nn.BatchNorm1d,), "batch_norm2d": (nn.BatchNorm2d,), "batch_norm3d": (nn.BatchNorm3d,),
    "batch_norm": (F.batch_norm,), "group_norm": (nn.GroupNorm, F.group_norm),
    "instance_norm": (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, F.instance_norm),
    "layer_norm": (nn.LayerNorm, F.layer_norm), "rms_norm": (nn.RMSNorm, F.rms_norm),
    "dropout": (nn.Dropout, F.dropout), "interpolate": (nn.Upsample, F.interpolate),
    "pixel_shuffle": (nn.PixelShuffle, F.pixel_shuffle),
    "pixel_unshuffle": (nn.PixelUnshuffle, F.pixel_unshuffle),
    "clamp": (torch.clamp,), "chunk": (torch.chunk,), "flatten": (torch.flatten, nn.Flatten),
    "max": (torch.max,), "mean": (torch.mean,), "min": (torch.min,), "narrow": (torch.narrow,),
    "repeat_interleave": (torch.repeat_interleave,), "sort": (torch.sort,), "squeeze": (torch.squeeze,),
    "stack": (torch.stack,), "transpose": (torch.transpose,), "unsqueeze": (torch.unsqueeze,),
}  # fmt: skip
_LAYERS = (
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear",
)  # fmt: skip
# Behind the name of a layer: its operators here.
_SUFFIXES = ("", "_relu", "_add", "_add_relu", "_leaky_relu", "_tanh", "_bn", "_bn_relu", "_dynamic",
             "_relu_dynamic", "_weight_only")  # fmt: skip
# Operators here -> the float ones that they compute, where names differ.
_OTHER_NAMES = {
    "add_layer_norm": "layer_norm", "add_layer_norm_sum": "layer_norm", "sparse_linear": "linear",
    "sparse_linear_dynamic": "linear",
}  # fmt: skip
_ATEN_NAMES = {"rnn": ("rnn_tanh", "rnn_relu"), "rnn_cell": ("rnn_tanh_cell", "rnn_relu_cell"),
               "interpolate": ("upsample_nearest2d", "upsample_bilinear2d")}  # fmt: skip

# What takes floats or bytes and keeps which of them it is.
_EITHER = (
    "relu", "relu6", "tanh", "sigmoid", "hardsigmoid", "hardtanh", "floor_divide", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d",
    "max_pool2d", "max_pool3d", "dropout", "interpolate", "pixel_shuffle", "pixel_unshuffle", "chunk",
    "clamp", "flatten", "transpose", "max", "mean", "min", "narrow", "repeat_interleave", "sort", "squeeze",
    "stack", "unsqueeze",
)  # fmt: skip

# Operators here with floats in and out, or with indices in.
_FLOAT_HERE = {"lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell", "embedding", "embedding_bag"}


def _overloads(packet_of: Any, name: str) -> list[Any]:
    """Overloads of an operator and of its form that writes in place, as graphs call them."""
    found = []
    for key in (name, f"{name}_"):
        packet = getattr(packet_of, key, None)
        if packet is not None:
            found += [getattr(packet, overload) for overload in packet.overloads() if "out" not in overload]
    return found


def _float_operators(name: str) -> list[Any]:
    names = _ATEN_NAMES.get(name, (name,))
    return [target for each in names for target in _overloads(torch.ops.aten, each)]


def _int8_operators(name: str) -> list[Any]:
    suffixes = _SUFFIXES if name in _LAYERS else ("",)
    names = [name + suffix for suffix in suffixes]
    names += [own for own, computed in _OTHER_NAMES.items() if computed == name]
    library = torch.ops.torch_ao
    return [target for each in names if hasattr(library, each) for target in _overloads(library, each)]


def _connections() -> Iterable[tuple[Any, Any]]:
    """Pairs of a class or function and what takes its place."""
    yield nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear
    yield nn.BatchNorm2d, intrinsic.BNReLU2d
    yield nn.BatchNorm3d, intrinsic.BNReLU3d
    for config in get_native_backend_config().configs:
        first = in_data_order(config)[0]
        for name in ("fused_module", "qat_module", "reference_quantized_module"):
            if getattr(config, name) is not None:
                yield first, getattr(config, name)
        if config.root_module is not None:
            yield config.root_module, first
    for table in (
        DEFAULT_QAT_MODULE_MAPPINGS,
        DEFAULT_STATIC_QUANT_MODULE_MAPPINGS,
        DEFAULT_DYNAMIC_QUANT_MODULE_MAPPINGS,
        DEFAULT_REFERENCE_STATIC_QUANT_MODULE_MAPPINGS,
        DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS,
    ):
        yield from table.items()


def get_base_name_to_sets_of_related_ops() -> dict[str, _Set]:
    """Name of an operator -> modules, functions, methods and operators that compute it.

    Float classes with those that are trained, quantized or fused in their place, functions of torch and
    names of methods, overloads of ATen, overloads of this library. A fused form is related to its first
    part. The sets are the caller's to change.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn import quantized
        >>> from torch_ao_ext.ns.fx.mappings import get_base_name_to_sets_of_related_ops
        >>> related = get_base_name_to_sets_of_related_ops()["conv2d"]
        >>> {torch.nn.Conv2d, quantized.Conv2d, torch.ops.torch_ao.conv2d_relu.default} <= related
        True
    """
    related = {
        name: {*forms, *_float_operators(name), *_int8_operators(name)} for name, forms in _FORMS.items()
    }
    home = {member: name for name, members in related.items() for member in members}
    pending = list(_connections())
    while True:
        left = []
        for pair in pending:
            name = home.get(pair[0], home.get(pair[1]))
            if name is None:
                left.append(pair)
                continue
            for member in pair:
                if home.setdefault(member, name) == name:
                    related[name].add(member)
        if len(left) == len(pending):
            return related
        pending = left


def get_base_name_for_op(
    base_name_to_sets_of_related_ops: dict[str, _Set], op: NSNodeTargetType
) -> str | None:
    """Name of the set that an operator is in; None for an unknown one.

    Args:
        base_name_to_sets_of_related_ops: as from `get_base_name_to_sets_of_related_ops`.
        op: class, function, operator or name of a method.
    """
    return next((name for name, ops in base_name_to_sets_of_related_ops.items() if op in ops), None)


def add_op_to_sets_of_related_ops(
    base_name_to_sets_of_related_ops: dict[str, _Set], op: NSNodeTargetType,
    related_op: NSNodeTargetType | None,
) -> None:  # fmt: skip
    """Adds an operator of the user's, in place.

    Args:
        base_name_to_sets_of_related_ops: as from `get_base_name_to_sets_of_related_ops`.
        op: class, function, operator or name of a method.
        related_op: it joins the set of this one; None: it gets one of its own, named by a free number.

    Raises:
        ValueError: related_op is in no set.
    """
    if related_op is None:
        free = next(i for i in range(len(base_name_to_sets_of_related_ops) + 1)
                    if str(i) not in base_name_to_sets_of_related_ops)  # fmt: skip
        base_name_to_sets_of_related_ops[str(free)] = {op}
        return
    name = get_base_name_for_op(base_name_to_sets_of_related_ops, related_op)
    if name is None:
        raise ValueError(
            "add_op_to_sets_of_related_ops: argument 'related_op' must be in one of the sets, got "
            f"{related_op!r}"
        )
    base_name_to_sets_of_related_ops[name].add(op)


def _from_here(member: Any) -> bool:
    """Whether a class or function is this library's."""
    return str(getattr(member, "__module__", "")).startswith("torch_ao_ext.")


def _bytes_in(member: Any) -> bool:
    """Whether a class or function of this library takes quantized tensors."""
    module = str(getattr(member, "__module__", ""))
    return ".quantized" in module and not any(part in module for part in (".dynamic", ".reference"))


def get_node_type_to_io_type_map() -> dict[str, _Set]:
    """What goes into and comes out of modules ("mods"), functions ("funs") and methods ("meths").

    "funs_io_type_fp32", "funs_io_type_fp16", "funs_io_type_int8", "funs_io_type_fp32_or_int8", the same of
    "mods" without fp16, and "meths_io_type_fp32_or_int8". What computes in int8 between floats is fp32, as
    are trained and reference modules.
    """
    related = get_base_name_to_sets_of_related_ops()
    kinds = ("funs_io_type_fp32", "funs_io_type_fp16", "funs_io_type_int8", "funs_io_type_fp32_or_int8",
             "mods_io_type_fp32", "mods_io_type_int8", "mods_io_type_fp32_or_int8",
             "meths_io_type_fp32_or_int8")  # fmt: skip
    found: dict[str, _Set] = {kind: set() for kind in kinds}
    for name, members in related.items():
        operators = set(_int8_operators(name))
        for member in members:
            either = name in _EITHER and not _from_here(member)
            if isinstance(member, str):
                if either:
                    found["meths_io_type_fp32_or_int8"].add(member)
                continue
            if member in operators:
                between = "dynamic" in str(member) or "weight_only" in str(member) or name in _FLOAT_HERE
                key = "fp32" if between else "int8"
            else:
                key = "int8" if _bytes_in(member) else "fp32_or_int8" if either else "fp32"
            found[f"{'mods' if isinstance(member, type) else 'funs'}_io_type_{key}"].add(member)
    found["mods_io_type_fp32_or_int8"].add(nn.Identity)
    found["funs_io_type_int8"].add(torch.ops.torch_ao.requantize.default)
    found["funs_io_type_int8"].add(torch.ops.torch_ao.lookup.default)
    return found


def get_unmatchable_types_map() -> dict[str, _Set]:
    """What `get_matching_subgraph_pairs` passes over: quantization itself, what changes shapes only.

    "funs_unmatchable", "mods_unmatchable" and "meths_unmatchable".
    """
    library, aten = torch.ops.torch_ao, torch.ops.aten
    ends = ("per_tensor", "per_channel", "per_token")
    names = ["requantize", *(f"{start}_{end}" for start in ("quantize", "dequantize") for end in ends)]
    moves = ("view", "reshape", "permute", "contiguous", "detach", "expand", "alias", "sym_size", "clone")
    functions = {operator.getitem, getattr, torch.permute, torch.reshape}
    functions.update(target for name in names for target in _overloads(library, name))
    functions.update(target for name in moves if hasattr(aten, name) for target in _overloads(aten, name))
    return {
        "funs_unmatchable": functions,
        "mods_unmatchable": {nn.Identity},
        "meths_unmatchable": {
            "to", "dequantize", "reshape", "view", "unsqueeze_", "unsqueeze", "transpose", "squeeze_",
            "squeeze", "size", "shape", "resize_", "repeat_interleave", "repeat", "permute", "numel", "mean",
            "detach_", "detach", "contiguous", "clamp", "chunk",
        },
    }  # fmt: skip
