"""Turns a calibrated graph into one of quantize and dequantize operators."""

import operator
import warnings
from typing import Any

import torch
from torch import fx

from torch_ao_ext.nn.quantized.dynamic.modules.linear import DynamicQuant
from torch_ao_ext.quantization import _decomposed
from torch_ao_ext.quantization.observer import ChannelWeightObserver, PlaceholderObserver
from torch_ao_ext.quantization.pt2e._graph import (
    add_constant,
    inherit_meta,
    remove_unused,
    set_value,
    tensor_of,
    where,
)
from torch_ao_ext.quantization.pt2e.prepare import is_observer, leaves_float

__all__ = ["convert"]

_PLAIN = {
    getattr(torch, name): plain
    for name, plain in (("qint8", torch.int8), ("quint8", torch.uint8), ("qint32", torch.int32))
    if hasattr(torch, name)
}
_RANGES = {
    torch.int8: (-128, 127), torch.uint8: (0, 255), torch.int16: (-(2**15), 2**15 - 1),
    torch.int32: (-(2**31), 2**31 - 1),
}  # fmt: skip
_CHANNEL = (
    torch.per_channel_affine, torch.per_channel_symmetric, torch.per_channel_affine_float_qparams
)  # fmt: skip
_SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)


def _core(observer: Any) -> Any:
    """The observer inside a fake-quant, or itself."""
    return getattr(observer, "activation_post_process", observer)


def unfed(observer: Any) -> bool:
    """Whether an observer has recorded nothing; False where that cannot be known."""
    core = _core(observer)
    low = core.scale if isinstance(core, ChannelWeightObserver) else getattr(core, "min_val", None)
    if not isinstance(low, torch.Tensor):
        return False
    return low.numel() == 0 or bool((low == float("inf")).all())


def _layout(observer: Any) -> tuple[torch.dtype, int, int]:
    """(plain dtype, quant_min, quant_max)."""
    dtype = _PLAIN.get(observer.dtype, observer.dtype)
    if dtype not in _RANGES:
        raise ValueError(
            f"convert_pt2e: an observer's dtype must be int8, uint8, int16 or int32, got {observer.dtype}"
        )
    low, high = getattr(observer, "quant_min", None), getattr(observer, "quant_max", None)
    full = _RANGES[dtype]
    return dtype, full[0] if low is None else int(low), full[1] if high is None else int(high)


