"""Which engine and kernel run a weight, where the results of an island lie, and what each operator takes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torch_ao_ext._graph_ops import GraphOp, graph_ops
from torch_ao_ext._island import Island
from torch_ao_ext._profile import Profile, profile
from torch_ao_ext._report import RECURRENT, SPARSE
from torch_ao_ext.nn.quantized import Embedding, LinearWeightOnly
from torch_ao_ext.nn.quantized._weighted import WeightedModule
from torch_ao_ext.ops import service

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """Packed states of the weights of a module or tensor; `str()` is a text.

    Attributes:
        weights: fqn -> {"pack_count", "states": [{"op", "engine", "description",
            "packed_bytes", "refused": [[engine, reason], ...]}, ...]}. A recurrent layer with several
            layers or directions, whose W_ih have the states, has the fqn of each, e.g. `rnn.weight_ih_l0`.
        islands: fqn -> {"operators", "plans": [{"block_bytes", "separate_bytes", "results",
            "in_place"}, ...]}: a plan for each set of input sizes that has run; its one block of memory,
            what the results in it would take apart, how many results an operator made, and how many of
            them lie where the residual lay that was added.
        times: time of each operator, when inputs were given.
    """

    weights: dict[str, dict[str, Any]]
    islands: dict[str, dict[str, Any]] = field(default_factory=dict)
    times: Profile | None = None

    def __str__(self) -> str:
        lines = [line for item in self.weights.items() for line in self._lines(*item)]
        lines += [line for item in self.islands.items() for line in self._island_lines(*item)]
        lines = lines or ["no int8 layers"]
        if self.times is not None:
            lines.append(str(self.times))
        return "\n".join(lines)

    @staticmethod
    def _lines(name: str, entry: dict[str, Any]) -> list[str]:
        states, count = entry["states"], entry["pack_count"]
        lines = [f"{name or '(root)'}: {'' if states else 'not packed'}".rstrip()]
        for state in states:
            kernel = f"{state['engine']}, {state['description']}"
            lines.append(f"  {state['op']}: {kernel}; {state['packed_bytes']} packed bytes")
            lines += [f"    not {engine}: {reason}" for engine, reason in state["refused"]]
        if count > max(1, len(states)):
            lines.append(
                f"  warning: packed {count} times; pass the same tensor to every call, "
                "not a view of it, and do not change it"
            )
        return lines

    @staticmethod
    def _island_lines(name: str, entry: dict[str, Any]) -> list[str]:
        lines = [f"{name}: {entry['operators']} operators in one call"]
        for plan in entry["plans"]:
            lines.append(
                f"  {plan['results']} results, those inside in {plan['block_bytes']} bytes "
                f"({plan['separate_bytes']} apart), {plan['in_place']} in place of a residual"
            )
        return lines


def _explain_rows(op: str, table: torch.Tensor) -> dict[str, Any]:
    """An embedding has no packed state: the table runs as it is."""
    state = {
        "op": op,
        "engine": "native",
        "description": f"rows of {table.shape[1]} bytes, used as they are",
        "packed_bytes": 0,
        "refused": [],
    }
    return {"pack_count": 0, "states": [state]}


def _explain_recurrent(fqn: str, weights: list[tuple[str, torch.Tensor]]) -> dict[str, dict[str, Any]]:
    """Of the W_ih of each layer and direction, by name: states hang on these."""
    first = [(name, weight) for name, weight in weights if name.startswith("weight_ih")] or weights[:1]
    prefix = f"{fqn}." if fqn else ""
    labels = [fqn] if len(first) == 1 else [prefix + name for name, _ in first]
    return {label: service.explain_weight(w) for label, (_, w) in zip(labels, first, strict=True)}


def _explain_call(call: GraphOp) -> dict[str, dict[str, Any]]:
    if call.weight is None:
        return {}
    if call.op.startswith("embedding"):
        return {call.fqn: _explain_rows(call.op, call.weight)}
    if call.weight_names:
        weights = (call.weight, *call.more_weights)
        return _explain_recurrent(call.fqn, list(zip(call.weight_names, weights, strict=True)))
    return {call.fqn: service.explain_weight(call.weight)}


def _explain_island(module: Island) -> dict[str, Any]:
    plans = torch.ops.torch_ao._island_plans(module.program)
    names = ("block_bytes", "separate_bytes", "results", "in_place")
    return {
        "operators": module.operators,
        "plans": [dict(zip(names, plan, strict=True)) for plan in plans],
    }


def explain(
    module_or_weight: nn.Module | torch.Tensor, *inputs: Any, trace: str | Path | None = None
) -> Explanation:
    """Tells which engine and kernel run a weight, which refused it and how often it was packed.

    With inputs the module runs first (`profile`): weights are packed, islands planned, operators timed.

    Args:
        module_or_weight: an int8 module, a model, or the int8 weight tensor itself.
        inputs: arguments of the module's forward.
        trace: file for a Chrome trace of a forward; needs inputs.

    Returns:
        Explanation; print it, or read `weights`, `islands`, `times`.

    Raises:
        ValueError: neither a module nor a tensor; inputs or trace beside a weight; trace without inputs.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.quantized.dynamic.Linear(8, 4)
        >>> print(torch_ao_ext.explain(layer))
        (root): not packed
    """
    if trace is not None and not inputs:
        raise ValueError("explain: argument 'trace' needs the inputs of a forward, got none")
    if isinstance(module_or_weight, torch.Tensor):
        if inputs:
            raise ValueError(f"explain: argument 'inputs' must be empty for a weight, got {len(inputs)}")
        return Explanation({"weight": service.explain_weight(module_or_weight)})
    if not isinstance(module_or_weight, nn.Module):
        raise ValueError(
            "explain: argument 'module_or_weight' must be an nn.Module or a tensor, "
            f"got {type(module_or_weight).__name__}"
        )
    times = profile(module_or_weight, *inputs, trace=trace) if inputs else None
    weights: dict[str, dict[str, Any]] = {}
    islands: dict[str, dict[str, Any]] = {}
    for name, module in module_or_weight.named_modules():
        if isinstance(module, (WeightedModule, LinearWeightOnly, *SPARSE)):
            weights[name] = service.explain_weight(module.qweight)
        elif isinstance(module, RECURRENT):
            own = [item for item in module._buffers.items() if not item[0].endswith("_scale")]
            weights.update(_explain_recurrent(name, own))
        elif isinstance(module, Embedding):
            op = "embedding" if type(module) is Embedding else "embedding_bag"
            weights[name] = _explain_rows(op, module.qweight)
        elif isinstance(module, Island):
            islands[name] = _explain_island(module)
        for call in graph_ops(module, name):
            weights.update(_explain_call(call))
    return Explanation(weights, islands, times)
