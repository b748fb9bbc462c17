"""State_dicts of graphs that torch.ao's FX graph mode has converted.

Their keys follow torch.fx's names: `M.weight`, `M.scale` of a layer M, `M_input_scale_N` where a float goes
into it, `P_scale_N` and `P_packed_weight_N` of the functions in a module P, in the order of their calls.
Recurrent layers, tables and `T._packed_params._packed_weight` of a table T have the keys of eager mode.
"""

import re
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._graph_ops import module_types
from torch_ao_ext._quantized_functions import RANGE
from torch_ao_ext.nn.quantized._weighted import weight_of_tensor
from torch_ao_ext.quantization import _packed
from torch_ao_ext.quantization.fx._capture import kept_calls
from torch_ao_ext.quantization.fx._following import FollowingObserver
from torch_ao_ext.quantization.legacy import load_state_dict
from torch_ao_ext.quantization.observer import FixedQParamsObserver, ObserverBase
from torch_ao_ext.quantization.pt2e._graph import add_constant, copy_graph_module, tensor_of
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.quantize_fx import convert_fx as _convert_fx
from torch_ao_ext.quantization.quantizer._targets import CONV, CONV_TRANSPOSE, LINEAR, argument, is_call
from torch_ao_ext.quantization.quantizer.utils import innermost_module

__all__ = ["convert_fx"]

_PRODUCTS = CONV | CONV_TRANSPOSE | LINEAR
_LINEAR = "_packed_params._packed_params"


class _KnownWeight(ObserverBase):
    """Qparams of a weight from a file.

    Args:
        scale: `[N]` or `[1]`.
        zero_point: the same shape; floats for the rows of a table, which are unsigned.
        axis: of the channels.
    """

    def __init__(self, scale: torch.Tensor, zero_point: torch.Tensor, axis: int) -> None:
        rows = zero_point.is_floating_point()
        super().__init__(dtype=torch.quint8 if rows else torch.qint8)
        self.quant_min, self.quant_max = RANGE[torch.uint8 if rows else torch.int8]
        per_tensor = scale.numel() == 1 and not rows
        per_channel = torch.per_channel_affine_float_qparams if rows else torch.per_channel_affine
        self.qscheme = torch.per_tensor_affine if per_tensor else per_channel
        self.ch_axis = axis
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Passes x."""
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the file."""
        return self.scale, self.zero_point


def _is_layer(node: fx.Node) -> bool:
    """Whether a node is what a layer of torch.nn computes."""
    kind = (module_types(node) or [""])[-1]
    return kind.startswith("torch.nn.modules.") and ".container." not in kind


