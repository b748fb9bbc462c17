"""What stays float in a lowered graph runs in bfloat16: `lower(float_dtype=torch.bfloat16)`.

Which operators do is torch.autocast's rule for CPUs: products take bfloat16, a few operators
float32, the others what they are given. Beyond it, constants next to bfloat16 values become
bfloat16, so that a bias does not lift all that follows to float32, and numbers that bfloat16
cannot hold (masks of finfo(float32).min) keep their operator in float32.
"""

import contextlib
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._guards import detect_fake_mode

from torch_ao_ext._graph_ops import arguments_of
from torch_ao_ext.quantization.pt2e._graph import add_constant, inherit_meta, retype, set_value, tensor_of
from torch_ao_ext.quantization.pt2e._in_place import writes_in_place
from torch_ao_ext.quantization.quantizer._targets import aten

__all__ = ["floats_to_bfloat16"]

_LOW, _HIGH = torch.bfloat16, torch.float32
_LARGEST = torch.finfo(_LOW).max

# Statistics and affine parameters that their kernels read in float32 beside bfloat16 values.
_KEEP_CONSTANTS = {
    aten.batch_norm.default, aten.group_norm.default, aten.instance_norm.default, aten.layer_norm.default,
}  # fmt: skip

# The float arguments of torch_ao operators that may be bfloat16; others are constants.
_ACTIVATIONS = {"input", "other", "tensors"}
_STATES = {"h", "c", "h0", "c0"}  # of the input's dtype


def _low(value: Any) -> Any:
    return value.to(_LOW) if isinstance(value, torch.Tensor) and value.dtype == _HIGH else value


def _high(value: Any) -> Any:
    return value.to(_HIGH) if isinstance(value, torch.Tensor) and value.dtype == _LOW else value


def _dtype(node: Any) -> torch.dtype | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dtype if isinstance(value, torch.Tensor) else None


def _numbers(node: fx.Node) -> list[float]:
    found: list[float] = []
    fx.node.map_aggregate(
        (node.args, node.kwargs), lambda a: found.append(a) if isinstance(a, float) else None
    )
    return found


def _call(node: fx.Node, change: Callable[[Any], Any], autocast: bool = False) -> Any:
    """What an operator gives for fake inputs that are changed; None where it refuses them."""
    mode = detect_fake_mode([n.meta.get("val") for n in node.all_input_nodes])
    if mode is None or not all("val" in n.meta for n in node.all_input_nodes):
        return None

    def value(a: fx.Node) -> Any:
        return change(a.meta["val"])

    rule = torch.autocast("cpu", _LOW) if autocast else contextlib.nullcontext()
    with mode, rule, torch.no_grad():
        try:
            return node.target(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))
        except Exception:  # noqa: BLE001 - whatever the reason, this form is no choice
            return None


def _size(number: Any) -> int:
    return number if isinstance(number, int) else int(number.node.hint)


def _runs(node: fx.Node, change: Callable[[Any], Any]) -> bool:
    """Whether torch computes the operator for zeros in the sizes of its inputs that are changed."""

    def value(a: fx.Node) -> Any:
        v = change(a.meta["val"])
        if isinstance(v, torch.Tensor):
            return torch.zeros([_size(s) for s in v.shape], dtype=v.dtype)
        return v if isinstance(v, (bool, int, float)) else v.node.hint

    try:
        with torch.no_grad():
            node.target(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))
    except Exception:  # noqa: BLE001 - the caller compares two forms
        return False
    return True


def _has_kernel(node: fx.Node) -> bool:
    """Whether torch has the operator for the inputs of now, as far as it has it for float32."""
    return _runs(node, lambda v: v) or not _runs(node, _high)


def _several(value: Any, kind: type) -> list[Any]:
    """What of this kind a value is, or a list holds."""
    return [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, kind)]


def _tensors(value: Any) -> list[torch.Tensor]:
    return _several(value, torch.Tensor)


