"""Module types that a file may name. A new quantized module is one line of `QUANTIZED`.

A file names a type by a key of these tables and never by an import path, so that no
file can make a class of its choice. What a type needs beyond its line:

- `prepack(dtype)`, when its weights are packed ahead of the first call;
- `_from_saved(args)`, a classmethod, when `cls(**args)` does not make the empty module;
- `_load_from_state_dict`, when buffers take their shape or Python attributes from the file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.nn.intrinsic import quantized as nniq
from torch_ao_ext.nn.intrinsic.quantized.dynamic import LinearReLU
from torch_ao_ext.nn.quantized import Embedding, EmbeddingBag, LinearWeightOnly, _rows, dynamic
from torch_ao_ext.nn.sparse import quantized as sparse

__all__ = ["FLOAT", "QUANTIZED", "SavedType", "name_of"]


@dataclass(frozen=True)
class SavedType:
    """How one module type is described in a file.

    Args:
        cls: the class, matched exactly.
        args: constructor argument -> attribute of the module, or function of it.
        scales: buffers whose values must be positive normal floats.
        zero_points: buffers whose values must be in [-128, 127].
        finite: float buffers without NaN and infinity.
        check: raises ValueError about values that no other rule covers.
        packs: `prepack(dtype)` makes a packed copy, after which the plain bytes may go.
        renamed: argument in files -> argument of the constructor, where they differ.
        more: as `args`, left out of the file where the value is None; older files have none. With these
            the tensors of a file must make a module of the same arguments.
    """

    cls: type[nn.Module]
    args: dict[str, str | Callable[[Any], Any]] = field(default_factory=dict)
    scales: tuple[str, ...] = ("weight_scale",)
    zero_points: tuple[str, ...] = ("weight_zero_point",)
    finite: tuple[str, ...] = ("qbias",)
    check: Callable[[Any], None] | None = None
    packs: bool = True
    renamed: dict[str, str] = field(default_factory=dict)
    more: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    def args_of(self, module: nn.Module) -> dict[str, Any]:
        """Constructor arguments that make an empty module like this one."""
        args = {
            name: source(module) if callable(source) else getattr(module, source)
            for name, source in self.args.items()
        }
        found = {name: source(module) for name, source in self.more.items()}
        return {**args, **{name: value for name, value in found.items() if value is not None}}

    def make(self, args: dict[str, Any]) -> nn.Module:
        """The empty module; call it on the meta device."""
        if args.keys() - self.more.keys() != self.args.keys():
            raise ValueError(f"arguments must be {sorted(self.args)}, got {sorted(args)}")
        args = {self.renamed.get(name, name): value for name, value in args.items()}
        make = getattr(self.cls, "_from_saved", None)
        return self.cls(**args) if make is None else make(args)


def _same(*names: str) -> dict[str, Any]:
    return {name: name for name in names}


_LINEAR = {**_same("in_features", "out_features"), "bias_": lambda m: m.qbias is not None}
_FUSED = {"bias_": "bias"}
_ATTENTION = {
    **_same("embed_dim", "num_heads", "dropout", "kdim", "vdim"),
    **_same("batch_first", "add_zero_attn", "packed_in_proj"),
    "bias": lambda m: m.out_proj.qbias is not None,
    "add_bias_kv": lambda m: m.bias_k is not None,
}

_WEIGHT_ONLY = {**_LINEAR, **_same("bits", "group_size", "input_bits")}

_TABLE = _same("num_embeddings", "embedding_dim", "padding_idx")


def _check_rows(module: Any) -> None:
    """Scale and bias of each row lie behind its codes."""
    tail = _rows._tail_bytes(module.bits)
    kind = torch.float32 if module.bits == 8 else torch.float16
    values = module.qweight[:, -tail:].clone(memory_format=torch.contiguous_format).view(kind)
    bad = ~torch.isfinite(values).all(1)
    if bool(bad.any()):
        row = int(bad.to(torch.int8).argmax())
        raise ValueError(f"must have finite scale and bias, got {values[row].tolist()} in row {row}")


def _table(cls: type[nn.Module], **more: Any) -> SavedType:
    return SavedType(cls, {**_TABLE, **more}, (), (), (), _check_rows, packs=False)


_RECURRENT = _same(
    "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"
)


def _check_recurrent(module: Any) -> None:
    """The buffers' names depend on layers, directions and projection."""
    smallest = torch.finfo(torch.float32).tiny
    for name, values in module.named_buffers(recurse=False):
        if not values.is_floating_point():
            continue
        bad = ~torch.isfinite(values)
        if name.endswith("_scale"):
            bad |= ~(values >= smallest)
        if bool(bad.any()):
            kind = "positive normal numbers" if name.endswith("_scale") else "finite numbers"
            raise ValueError(f"must hold {kind} in '{name}', got {values[bad][0].item()}")


