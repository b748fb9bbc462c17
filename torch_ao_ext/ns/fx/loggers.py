"""Modules that record the values of a graph."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.ns.fx.ns_types import NSSingleResultType
from torch_ao_ext.ns.fx.utils import compute_sqnr

__all__ = ["OutputComparisonLogger", "OutputLogger"]


class OutputLogger(nn.Module):
    """Records each value that passes in `stats`.

    Args:
        ref_node_name: node of the operator.
        prev_node_name: node whose value is recorded.
        model_name: model that the operator is in.
        ref_name: the same for the operators of both models.
        prev_node_target_type: operator of prev_node.
        ref_node_target_type: operator of ref_node.
        results_type: "node_output" or "node_input".
        index_within_arg: place in a list of tensors.
        index_of_arg: which argument of the operator.
        fqn: module that the operator lies in.
        qconfig_str: QConfig of a candidate.
    """

    _is_impure = True  # nobody may read what it returns

    def __init__(
        self, ref_node_name: str, prev_node_name: str, model_name: str, ref_name: str,
        prev_node_target_type: str, ref_node_target_type: str, results_type: str, index_within_arg: int,
        index_of_arg: int, fqn: str | None, qconfig_str: str | None = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.stats: list[torch.Tensor] = []
        self.ref_node_name = ref_node_name
        self.prev_node_name = prev_node_name
        self.model_name = model_name
        self.ref_name = ref_name
        self.prev_node_target_type = prev_node_target_type
        self.ref_node_target_type = ref_node_target_type
        self.results_type = results_type
        self.index_within_arg = index_within_arg
        self.index_of_arg = index_of_arg
        self.fqn = fqn
        self.qconfig_str = qconfig_str
        self.enabled = True
        self.save_activations = True

    def forward(self, x: Any) -> Any:
        """Records a tensor, passes it."""
        if self.enabled and self.save_activations and isinstance(x, torch.Tensor):
            self.stats.append(x.detach())
        return x

    def result(self) -> NSSingleResultType:
        """The record, as the results of the numeric suite have it."""
        return {
            "values": self.stats,
            "type": self.results_type,
            "prev_node_name": self.prev_node_name,
            "prev_node_target_type": self.prev_node_target_type,
            "ref_node_name": self.ref_node_name,
            "ref_node_target_type": self.ref_node_target_type,
            "index_within_arg": self.index_within_arg,
            "index_of_arg": self.index_of_arg,
            "fqn": self.fqn,
            "qconfig_str": self.qconfig_str,
        }

    def extra_repr(self) -> str:
        """What it records."""
        return f"{self.model_name}, {self.ref_node_name}, {self.results_type}, {len(self.stats)} values"


class OutputComparisonLogger(OutputLogger):
    """Records, besides x, what `comparison_fn(reference, x)` says of it; SQNR by default.

    Args:
        args: as OutputLogger.
        kwargs: as OutputLogger.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.comparison_fn = compute_sqnr
        self.comparison_fn_name = "sqnr"
        self.comparisons: list[Any] = []

    def forward(self, x: Any, x_ref: Any) -> Any:
        """Compares x with x_ref, passes x."""
        if self.enabled:
            self.comparisons.append(self.comparison_fn(x_ref, x))
            if self.save_activations:
                self.stats.append(x.detach())
        return x

    def result(self) -> NSSingleResultType:
        """The record, with the comparisons."""
        named = {"comparisons": self.comparisons, "comparison_fn_name": self.comparison_fn_name}
        return {**super().result(), **named}