def _set_value(node: fx.Node, value: Any) -> None:
    node.meta["val"] = value
    node.meta.pop("tensor_meta", None)


def _set_argument(node: fx.Node, name: str, value: Any) -> None:
    """Passes an operator another value, by place or by name as before."""
    index = [a.name for a in node.target._schema.arguments].index(name)
    if index < len(node.args):
        node.update_arg(index, value)
    else:
        node.update_kwarg(name, value)


class _Pass:
    """Walks the graph once.

    Args:
        model: lowered, before islands; changed in place.
    """

    def __init__(self, model: fx.GraphModule) -> None:
        self.model = model
        self.graph = model.graph
        self.casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}
        self.was = {n: _dtype(n) for n in self.graph.nodes}
        self.writes = any(map(writes_in_place, self.graph.nodes))

    def cast(self, node: fx.Node, dtype: torch.dtype, reader: fx.Node) -> fx.Node:
        """The node's values in this dtype for a reader; finite constants stay finite."""
        if (node, dtype) in self.casts:
            return self.casts[node, dtype]
        constant = tensor_of(self.model, node)
        if constant is not None:
            constant = constant.detach()
            value = torch.where(constant.isfinite(), constant.clamp(-_LARGEST, _LARGEST), constant).to(dtype)
            with self.graph.inserting_before(node):
                new = add_constant(self.model, f"{node.target}_{str(dtype).removeprefix('torch.')}", value)
            set_value(new, value, node)
        else:
            place = self.graph.inserting_before(reader) if self.writes else self.graph.inserting_after(node)
            with place:
                new = self.graph.call_function(aten.to.dtype, (node, dtype))
            inherit_meta(new, node)
            retype(new, dtype)
        if constant is not None or not self.writes:
            self.casts[node, dtype] = new
        return new

    def give(self, node: fx.Node, dtype: torch.dtype, these: Callable[[fx.Node], bool]) -> None:
        """Its float32 and bfloat16 inputs that are `these`, in dtype."""
        other = {_LOW: _HIGH, _HIGH: _LOW}[dtype]

        def change(a: fx.Node) -> fx.Node:
            return self.cast(a, dtype, node) if _dtype(a) == other and these(a) else a

        node.args = fx.map_arg(node.args, change)
        node.kwargs = fx.map_arg(node.kwargs, change)

    def everything(self, node: fx.Node, dtype: torch.dtype) -> None:
        self.give(node, dtype, lambda a: True)

    def note(self, node: fx.Node) -> None:
        """The node's values as they are now."""
        value = _call(node, lambda v: v)
        if value is not None:
            _set_value(node, value)

    def has(self, node: fx.Node, dtype: torch.dtype) -> bool:
        return any(_dtype(a) == dtype for a in node.all_input_nodes)

    def own(self, node: fx.Node) -> None:
        """An operator of this library: floats out in bfloat16, in as its kernel takes them."""
        given = arguments_of(node)
        ok = {a for name in _ACTIVATIONS & given.keys() for a in _several(given[name], fx.Node)}
        states = [given[n] for n in _STATES & given.keys() if isinstance(given[n], fx.Node)]
        if any(_dtype(s) != _dtype(given["input"]) for s in states):
            ok -= {given["input"]}
        else:
            ok.update(states)
        self.give(node, _HIGH, lambda a: a not in ok)
        results = _tensors(node.meta.get("val"))
        if any(u.op != "output" for u in node.users) and any(v.dtype == _HIGH for v in results):
            self.set_dtype(node, "output_dtype", given, (_HIGH, None) if len(results) == 1 else (_HIGH,))
            self.set_dtype(node, "sum_dtype", given, (_HIGH, None))
        self.note(node)

    def set_dtype(
        self, node: fx.Node, name: str, given: dict[str, Any], means_float32: tuple[torch.dtype | None, ...]
    ) -> None:
        """bfloat16 in the place of float32 as an operator's argument, if it has that."""
        has = any(a.name == name for a in node.target._schema.arguments)
        if has and given.get(name) in means_float32:
            _set_argument(node, name, _LOW)

    def torch_op(self, node: fx.Node) -> None:
        """An operator of torch, by autocast's rule."""
        floats = [a for a in node.all_input_nodes if _dtype(a) in (_LOW, _HIGH)]
        if not floats:
            return
        if writes_in_place(node):
            self.everything(node, _dtype(node.args[0]) or _HIGH)
        elif any(_LARGEST < abs(x) < float("inf") for x in _numbers(node)):
            self.everything(node, _HIGH)
        elif any(v.dtype == _LOW for v in _tensors(_call(node, _high, autocast=True))):
            self.bound_mask(node)
            self.everything(node, _LOW)
        elif not self.has(node, _LOW):
            return
        elif any(v.dtype == _HIGH for v in _tensors(_call(node, _low, autocast=True))) and not any(
            v.dtype == _HIGH for v in _tensors(_call(node, _low))
        ):
            self.everything(node, _HIGH)
        else:
            self.others(node)
        if self.has(node, _LOW) and (_call(node, lambda v: v) is None or not _has_kernel(node)):
            self.everything(node, _HIGH)
        self.note(node)

    def bound_mask(self, node: fx.Node) -> None:
        """An attention mask's finfo(float32).min must not become -inf: a row of them would be nan."""
        if node.target is not aten.scaled_dot_product_attention.default:
            return
        mask = arguments_of(node).get("attn_mask")
        if _dtype(mask) != _HIGH or tensor_of(self.model, mask) is not None:
            return
        with self.graph.inserting_before(node):
            bounded = self.graph.call_function(aten.clamp.default, (mask, -_LARGEST, _LARGEST))
        inherit_meta(bounded, mask)
        _set_argument(node, "attn_mask", bounded)

    def others(self, node: fx.Node) -> None:
        """Constants follow the values; values of two dtypes meet in float32."""

        def constant(a: fx.Node) -> bool:
            value = tensor_of(self.model, a)
            return value is not None and bool((value.abs() <= _LARGEST).all())

        if node.target not in _KEEP_CONSTANTS:
            self.give(node, _LOW, constant)
            if torch.Tag.pointwise not in node.target.tags and self.has(node, _HIGH):
                self.everything(node, _HIGH)

    def visit(self, node: fx.Node) -> None:
        if node.op in ("placeholder", "get_attr"):
            return
        if node.op == "output":
            node.args = fx.map_arg(node.args, lambda a: self.cast(a, _HIGH, node) if self.changed(a) else a)
        elif node.op != "call_function":
            self.everything(node, _HIGH)
        elif node.target is operator.getitem:
            value = node.args[0].meta.get("val")
            if isinstance(value, (list, tuple)):
                _set_value(node, value[node.args[1]])
        elif not isinstance(node.target, torch._ops.OpOverload):
            if not all(_dtype(a) is None for a in node.all_input_nodes):
                self.everything(node, _HIGH)
        elif node.target.namespace == "torch_ao":
            self.own(node)
        elif node.target is aten._assert_tensor_metadata.default:
            if self.changed(node.args[0]):
                self.graph.erase_node(node)
        else:
            self.torch_op(node)

    def changed(self, node: fx.Node) -> bool:
        """Whether its values were float32 and are bfloat16 now."""
        return self.was.get(node) == _HIGH and _dtype(node) == _LOW


def floats_to_bfloat16(model: fx.GraphModule) -> None:
    """Runs the float operators of a lowered graph in bfloat16; in place.

    Inputs and outputs of the graph keep their dtypes.

    Args:
        model: lowered, before operators merge into islands.
    """
    walk = _Pass(model)
    for node in list(model.graph.nodes):
        walk.visit(node)
    model.graph.lint()