def _weight_dtype(module: Any) -> str | None:
    """None for int8."""
    return None if module.weight_dtype == torch.int8 else str(module.weight_dtype).removeprefix("torch.")


def _int8_weights(module: Any) -> str | None:
    """Names of those among int16 ones, with spaces between; None for none."""
    narrow = [n for n, b in module._buffers.items() if getattr(b, "dtype", None) == torch.int8]
    return " ".join(narrow) if module.weight_dtype == torch.int16 and narrow else None


_RECURRENT_MORE: dict[str, Callable[[Any], Any]] = {
    "dtype": _weight_dtype,
    "int8_weights": _int8_weights,
    "per_row": lambda m: None if m.per_row else False,
    "reduce_range": lambda m: m.reduce_range or None,
}


def _recurrent(cls: type[nn.Module], *more: str) -> SavedType:
    args = {**_RECURRENT, **_same(*more)}
    return SavedType(cls, args, (), (), (), _check_recurrent, more=_RECURRENT_MORE)


def _cell(cls: type[nn.Module], *more: str) -> SavedType:
    names = ("input_size", "hidden_size", "bias", *more)
    return SavedType(cls, _same(*names), (), (), (), _check_recurrent, more=_RECURRENT_MORE)


def _lists(*names: str) -> dict[str, Any]:
    """Tuples of numbers; JSON has lists."""

    def value_of(name: str) -> Callable[[Any], Any]:
        return lambda m: list(v) if isinstance(v := getattr(m, name), tuple) else v

    return {name: value_of(name) for name in names}


_CONV = {
    **_same("in_channels", "out_channels", "groups", "padding_mode"),
    **_lists("kernel_size", "stride", "padding", "dilation"),
    "bias": lambda m: m.qbias is not None,
}
_CONV_TRANSPOSE = {**_CONV, **_lists("output_padding")}
_LEAKY = {**_same("in_features", "out_features", "negative_slope"), "bias": _CONV["bias"]}
_NORM = _same("num_features", "eps", "momentum", "affine", "track_running_stats")
_LAYER_NORM = {
    **_same("eps", "elementwise_affine"), **_lists("normalized_shape"), "bias": lambda m: m.bias is not None,
}  # fmt: skip


_STATIC_ATTENTION = {k: v for k, v in _ATTENTION.items() if k != "packed_in_proj"}


def _of_child(child: str, names: Any) -> dict[str, Any]:
    """Arguments that a part of the module has."""

    def value_of(name: str) -> Callable[[Any], Any]:
        return lambda m: getattr(getattr(m, child), name)

    return {name: value_of(name) for name in names}


def _static(cls: type[nn.Module], args: dict[str, Any], renamed: Any = None) -> SavedType:
    """A product: packed at the first call, which knows the qparams of its input."""
    return SavedType(cls, args, packs=False, renamed=renamed or {})


_BLOCKS = {
    **_same("in_features", "out_features"),
    "row_block_size": lambda m: m.block_shape[0],
    "col_block_size": lambda m: m.block_shape[1],
    "bias": lambda m: m.qbias is not None,
}


