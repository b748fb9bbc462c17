"""Programs of TorchScript mode between prepare and convert."""

from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._lower import lower_nodes
from torch_ao_ext.quantization._jit_capture import captured
from torch_ao_ext.quantization._jit_dynamic import layers_to_int8
from torch_ao_ext.quantization.fx._flow import prepare_by_mapping
from torch_ao_ext.quantization.fx._reduced_range import widen_reduced_ranges
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e

__all__ = ["DynamicProgram", "ObservedProgram", "convert_dynamic", "convert_observed"]


class _Prepared(nn.Module):
    """A program with its QConfigs; runs as the program.

    Args:
        program: float, in evaluation mode.
        mapping: QConfigs of its modules.
    """

    def __init__(self, program: torch.jit.ScriptModule, mapping: QConfigMapping) -> None:
        super().__init__()
        self.program = program
        self.mapping = mapping
        self.train(False)


class ObservedProgram(_Prepared):
    """What `prepare_jit` gives: the first call captures the graph, every call is observed."""

    def __init__(self, program: torch.jit.ScriptModule, mapping: QConfigMapping) -> None:
        super().__init__(program, mapping)
        self.graph_module: fx.GraphModule | None = None

    def forward(self, *inputs: Any) -> Any:
        """As the program.

        Raises:
            ValueError: a program that cannot be captured, or has nothing to quantize.
        """
        if self.graph_module is None:
            graph = captured("prepare_jit", self.program, inputs)
            self.graph_module = prepare_by_mapping("prepare_jit", graph, self.mapping)
        return self.graph_module(*inputs)


class DynamicProgram(_Prepared):
    """What `prepare_dynamic_jit` gives: nothing is observed."""

    def forward(self, *inputs: Any) -> Any:
        """As the program."""
        return self.program(*inputs)


def _check_kind(op: str, model: Any, kind: type, source: str) -> None:
    if not isinstance(model, kind):
        raise ValueError(f"{op}: argument 'model' must come from {source}, got {type(model).__name__}")


def convert_observed(model: nn.Module, preserved: list[str]) -> torch.jit.ScriptModule:
    """See `convert_jit`."""
    _check_kind("convert_jit", model, ObservedProgram, "prepare_jit")
    if model.graph_module is None:
        raise ValueError("convert_jit: argument 'model' must have run on example data, got no call")
    converted = convert_pt2e(model.graph_module)
    widen_reduced_ranges(converted)
    graph = lower_nodes(converted)
    for name in preserved:
        value = getattr(model.program, name, None)
        if value is None or callable(value) and not isinstance(value, nn.Module):
            raise ValueError(
                f"convert_jit: argument 'preserved_attrs' must name attributes of the program, got {name!r}"
            )
        setattr(graph, name, value)
    return torch.jit.script(graph)


def convert_dynamic(model: nn.Module) -> torch.jit.ScriptModule:
    """See `convert_dynamic_jit`."""
    _check_kind("convert_dynamic_jit", model, DynamicProgram, "prepare_dynamic_jit")
    return layers_to_int8(model.program, lambda name: _qconfig_of(model.mapping, name))


def _qconfig_of(mapping: QConfigMapping, name: str) -> Any:
    while name:
        if name in mapping.module_name_qconfigs:
            return mapping.module_name_qconfigs[name]
        name = name.rpartition(".")[0]
    return mapping.global_qconfig
