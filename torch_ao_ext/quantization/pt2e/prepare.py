"""Puts observers or fake-quants into an annotated graph."""

import inspect
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext.quantization.fake_quantize import FakeQuantizeBase, FixedQParamsFakeQuantize
from torch_ao_ext.quantization.observer import (
    FixedQParamsObserver,
    ObserverBase,
    PlaceholderObserver,
)
from torch_ao_ext.quantization.pt2e._graph import free_name, inherit_meta, reads_sizes_only, where
from torch_ao_ext.quantization.pt2e._sharing import Groups
from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    DerivedQuantizationSpec,
    EdgeOrNode,
    FixedQParamsQuantizationSpec,
    QuantizationSpec,
    QuantizationSpecBase,
)

__all__ = ["prepare"]

_FLOAT = (torch.float32, torch.float16, torch.bfloat16, None)


class DerivedObserver(ObserverBase):
    """Stands where a tensor's qparams follow from other observers; records nothing.

    Args:
        spec: says how the qparams are computed.
        sources: the observers that it reads.
    """

    def __init__(self, spec: DerivedQuantizationSpec, sources: list[nn.Module]) -> None:
        super().__init__(dtype=spec.dtype, is_dynamic=spec.is_dynamic)
        self.quant_min, self.quant_max = spec.quant_min, spec.quant_max
        self.qscheme, self.ch_axis = spec.qscheme, spec.ch_axis
        self._derive = spec.derive_qparams_fn
        self._sources = tuple(sources)  # not submodules: each is observed in its own place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What derive_qparams_fn makes of the other observers."""
        return self._derive(list(self._sources))


def _arguments(factory: Any, spec: Any) -> dict[str, Any]:
    """The spec's fields that the observer takes."""
    wanted = {
        "dtype": spec.dtype, "qscheme": getattr(spec, "qscheme", None),
        "quant_min": spec.quant_min, "quant_max": spec.quant_max,
        "ch_axis": getattr(spec, "ch_axis", None), "is_dynamic": spec.is_dynamic,
    }  # fmt: skip
    known = {key: value for key, value in wanted.items() if value is not None}
    if known.get("qscheme") not in (
        torch.per_channel_symmetric, torch.per_channel_affine, torch.per_channel_affine_float_qparams
    ):  # fmt: skip
        known.pop("ch_axis", None)
    target = factory
    while hasattr(target, "p") or hasattr(target, "func"):  # factories of with_args
        target = target.p if hasattr(target, "p") else target.func
    parameters = inspect.signature(target).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return known
    return {key: value for key, value in known.items() if key in parameters}


def make_observer(spec: QuantizationSpecBase, observers: dict[EdgeOrNode, Any], is_qat: bool) -> Any:
    """The observer or fake-quant of a spec; None for a tensor that stays float.

    Args:
        spec: any but a shared one.
        observers: those made so far, for derived specs.
        is_qat: fake-quants where the spec leaves the choice.

    Raises:
        ValueError: a derived spec names a tensor without an observer.
    """
    if isinstance(spec, FixedQParamsQuantizationSpec):
        kind = FixedQParamsFakeQuantize if is_qat else FixedQParamsObserver
        fixed = {
            "scale": spec.scale, "zero_point": spec.zero_point, "dtype": spec.dtype,
            "qscheme": spec.qscheme or torch.per_tensor_affine,
        }  # fmt: skip
        if spec.quant_min is not None and spec.quant_max is not None:
            fixed |= {"quant_min": spec.quant_min, "quant_max": spec.quant_max}
        if is_qat:
            return kind(observer=FixedQParamsObserver.with_args(**fixed))
        return kind(**fixed)
    if isinstance(spec, DerivedQuantizationSpec):
        missing = [source for source in spec.derived_from if source not in observers]
        if missing:
            raise ValueError(
                f"prepare_pt2e: argument 'derived_from' must name observed tensors, got {missing[0]}"
            )
        return DerivedObserver(spec, [observers[source] for source in spec.derived_from])
    assert isinstance(spec, QuantizationSpec)
    if spec.dtype in (torch.float32, None):
        return None
    return spec.observer_or_fake_quant_ctr(**_arguments(spec.observer_or_fake_quant_ctr, spec))