def _check_blocks(module: Any) -> None:
    """Sizes and indices, by the operator: it looks at all of them before it sees that there is no row."""
    x = torch.empty(0, module.in_features)
    try:
        torch.ops.torch_ao.sparse_linear_dynamic(x, *module._blocks(), module.weight_scale, module.qbias)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"must hold the blocks of a weight: {error}") from error


def _sparse(cls: type[nn.Module], **more: Any) -> SavedType:
    return SavedType(cls, _BLOCKS, zero_points=(), check=_check_blocks, **more)


def _output_only(cls: type[nn.Module], *names: str, **more: Any) -> SavedType:
    """No int8 weight; the module itself checks its output's qparams."""
    return SavedType(cls, {**_same(*names), **more}, (), (), (), packs=False)


QUANTIZED: dict[str, SavedType] = {
    "quantized.dynamic.Linear": SavedType(dynamic.Linear, _LINEAR),
    "quantized.dynamic.LinearReLU": SavedType(LinearReLU, _LINEAR, renamed=_FUSED),
    "quantized.dynamic.MultiheadAttention": SavedType(dynamic.MultiheadAttention, _ATTENTION),
    "quantized.dynamic.LSTM": _recurrent(dynamic.LSTM, "proj_size"),
    "quantized.dynamic.GRU": _recurrent(dynamic.GRU),
    "quantized.dynamic.RNN": _recurrent(dynamic.RNN, "nonlinearity"),
    "quantized.dynamic.LSTMCell": _cell(dynamic.LSTMCell),
    "quantized.dynamic.GRUCell": _cell(dynamic.GRUCell),
    "quantized.dynamic.RNNCell": _cell(dynamic.RNNCell, "nonlinearity"),
    "quantized.LinearWeightOnly": SavedType(LinearWeightOnly, _WEIGHT_ONLY),
    "sparse.quantized.dynamic.Linear": _sparse(sparse.dynamic.Linear),
    "sparse.quantized.Linear": _sparse(sparse.Linear, scales=("weight_scale", "scale"), packs=False),
    "quantized.Embedding": _table(Embedding),
    "quantized.EmbeddingBag": _table(EmbeddingBag, **_same("mode", "include_last_offset")),
    "quantized.Linear": _static(nnq.Linear, _LINEAR),
    "quantized.LinearReLU": _static(nniq.LinearReLU, _LINEAR, _FUSED),
    "quantized.LinearTanh": _static(nniq.LinearTanh, _LINEAR, _FUSED),
    "quantized.LinearLeakyReLU": _static(nniq.LinearLeakyReLU, _LEAKY),
    **{f"quantized.{c.__name__}": _static(c, _CONV) for c in (
        nnq.Conv1d, nnq.Conv2d, nnq.Conv3d, nniq.ConvReLU1d, nniq.ConvReLU2d, nniq.ConvReLU3d,
        nniq.ConvAdd2d, nniq.ConvAddReLU2d,
    )},
    **{f"quantized.dynamic.{c.__name__}": _static(c, _CONV) for c in (
        dynamic.Conv1d, dynamic.Conv2d, dynamic.Conv3d,
    )},
    **{f"quantized.dynamic.{c.__name__}": _static(c, _CONV_TRANSPOSE) for c in (
        dynamic.ConvTranspose1d, dynamic.ConvTranspose2d, dynamic.ConvTranspose3d,
    )},
    **{f"quantized.{c.__name__}": _static(c, _CONV_TRANSPOSE) for c in (
        nnq.ConvTranspose1d, nnq.ConvTranspose2d, nnq.ConvTranspose3d,
    )},
    **{f"quantized.{c.__name__}": _output_only(c) for c in (
        nnq.Quantize, nnq.DeQuantize, nnq.QFunctional, nnq.Hardswish, nnq.Sigmoid, nnq.ReLU6, nnq.SELU,
        nnq.SiLU, nnq.Mish, nnq.Softmax2d,
    )},
    **{f"quantized.{c.__name__}": _output_only(c, **_NORM) for c in (
        nnq.BatchNorm1d, nnq.BatchNorm2d, nnq.BatchNorm3d, nnq.InstanceNorm1d, nnq.InstanceNorm2d,
        nnq.InstanceNorm3d, nniq.BNReLU2d, nniq.BNReLU3d,
    )},
    "quantized.LSTM": _output_only(nnq.LSTM, **_of_child("lstm", (*_RECURRENT, "proj_size"))),
    "quantized.MultiheadAttention": _output_only(nnq.MultiheadAttention, **_STATIC_ATTENTION),
    "quantized.Dropout": _output_only(nnq.Dropout, "p"),
    "quantized.LeakyReLU": _output_only(nnq.LeakyReLU, "negative_slope"),
    "quantized.ELU": _output_only(nnq.ELU, "alpha"),
    "quantized.CELU": _output_only(nnq.CELU, "alpha"),
    "quantized.Softmax": _output_only(nnq.Softmax, "dim"),
    "quantized.PReLU": _output_only(nnq.PReLU, "num_parameters"),
    "quantized.LayerNorm": _output_only(nnq.LayerNorm, **_LAYER_NORM),
    "quantized.RMSNorm": _output_only(
        nnq.RMSNorm, "eps", "elementwise_affine", **_lists("normalized_shape")
    ),
    "quantized.GroupNorm": _output_only(nnq.GroupNorm, "num_groups", "num_channels", "eps", "affine"),
}  # fmt: skip




