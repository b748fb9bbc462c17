"""A tracer of torch.fx that looks into no layer."""

from typing import Any

from torch import fx, nn
from torch.fx import proxy

from torch_ao_ext.nn.intrinsic import _FusedModule
from torch_ao_ext.quantization.pt2e.prepare import is_observer

__all__ = ["NSTracer", "QuantizationTracer", "ScopeContextManager"]


class ScopeContextManager(proxy.ScopeContextManager):
    """Inside, a tracer's scope is a module.

    Args:
        scope: of the tracer; changed, and set back behind.
        current_module: the module.
        current_module_path: its name in the model.
    """

    def __init__(self, scope: proxy.Scope, current_module: nn.Module, current_module_path: str) -> None:
        super().__init__(scope, proxy.Scope(current_module_path, type(current_module)))


class QuantizationTracer(fx.Tracer):
    """Layers of torch.nn and of this library, fused layers and chosen modules stay calls.

    Args:
        skipped_module_names: modules that stay calls, by name.
        skipped_module_classes: and by exact class.

    Example:
        >>> from torch import nn
        >>> from torch_ao_ext.quantization.fx.tracer import QuantizationTracer
        >>> graph = QuantizationTracer([], []).trace(nn.Sequential(nn.Linear(2, 2)))
        >>> [node.op for node in graph.nodes]
        ['placeholder', 'call_module', 'output']
    """

    def __init__(self, skipped_module_names: list[str], skipped_module_classes: list[Any]) -> None:
        super().__init__()
        self.skipped_module_names = skipped_module_names
        self.skipped_module_classes = skipped_module_classes
        self.record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the graph calls the module as a whole."""
        library = m.__module__.startswith(("torch.nn", "torch_ao_ext.nn"))
        return (
            (library and not isinstance(m, nn.Sequential))
            or module_qualified_name in self.skipped_module_names
            or type(m) in self.skipped_module_classes
            or isinstance(m, _FusedModule)
        )


class NSTracer(QuantizationTracer):
    """A QuantizationTracer that keeps observers and fake quantization as calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the graph calls the module as a whole."""
        return is_observer(m) or super().is_leaf_module(m, module_qualified_name)
