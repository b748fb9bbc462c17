"""Classes of the graphs of FX graph mode, by which programs tell them apart."""

from typing import Any

from torch import fx, nn

from torch_ao_ext._lower._script import LoweredModule, ReferenceModule
from torch_ao_ext.quantization.pt2e._graph import copy_graph_module
from torch_ao_ext.quantization.pt2e._portable import TRAIN_EVAL, PortableGraphModule

__all__ = [
    "FusedGraphModule",
    "ObservedGraphModule",
    "ObservedStandaloneGraphModule",
    "QuantizedGraphModule",
]

# Meta of a graph module: attributes that copies have as well, by the key that fx copies them by.
PRESERVED = "_user_preserved_attributes"


class _WithAttributes(PortableGraphModule):
    """A graph module that takes attributes over.

    Args:
        root: has what the graph names.
        graph: the graph.
        preserved_attr_names: attributes of root that it gets as well.
    """

    def __init__(
        self, root: nn.Module | dict[str, Any], graph: fx.Graph, preserved_attr_names: Any = ()
    ) -> None:
        super().__init__(root, graph)
        self.preserved_attr_names = set(preserved_attr_names)
        kept = {name: getattr(root, name) for name in self.preserved_attr_names if hasattr(root, name)}
        self.meta.setdefault(PRESERVED, {}).update(kept)
        for name, value in kept.items():
            setattr(self, name, value)


class FusedGraphModule(_WithAttributes):
    """From `fuse_fx`."""


class ObservedGraphModule(_WithAttributes):
    """From `prepare_fx` and `prepare_qat_fx`."""


class ObservedStandaloneGraphModule(ObservedGraphModule):
    """A standalone module in one of them."""


# From `convert_fx`.
QuantizedGraphModule = LoweredModule


def as_kind(model: fx.GraphModule, kind: type[PortableGraphModule]) -> fx.GraphModule:
    """The same graph in another class; model is not to be used any more."""
    result = copy_graph_module(model, kind)
    settle = model.__dict__.get(TRAIN_EVAL)
    return result if settle is None else settle(result)


def as_reference(model: fx.GraphModule) -> fx.GraphModule:
    """The same graph as what `convert_to_reference_fx` gives; model is not to be used any more."""
    return as_kind(model, ReferenceModule)