def _specs(model: fx.GraphModule) -> dict[EdgeOrNode, QuantizationSpecBase]:
    """Every annotated tensor with its spec, in graph order."""
    found: dict[EdgeOrNode, QuantizationSpecBase] = {}
    for node in model.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if annotation is None:
            continue
        for source, spec in annotation.input_qspec_map.items():
            if source not in node.all_input_nodes:
                raise ValueError(
                    f"prepare_pt2e: the annotation of {where(node)} must name its own inputs, got '{source}'"
                )
            if spec is not None:
                found[(source, node)] = spec
        if annotation.output_qspec is not None:
            found[node] = annotation.output_qspec
    return found


def _observers(
    model: fx.GraphModule, specs: dict[EdgeOrNode, QuantizationSpecBase], is_qat: bool
) -> dict[EdgeOrNode, Any]:
    """One observer for each group of tensors that share one."""
    groups = Groups(specs)
    made: dict[EdgeOrNode, Any] = {}
    result: dict[EdgeOrNode, Any] = {}
    pending = list(specs)
    # Derived specs come last: they read the observers of others.
    pending.sort(key=lambda key: isinstance(groups.spec(key), DerivedQuantizationSpec))
    for key in pending:
        root = groups.root(key)
        if root not in made:
            made[root] = make_observer(groups.spec(key), result, is_qat)
        if made[root] is not None:
            result[key] = made[root]
    return {key: result[key] for key in specs if key in result}


def _insert(
    model: fx.GraphModule, observer: Any, names: dict[int, str], source: fx.Node, prefix: str
) -> fx.Node:
    """A call of the observer behind source."""
    if id(observer) not in names:
        name = free_name(model, prefix)
        model.add_module(name, observer)
        names[id(observer)] = name
    with model.graph.inserting_after(source):
        call = model.graph.call_module(names[id(observer)], (source,))
    inherit_meta(call, source)
    return call


def prepare(
    model: fx.GraphModule,
    node_name_to_scope: dict[str, Any] | None = None,
    is_qat: bool = False,
    obs_or_fq_callback: Any = None,
) -> fx.GraphModule:
    """Inserts an observer behind every annotated output and before every annotated input.

    Tensors of one group share one observer: those with a SharedQuantizationSpec, and the
    edges of one producer that have the same spec. An edge whose producer is already
    observed by its group gets no second one.

    Args:
        model: annotated; changed in place.
        node_name_to_scope: not used; kept for callers of the published function.
        is_qat: fake-quants for specs that leave the choice.
        obs_or_fq_callback: called with the model and edge or node -> observer.

    Returns:
        model.

    Raises:
        ValueError: an annotation that names foreign nodes, or a circle of shared specs.
    """
    specs = _specs(model)
    observers = _observers(model, specs, is_qat)
    if obs_or_fq_callback is not None:
        obs_or_fq_callback(model, observers)
    names: dict[int, str] = {}
    after: dict[fx.Node, list[tuple[Any, fx.Node]]] = {}  # producer -> its observer calls
    prefix = "activation_post_process_0"
    for node in list(model.graph.nodes):
        for source in list(node.all_input_nodes):
            observer = observers.get((source, node))
            if observer is None:
                continue
            call = next((c for o, c in after.get(source, []) if o is observer), None)
            if call is None:
                call = _insert(model, observer, names, source, prefix)
                after.setdefault(source, []).append((observer, call))
            node.replace_input_with(source, call)
        observer = observers.get(node)
        if observer is not None:
            readers = [user for user in node.users if not reads_sizes_only(user)]
            call = _insert(model, observer, names, node, prefix)
            for reader in readers:
                if (node, reader) not in observers or observers[(node, reader)] is observer:
                    reader.replace_input_with(node, call)
            after.setdefault(node, []).append((observer, call))
    model.graph.lint()
    model.recompile()
    return model


def is_observer(module: Any) -> bool:
    """Whether a module is an observer or fake-quant that prepare inserts."""
    return isinstance(module, (ObserverBase, FakeQuantizeBase)) or (
        callable(getattr(module, "calculate_qparams", None)) and hasattr(module, "dtype")
    )


def leaves_float(observer: Any) -> bool:
    """Whether an observer marks a tensor that convert does not quantize."""
    return isinstance(observer, PlaceholderObserver) and observer.dtype in _FLOAT
