"""Equalizes the inputs of linear and convolution layers in a prepared graph."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext.quantization.fake_quantize import FakeQuantizeBase
from torch_ao_ext.quantization.fx._equalize import (
    EqualizationQConfig,
    _InputEqualizationObserver,
    _WeightEqualizationObserver,
    calculate_equalization_scale,
)
from torch_ao_ext.quantization.fx._notes import note_equalization
from torch_ao_ext.quantization.observer import MinMaxObserver
from torch_ao_ext.quantization.pt2e._graph import (
    add_constant,
    copy_graph_module,
    free_name,
    inherit_meta,
    remove_unused,
    tensor_of,
)
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.quantizer._targets import CONV, LINEAR, RELU, argument, is_call

__all__ = ["equalized", "observe_channels"]


class EqualizedInput(nn.Module):
    """Stands before a layer: looks at its input, channel by channel, and returns it.

    Args:
        input_observer: of the input.
        weight_observer: of the layer's weight, which it sees at conversion.
        rank: spatial dimensions of a convolution, 0 for a linear layer.
    """

    def __init__(
        self,
        input_observer: _InputEqualizationObserver,
        weight_observer: _WeightEqualizationObserver,
        rank: int,
    ) -> None:
        super().__init__()
        self.input_observer = input_observer
        self.weight_observer = weight_observer
        self.rank = rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels: the last dimension for a linear layer, else that before the spatial ones."""
        if x.numel() > 0:
            channels = x.shape[-1] if self.rank == 0 else x.shape[-1 - self.rank]
            self.input_observer(
                x.detach().reshape(-1, channels, *(x.shape[-self.rank :] if self.rank else ()))
            )
        return x


def _observer_at(modules: dict[str, nn.Module], node: Any) -> Any:
    """The observer that a node calls, or None."""
    found = modules.get(node.target) if isinstance(node, fx.Node) and node.op == "call_module" else None
    return found if is_observer(found) else None


def observe_channels(op: str, graph: fx.GraphModule, qconfig_of: Callable[[fx.Node], Any]) -> None:
    """Looks at the inputs of the int8 layers that have an EqualizationQConfig, in place.

    Warns when none has.

    Args:
        op: for messages.
        graph: prepared.
        qconfig_of: EqualizationQConfig of a node, or None.

    Raises:
        ValueError: another config.
    """
    modules = dict(graph.named_modules())
    found = {}
    for node in list(graph.graph.nodes):
        qconfig = qconfig_of(node) if is_call(node, LINEAR | CONV) else None
        if qconfig is None:
            continue
        if not isinstance(qconfig, EqualizationQConfig):
            raise ValueError(
                f"{op}: argument '_equalization_config' must hold EqualizationQConfigs or None, got "
                f"{qconfig!r}"
            )
        source, weight = node.args[:2]
        observers = (qconfig.input_activation(), qconfig.weight())
        kinds = (_InputEqualizationObserver, _WeightEqualizationObserver)
        wanted = all(isinstance(o, kind) for o, kind in zip(observers, kinds, strict=True))
        known = _observer_at(modules, weight) is not None and tensor_of(graph, weight.args[0]) is not None
        if not wanted or not known or _observer_at(modules, source) is None:
            continue
        rank = 0 if is_call(node, LINEAR) else tensor_of(graph, weight.args[0]).dim() - 2
        name = free_name(graph, "equalization_0")
        graph.add_module(name, EqualizedInput(*observers, rank))
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, (source,))
        inherit_meta(call, source)
        node.update_arg(0, call)
        found[node.name] = qconfig
    if not found:
        warnings.warn(f"{op}: '_equalization_config' names no int8 layer, nothing is equalized", stacklevel=4)
    note_equalization(graph, found)
    graph.recompile()