class _Converter:
    """Replaces the observers of one graph, one after the other.

    Args:
        model: a copy of the prepared model; changed in place.
        fold: quantize constants now.
    """

    def __init__(self, model: fx.GraphModule, fold: bool) -> None:
        self.model = model
        self.graph = model.graph
        self.fold = fold
        self.ops = _decomposed.operators()
        self.quantized = 0

    def run(self) -> None:
        """Converts every observer.

        Raises:
            ValueError: naming every observer that has seen no data.
        """
        calls = []
        modules = dict(self.model.named_modules(remove_duplicate=False))
        for node in self.graph.nodes:
            if node.op == "call_module" and is_observer(modules.get(node.target)):
                calls.append((node, modules[node.target]))
        self._feed_constants(calls)
        missing = [node for node, observer in calls if not self._known(observer)]
        if missing:
            raise ValueError(
                "convert_pt2e: argument 'model' must be calibrated: run it on example data before; "
                f"nothing reached {', '.join(where(node.args[0]) for node in missing[:5])}"
                f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''}"
            )
        for node, observer in calls:
            self._replace(node, observer)
        if self.fold:
            fold_constants(self.model)
        remove_unused(self.model)
        self.graph.lint()
        self.model.recompile()

    def _feed_constants(self, calls: list[tuple[fx.Node, Any]]) -> None:
        """Weights are known without a run of the model."""
        for node, observer in calls:
            value = tensor_of(self.model, node.args[0])
            if value is not None and not getattr(observer, "is_dynamic", False) and unfed(observer):
                with torch.no_grad():
                    _core(observer)(value)

    @staticmethod
    def _known(observer: Any) -> bool:
        return leaves_float(observer) or getattr(observer, "is_dynamic", False) or not unfed(observer)

    def _replace(self, node: fx.Node, observer: Any) -> None:
        source = node.args[0]
        if leaves_float(observer):
            result = self._cast(node, observer) if observer.dtype == torch.float16 else source
        elif isinstance(observer, PlaceholderObserver) and not observer.is_dynamic:
            raise ValueError(
                "convert_pt2e: a PlaceholderObserver must be dynamic or have a float dtype, got "
                f"{observer.dtype} at {where(source)}"
            )
        elif getattr(observer, "is_dynamic", False):
            result = self._dynamic(node, observer)
        elif getattr(observer, "qscheme", None) in _CHANNEL:
            result = self._per_channel(node, observer)
        else:
            result = self._per_tensor(node, observer)
        node.replace_all_uses_with(result)
        self.graph.erase_node(node)

    def _call(self, node: fx.Node, target: Any, arguments: tuple[Any, ...]) -> fx.Node:
        """A call before node that takes over its place in the user's model."""
        with self.graph.inserting_before(node):
            call = self.graph.call_function(target, arguments)
        inherit_meta(call, node)
        return call

    def _cast(self, node: fx.Node, observer: Any) -> fx.Node:
        """Rounds to a float dtype and back."""
        narrow = self._call(node, torch.ops.aten.to.dtype, (node.args[0], observer.dtype))
        self.quantized += 1
        return self._call(node, torch.ops.aten.to.dtype, (narrow, torch.float32))

    def _per_tensor(self, node: fx.Node, observer: Any) -> fx.Node:
        scale, zero_point = observer.calculate_qparams()
        dtype, low, high = _layout(observer)
        rest = (float(scale), int(zero_point), low, high, dtype)
        return self._pair(
            node, self.ops.quantize_per_tensor.default, self.ops.dequantize_per_tensor.default, rest
        )

    def _pair(self, node: fx.Node, quantize: Any, dequantize: Any, rest: tuple[Any, ...]) -> fx.Node:
        self.quantized += 1
        q = self._call(node, quantize, (node.args[0], *rest))
        self._note(q, rest[-1])
        return self._call(node, dequantize, (q, *rest))

    @staticmethod
    def _note(q: fx.Node, dtype: torch.dtype) -> None:
        if isinstance(q.meta.get("val"), torch.Tensor):
            q.meta["val"] = q.meta["val"].to(dtype)
            q.meta.pop("tensor_meta", None)

    def _per_channel(self, node: fx.Node, observer: Any) -> fx.Node:
        scale, zero_point = observer.calculate_qparams()
        dtype, low, high = _layout(observer)
        axis = int(getattr(observer, "ch_axis", 0))
        source = node.args[0]
        path = source.target.rpartition(".")[0] if source.op == "get_attr" else ""
        prefix = f"{path}.weight" if path else f"_{source.name}"
        if observer.qscheme != torch.per_channel_affine_float_qparams:
            zero_point = zero_point.to(torch.int64)
        with self.graph.inserting_before(node):
            scales = add_constant(self.model, f"{prefix}_scale", scale.detach().to(torch.float32))
            zeros = add_constant(self.model, f"{prefix}_zero_point", zero_point.detach())
        rest = (scales, zeros, axis, low, high, dtype)
        return self._pair(
            node, self.ops.quantize_per_channel.default, self.ops.dequantize_per_channel.default, rest
        )

    def _dynamic(self, node: fx.Node, observer: Any) -> fx.Node:
        dtype, low, high = _layout(observer)
        if getattr(observer, "qscheme", None) in _CHANNEL:
            raise ValueError(
                f"convert_pt2e: a dynamic observer must be per tensor, got {observer.qscheme} at "
                f"{where(node.args[0])}"
            )
        rule = getattr(_core(observer), "dynamic_quant", None)
        if rule not in (None, DynamicQuant(), DynamicQuant(per_row=False)):
            raise ValueError(
                "convert_pt2e: a RowPlaceholderObserver must have symmetric=False and reduce_range=False, "
                f"got {rule} at {where(node.args[0])}"
            )
        if rule is not None and rule.per_row:
            return self._rows(node)
        eps = getattr(_core(observer), "eps", None)
        eps = float(eps) if eps is not None else torch.finfo(torch.float32).eps
        choose = self.ops.choose_qparams.tensor
        if getattr(observer, "qscheme", None) in _SYMMETRIC:
            choose = self.ops.choose_qparams_symmetric.tensor
        found = self._call(node, choose, (node.args[0], low, high, eps, dtype))
        found.meta.pop("val", None)
        scale = self._call(node, operator.getitem, (found, 0))
        zero_point = self._call(node, operator.getitem, (found, 1))
        for value in (scale, zero_point):
            value.meta.pop("val", None)
        rest = (scale, zero_point, low, high, dtype)
        return self._pair(
            node, self.ops.quantize_per_tensor.tensor, self.ops.dequantize_per_tensor.tensor, rest
        )

    def _rows(self, node: fx.Node) -> fx.Node:
        """A scale and zero point for each row, the last dimension of the value."""
        choose = self.ops.choose_qparams_per_token_asymmetric.default
        found = self._call(node, choose, (node.args[0], torch.int8))
        qparams = tuple(self._call(node, operator.getitem, (found, i)) for i in range(2))
        for value in (found, *qparams):
            value.meta.pop("val", None)
        rest = (*qparams, -128, 127, torch.int8)
        self.quantized += 1
        q = self._call(node, self.ops.quantize_per_token.default, (node.args[0], *rest))
        self._note(q, torch.int8)
        return self._call(node, self.ops.dequantize_per_token.default, (q, *rest, torch.float32))