class _Loader:
    def __init__(self, model: fx.GraphModule, state_dict: dict[str, Any]) -> None:
        self.model = model
        self.rest = dict(state_dict)
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.done: dict[int, nn.Module] = {}

    def _fail(self, rule: str, value: str) -> ValueError:
        return ValueError(f"legacy.convert_fx: argument 'state_dict' must {rule}, got {value}")

    def _observer(self, node: Any) -> nn.Module | None:
        known = isinstance(node, fx.Node) and node.op == "call_module"
        module = self.modules.get(node.target) if known else None
        return module if is_observer(module) else None

    def _replace(self, node: fx.Node, new: nn.Module) -> None:
        """Another observer at a node; places that share the old one get the first new one."""
        known = self.done.setdefault(id(self.modules[node.target]), new)
        owner, _, leaf = node.target.rpartition(".")
        self.model.get_submodule(owner)._modules[leaf] = known

    def _set(self, node: fx.Node, value: torch.Tensor) -> None:
        """The value of a get_attr node."""
        owner, _, leaf = node.target.rpartition(".")
        module, old = self.model.get_submodule(owner), tensor_of(self.model, node)
        if old is None or old.shape != value.shape:
            raise self._fail(
                f"hold '{node.target}' as {list(getattr(old, 'shape', []))}", f"{list(value.shape)}"
            )
        value = value.detach().to(old.dtype)
        if leaf in module._parameters:
            value = nn.Parameter(value, requires_grad=False)
        setattr(module, leaf, value)

    def _weight_and_bias(self, node: fx.Node, name: str) -> Any:
        pair = self.rest.pop(f"{name}.{_LINEAR}", None)
        if pair is None and f"{name}.weight" in self.rest:
            pair = (self.rest.pop(f"{name}.weight"), self.rest.pop(f"{name}.bias", None))
        if pair is None:  # of a function
            keys = self._keys(name, "_packed_weight_")
            kind = node.target._schema.name.removeprefix("aten::")
            pair = _packed.product_of(kind, self.rest.pop(keys[0])) if keys else None
        return pair

    def kept(self) -> dict[str, dict[str, Any]]:
        """Entries of the layers that stay whole, by the names that they have in a converted graph."""
        found = {}
        for name in kept_calls(self.model):
            own = {key: value for key, value in self.rest.items() if key.startswith(f"{name}.")}
            found[f"{name}.module"] = {key.removeprefix(f"{name}."): self.rest.pop(key) for key in own}
        return {name: entries for name, entries in found.items() if entries}

    def product(self, node: fx.Node) -> None:
        """Weight and bias of a layer."""
        name, observed = innermost_module(node), node.args[1]
        if self._observer(observed) is None:
            return
        self.rest.pop(f"{name}._packed_params.dtype", None)
        pair = self._weight_and_bias(node, name)
        if pair is None:
            return
        observer = self._observer(node.args[0])
        if observer is not None and getattr(observer, "is_dynamic", False):
            self._take(f"{name}.scale")  # of the static layer that torch.ao derives it from
        weight, bias = pair
        if not isinstance(weight, torch.Tensor) or weight.dtype != torch.qint8:
            raise self._fail(
                f"hold '{name}.weight' in qint8", str(getattr(weight, "dtype", type(weight).__name__))
            )
        axis = 1 if is_call(node, CONV_TRANSPOSE) else 0
        found = weight_of_tensor(weight, axis)
        points = torch.zeros_like(found.scale, dtype=torch.int32)
        points = points if found.zero_point is None else found.zero_point
        self._set(observed.args[0], weight.dequantize())
        self._replace(observed, _KnownWeight(found.scale, points, axis))
        place = argument(node, 2)
        if bias is None:
            return
        if isinstance(place, fx.Node):
            self._set(place, bias)
        else:
            with self.model.graph.inserting_before(node):
                constant = add_constant(self.model, f"{name}.bias", bias.detach().float())
            node.args = (*node.args[:2], constant, *node.args[3:])

    def table(self, node: fx.Node) -> None:
        """Rows of a table."""
        name, observed = innermost_module(node), node.args[0]
        key = f"{name}._packed_params._packed_weight"
        if self._observer(observed) is None or key not in self.rest:
            return
        self.rest.pop(f"{name}._packed_params.dtype", None)
        weight = self.rest.pop(key)
        if not isinstance(weight, torch.Tensor) or weight.dtype != torch.quint8:
            got = str(getattr(weight, "dtype", type(weight).__name__))
            raise self._fail(f"hold '{key}' in quint8", got)
        self._set(observed.args[0], weight.dequantize())
        points = weight.q_per_channel_zero_points().to(torch.float32)
        scales = weight.q_per_channel_scales().to(torch.float32)
        self._replace(observed, _KnownWeight(scales, points, 0))

    def _take(self, scale: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        point = re.sub(r"scale(_\d+)?$", r"zero_point\1", scale)
        if scale not in self.rest or point not in self.rest:
            return None
        return self.rest.pop(scale), self.rest.pop(point)

    def _keys(self, name: str, kind: str) -> list[str]:
        """Keys of the functions in a module, or in the nearest one around it that has some, in order."""
        while True:
            pattern = re.compile(re.escape(name.replace(".", "_") + kind) + r"(\d+)$")
            found = sorted((int(m.group(1)), m.string) for m in map(pattern.match, self.rest) if m)
            if found or not name:
                return [key for _, key in found]
            name = name.rpartition(".")[0]

    def _input(self, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor] | None:
        for reader in node.users:
            called = reader.op == "call_function"
            keys = self._keys(innermost_module(reader), "_input_scale_") if called else []
            if keys:
                return self._take(keys[0])
        return None

    def _layer(self, source: fx.Node) -> fx.Node | None:
        """The product that a value comes from by activations only."""
        base = source
        while not is_call(base, _PRODUCTS):
            before = base.all_input_nodes[0] if len(base.all_input_nodes) == 1 else None
            if before is None or self._observer(before) is not None or before.op != "call_function":
                return None
            base = before
        return base

    def _plan(self, nodes: list[fx.Node]) -> dict[fx.Node, str]:
        """Which key each value of a function has.

        torch.ao fuses a layer with nn.ReLU and F.relu, and not with torch.relu: whether a relu behind a
        layer has qparams of its own shows in how many the file has.
        """
        functions: dict[tuple[str, ...], list[fx.Node]] = {}
        behind: dict[tuple[str, ...], list[fx.Node]] = {}
        for node in nodes:
            source = node.args[0]
            layer = self._layer(source)
            if source.op != "call_function" or _is_layer(source):
                continue
            keys = tuple(self._keys(innermost_module(source), "_scale_"))
            functions.setdefault(keys, [])
            (functions if layer in (None, source) else behind).setdefault(keys, []).append(node)
        planned: dict[fx.Node, str] = {}
        for keys, known in functions.items():
            extra = behind.get(keys, [])
            wanted = known if len(keys) == len(known) else [n for n in nodes if n in known or n in extra]
            if len(keys) == len(wanted):
                planned.update(zip(wanted, keys, strict=True))
        return planned

    def activation(self, node: fx.Node, key: str | None) -> None:
        """Qparams of one observed value."""
        observer, source = self.modules[node.target], node.args[0]
        if id(observer) in self.done:
            self._replace(node, self.done[id(observer)])
            return
        layer = self._layer(source)
        found = None if layer is None else self._take(f"{innermost_module(layer)}.scale")
        if source.op == "placeholder" or not source.all_input_nodes:
            found = self._input(node)
        elif key is not None:
            found = self._take(key)
        elif found is None:
            name = innermost_module(source)
            # Of a layer whose result is float, such as a table: its key is that of a function.
            found = self._take(f"{name}.scale") or self._take(f"{name.replace('.', '_')}_scale_0")
        if found is None:
            raise self._fail(
                f"have qparams for '{source.name}' of module '{innermost_module(source)}'",
                "none; prepare the model with the QConfigs that it was quantized with",
            )
        scale, point = (float(found[0]), int(found[1]))
        dtype = torch.uint8 if observer.dtype in (torch.uint8, torch.quint8) else torch.int8
        low, high = RANGE[dtype]  # torch.ao's kernels do not cut what its observers cut
        self._replace(node, FixedQParamsObserver(scale, point, dtype, quant_min=low, quant_max=high))

    def _activations(self) -> list[fx.Node]:
        """Where values that are no weights are observed."""
        found = []
        for node in self.model.graph.nodes:
            observer = self._observer(node)
            if observer is None or isinstance(observer, FollowingObserver):
                continue
            if node.args[0].op != "get_attr" and not getattr(observer, "is_dynamic", False):
                found.append(node)
        return found

    def run(self) -> None:
        for node in list(self.model.graph.nodes):
            if is_call(node, _PRODUCTS):
                self.product(node)
            elif is_call(node, {torch.ops.aten.embedding.default}):
                self.table(node)
        nodes = self._activations()
        by_observer = {id(self.modules[node.target]): node for node in reversed(nodes)}
        planned = self._plan([node for node in nodes if node in by_observer.values()])
        for node in nodes:
            self.activation(node, planned.get(node))
        for node in self.model.graph.nodes:
            follower = self._observer(node)
            if isinstance(follower, FollowingObserver):
                self._replace(node, FollowingObserver(self.done[id(follower.source)]))
            if node.op == "get_attr" and node.target in self.rest:
                self._set(node, self.rest.pop(node.target))
        if self.rest:
            raise self._fail(
                "have its place in the graph for each entry", f"{sorted(self.rest)[:5]} without one"
            )
        self.model.graph.lint()
        self.model.recompile()


def convert_fx(graph_module: fx.GraphModule, state_dict: dict[str, Any], **options: Any) -> fx.GraphModule:
    """See `legacy.convert_fx`."""
    if not isinstance(graph_module, fx.GraphModule):
        raise TypeError(
            "legacy.convert_fx: argument 'graph_module' must be a graph of prepare_fx, got "
            f"{type(graph_module).__name__}"
        )
    model = copy_graph_module(graph_module)  # with its own holders of constants and observers
    loader = _Loader(model, state_dict)
    kept = loader.kept()
    loader.run()
    converted = _convert_fx(model, **options)
    for name, entries in kept.items():
        load_state_dict(converted.get_submodule(name), entries)
    return converted