def _by_input(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """`[N, C / groups, *]` as `[N / groups, C, *]`: all weights of an input channel in one place."""
    split = weight.reshape(groups, -1, *weight.shape[1:])
    return split.transpose(0, 1).reshape(split.shape[1], -1, *weight.shape[2:])


def _input_factors(scale: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
    """A factor `[C]` of input channels, for each weight; the inverse of _by_input's order."""
    split = scale.reshape(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
    return split.reshape(weight.shape[0], -1, *[1] * (weight.dim() - 2))


def _groups(node: fx.Node) -> int:
    return argument(node, 6, 1) if is_call(node, CONV) else 1


def _ranged(observer: Any, low: torch.Tensor, high: torch.Tensor) -> Any:
    """An observer of the same settings that has seen [low, high].

    Histograms are of values that were not scaled; of scaled ones, the ends are known.
    """
    if getattr(observer, "is_dynamic", False):
        return copy.deepcopy(observer)
    if isinstance(observer, FakeQuantizeBase):
        made = copy.deepcopy(observer)
        made.activation_post_process = _ranged(observer.activation_post_process, low, high)
        return made
    if isinstance(observer, MinMaxObserver):
        made = copy.deepcopy(observer)
    else:
        made = MinMaxObserver(dtype=observer.dtype, qscheme=observer.qscheme)
        made.quant_min, made.quant_max = observer.quant_min, observer.quant_max
        made.has_customized_qrange = getattr(observer, "has_customized_qrange", False)
        made.eps.copy_(torch.as_tensor(getattr(observer, "eps", made.eps)).reshape(1))
    made.min_val.copy_(low)
    made.max_val.copy_(high)
    return made


class _Layer:
    """A layer behind an EqualizedInput, with the factors of its input channels."""

    def __init__(self, model: fx.GraphModule, call: fx.Node, look: EqualizedInput) -> None:
        self.call, self.look = call, look
        self.node = next(iter(call.users))
        weight = tensor_of(model, self.node.args[1].args[0]).detach()
        observer = copy.deepcopy(look.weight_observer)
        observer(_by_input(weight, _groups(self.node)))
        self.scale = calculate_equalization_scale(look.input_observer, observer)

    def scaled_range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of all scaled inputs."""
        low, high = self.look.input_observer.get_input_minmax()
        return (low * self.scale).min(), (high * self.scale).max()


class _Equalizer:
    """Moves the factors of one graph to where they belong.

    Args:
        model: a copy; changed in place.
        integer_inputs: indexes of inputs whose quantization must stay first.
    """

    def __init__(self, model: fx.GraphModule, integer_inputs: list[int]) -> None:
        self.model, self.graph = model, model.graph
        self.modules = dict(model.named_modules())
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        self.first = {placeholders[index] for index in integer_inputs}

    def run(self) -> None:
        """Scales what it can; layers whose inputs were never seen stay as they are."""
        calls = [n for n in self.graph.nodes if isinstance(self._module(n), EqualizedInput)]
        seen = [n for n in calls if self._module(n).input_observer.input_obs.min_val.numel() > 0]
        layers = [_Layer(self.model, call, self._module(call)) for call in seen]
        for layer in layers:
            before = self._before(layer)
            if before is None:
                self._multiply(layer)
            else:
                self._scale_before(layer, before)
            weight = tensor_of(self.model, layer.node.args[1].args[0]).detach()
            self._set_weight(layer.node, weight / _input_factors(layer.scale, weight, _groups(layer.node)))
        for call in calls:
            call.replace_all_uses_with(call.args[0])
            self.graph.erase_node(call)
        self.graph.eliminate_dead_code()
        remove_unused(self.model)
        self.graph.lint()
        self.model.recompile()

    def _module(self, node: Any) -> Any:
        return self.modules.get(node.target) if node.op == "call_module" else None

    def _before(self, layer: _Layer) -> fx.Node | None:
        """The layer whose results, through a relu at most, are read by this one only."""
        observed = layer.call.args[0]
        if len(observed.users) > 1:
            return None
        node = observed.args[0]
        if is_call(node, RELU) and len(node.users) == 1:
            node = node.args[0]
        family = LINEAR if is_call(layer.node, LINEAR) else CONV
        if not is_call(node, family) or len(node.users) > 1:
            return None
        weight, bias = self._weight_of(node), argument(node, 2)
        if weight is None or (bias is not None and tensor_of(self.model, bias) is None):
            return None
        return node if weight.shape[0] == layer.scale.numel() else None

    def _weight_of(self, node: fx.Node) -> torch.Tensor | None:
        weight = node.args[1]
        observed = _observer_at(self.modules, weight) is not None
        return tensor_of(self.model, weight.args[0] if observed else weight)

    def _scale_before(self, layer: _Layer, before: fx.Node) -> None:
        """Results of the layer before come out scaled."""
        weight = self._weight_of(before).detach()
        self._set_weight(before, weight * layer.scale.reshape(-1, *[1] * (weight.dim() - 1)))
        bias = argument(before, 2)
        if bias is not None:
            value = tensor_of(self.model, bias).detach() * layer.scale
            with self.graph.inserting_before(before):
                before.update_arg(2, add_constant(self.model, bias.target, value, replaces=bias))
        observed = layer.call.args[0]
        self._observe(observed, _ranged(self._module(observed), *layer.scaled_range()))

    def _multiply(self, layer: _Layer) -> None:
        """The layer's input is multiplied."""
        observed = layer.call.args[0]
        keeps = len(observed.users) > 1 or observed.args[0] in self.first
        source = observed if keeps else observed.args[0]
        shape = [-1] + [1] * layer.look.rank
        with self.graph.inserting_before(layer.call):
            name = f"{layer.node.name}_equalization_scale"
            scale = add_constant(self.model, name, layer.scale.reshape(shape))
            product = self.graph.call_function(torch.ops.aten.mul.Tensor, (source, scale))
            inherit_meta(product, source)
            call = self.graph.call_module(observed.target, (product,))
        inherit_meta(call, observed)
        self._observe(call, _ranged(self._module(observed), *layer.scaled_range()))
        layer.call.update_arg(0, call)

    def _set_weight(self, node: fx.Node, value: torch.Tensor) -> None:
        weight = node.args[1]
        observer = _observer_at(self.modules, weight)
        stored = weight if observer is None else weight.args[0]
        with self.graph.inserting_before(node):
            constant = add_constant(self.model, stored.target, value)
            if observer is None:
                node.update_arg(1, constant)
                return
            call = self.graph.call_module(weight.target, (constant,))
        inherit_meta(call, weight)
        made = copy.deepcopy(observer)
        getattr(made, "activation_post_process", made).reset_min_max_vals()
        made(value)
        self._observe(call, made)
        node.update_arg(1, call)

    def _observe(self, node: fx.Node, observer: nn.Module) -> None:
        """A node calls an observer of its own."""
        name = free_name(self.model, "activation_post_process_0")
        self.model.add_module(name, observer)
        self.modules[name] = observer
        node.target = name


def equalized(model: fx.GraphModule, integer_inputs: list[int] | None = None) -> fx.GraphModule:
    """The prepared graph with scaled weights and ranges; itself where nothing is to be equalized.

    Args:
        model: prepared and calibrated; left as it is.
        integer_inputs: indexes of inputs that become integers.
    """
    if not any(isinstance(module, EqualizedInput) for module in model.modules()):
        return model
    model = copy_graph_module(model)
    with torch.no_grad():
        _Equalizer(model, integer_inputs or []).run()
    return model