def _integers(quantize: Any, value: torch.Tensor, rest: list[Any]) -> torch.Tensor:
    """Quantized values; rows with zero points between integers round once, as in eager mode.

    quantized_decomposed rounds before it adds the zero point, and then cuts: up to 1.5 steps.
    """
    if not isinstance(rest[1], torch.Tensor) or not rest[1].is_floating_point():
        return quantize(value, *rest)
    scale, zero_point, axis, low, high, dtype = rest
    shape = [-1 if dim == axis else 1 for dim in range(value.dim())]
    codes = value.to(torch.float32) * scale.reciprocal().reshape(shape) + zero_point.reshape(shape)
    return codes.round().clamp(low, high).to(dtype)


def fold_constants(model: fx.GraphModule) -> None:
    """Quantized constants become buffers; the float tensor goes when nobody reads it."""
    ops = _decomposed.operators()
    targets = (ops.quantize_per_tensor.default, ops.quantize_per_channel.default)
    for node in list(model.graph.nodes):
        if node.op != "call_function" or node.target not in targets:
            continue
        source = node.args[0]
        value = tensor_of(model, source)
        rest = [tensor_of(model, a) if isinstance(a, fx.Node) else a for a in node.args[1:]]
        if value is None or any(a is None for a in rest):
            continue
        with torch.no_grad():
            quantized = _integers(node.target, value.detach(), rest)
        path = source.target.rpartition(".")[0]
        with model.graph.inserting_before(node):
            name = f"{path}.qweight" if path else f"_{source.name}_q"
            constant = add_constant(model, name, quantized)
        inherit_meta(constant, source)
        set_value(constant, quantized, source)
        node.replace_all_uses_with(constant)
        model.graph.erase_node(node)


def convert(model: fx.GraphModule, fold_quantize: bool = True) -> int:
    """Replaces observers by quantize and dequantize, in place.

    Args:
        model: prepared and calibrated (a copy: a failure leaves it half converted).
        fold_quantize: store constants quantized.

    Returns:
        How many tensors are quantized.
    """
    converter = _Converter(model, fold_quantize)
    with warnings.catch_warnings():
        # Who has seen no data is reported by name.
        warnings.filterwarnings("ignore", message="must run observer before calling calculate_qparams")
        converter.run()
    return converter.quantized