def _has_bias(module: Any) -> bool:
    return module.bias is not None


def _float(cls: type[nn.Module], *names: str, **more: Any) -> SavedType:
    return SavedType(cls, {**_same(*names), **more}, (), (), ())


# Float modules that a file can rebuild without model_fn. Containers take their children
# from the file.
FLOAT: dict[str, SavedType] = {
    "nn.Sequential": _float(nn.Sequential),
    "nn.ModuleList": _float(nn.ModuleList),
    "nn.ModuleDict": _float(nn.ModuleDict),
    "nn.Identity": _float(nn.Identity),
    "nn.ReLU": _float(nn.ReLU),
    "nn.MaxPool2d": _float(
        nn.MaxPool2d, "ceil_mode", **_lists("kernel_size", "stride", "padding", "dilation")
    ),
    "nn.AvgPool2d": _float(
        nn.AvgPool2d, "ceil_mode", "count_include_pad", **_lists("kernel_size", "stride", "padding")
    ),
    "nn.AdaptiveAvgPool2d": _float(nn.AdaptiveAvgPool2d, **_lists("output_size")),
    "nn.ReLU6": _float(nn.ReLU6),
    "nn.LeakyReLU": _float(nn.LeakyReLU, "negative_slope"),
    "nn.GELU": _float(nn.GELU, "approximate"),
    "nn.SiLU": _float(nn.SiLU),
    "nn.Hardswish": _float(nn.Hardswish),
    "nn.Tanh": _float(nn.Tanh),
    "nn.Sigmoid": _float(nn.Sigmoid),
    "nn.Softmax": _float(nn.Softmax, "dim"),
    "nn.Dropout": _float(nn.Dropout, "p"),
    "nn.Flatten": _float(nn.Flatten, "start_dim", "end_dim"),
    "nn.Linear": _float(nn.Linear, "in_features", "out_features", bias=_has_bias),
    "nn.Embedding": _float(nn.Embedding, "num_embeddings", "embedding_dim", "padding_idx"),
    "nn.LayerNorm": _float(
        nn.LayerNorm,
        "eps",
        "elementwise_affine",
        normalized_shape=lambda m: list(m.normalized_shape),
        bias=_has_bias,
    ),
}


def name_of(module: nn.Module, table: dict[str, SavedType]) -> str | None:
    """Key of the module's exact class."""
    return next((name for name, entry in table.items() if entry.cls is type(module)), None)
