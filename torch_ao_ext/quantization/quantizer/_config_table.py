"""Which config a node gets: by module name, module class, operator, or the global one."""

from dataclasses import dataclass, field
from typing import Any

from torch import fx

from torch_ao_ext._graph_ops import module_types
from torch_ao_ext.quantization.quantizer.utils import (
    QuantizationConfig,
    module_names,
)


@dataclass
class ConfigTable:
    """Configs by what they are for; None as a config leaves nodes float.

    Args:
        names: by fully qualified module name.
        types: by module class.
        operators: by ATen overload.
        default: for every other node.
    """

    names: dict[str, QuantizationConfig | None] = field(default_factory=dict)
    types: dict[type, QuantizationConfig | None] = field(default_factory=dict)
    operators: dict[Any, QuantizationConfig | None] = field(default_factory=dict)
    default: QuantizationConfig | None = None

    def find(self, node: fx.Node, operator: Any = None) -> QuantizationConfig | None:
        """A name beats a class, a class an operator; the innermost module beats the outer ones.

        Args:
            node: where in the model.
            operator: the ATen overload, the node's own by default.
        """
        for name in reversed(module_names(node)):
            if name in self.names:
                return self.names[name]
        by_type = {f"{t.__module__}.{t.__qualname__}": config for t, config in self.types.items()}
        for kind in reversed(module_types(node)):
            if kind in by_type:
                return by_type[kind]
        return self.operators.get(operator or node.target, self.default)

    def configs(self) -> list[QuantizationConfig]:
        """Every config that is not None."""
        values = [*self.names.values(), *self.types.values(), *self.operators.values(), self.default]
        return [value for value in values if value is not None]

    def unmatched_names(self, model: fx.GraphModule) -> list[str]:
        """Module names that no node of the graph lies in."""
        seen = {name for node in model.graph.nodes for name in module_names(node)}
        return [name for name in self.names if name not in seen]
