"""Parts of n-shadows models: results by layer, weights of candidates, graphs of a few nodes."""

from typing import Any

import torch
from torch import fx

from torch_ao_ext._lower._merge import unmerged
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.ns.fx._shadow_path import create_add_loggers_graph
from torch_ao_ext.ns.fx._shadows import (
    chain,
    create_n_transformed_and_logged_copies_of_subgraph,
    create_one_transformed_and_logged_copy_of_subgraph,
)
from torch_ao_ext.ns.fx.loggers import OutputComparisonLogger
from torch_ao_ext.ns.fx.ns_types import NSResultsType, NSSingleResultValuesType
from torch_ao_ext.ns.fx.utils import compute_sqnr
from torch_ao_ext.ns.fx.weight_utils import extract_weight_from_node

__all__ = [
    "OutputProp",
    "create_add_loggers_graph",
    "create_n_transformed_and_logged_copies_of_subgraph",
    "create_one_transformed_and_logged_copy_of_subgraph",
    "create_results_comparison",
    "create_submodule_from_subgraph",
    "extract_weight_comparison",
    "group_results_by_subgraph",
    "print_n_shadows_summary",
]

_WEIGHT = NSSingleResultValuesType.WEIGHT.value


class OutputProp:
    """Notes the tensor that each node gives for an input, in its attribute `traced_result`.

    Args:
        mod: graph module.
    """

    def __init__(self, mod: fx.GraphModule) -> None:
        self.mod = mod

    def propagate(self, *args: Any) -> None:
        """Runs the graph on args."""

        class Noting(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                result = super().run_node(n)
                if isinstance(result, torch.Tensor):
                    n.traced_result = result  # type: ignore[attr-defined]
                return result

        Noting(self.mod, garbage_collect_values=False).run(*args)


def create_submodule_from_subgraph(
    model: fx.GraphModule, first_node: fx.Node, last_node: fx.Node
) -> fx.GraphModule:
    """A graph of the nodes from first to last, each the first argument of the next.

    Args:
        model: of the nodes; modules are shared.
        first_node: its arguments are the first inputs of the result; what later nodes read besides, and
            weights that nodes read, follow.
        last_node: gives the result.

    Raises:
        ValueError: no such way from last to first.
    """
    nodes = chain("create_submodule_from_subgraph", first_node, last_node)
    graph, known = fx.Graph(), {}
    for node in nodes:
        for source in node.all_input_nodes:
            if source not in nodes and source not in known:
                known[source] = graph.placeholder(f"{source.name}_0")
    for node in nodes:
        known[node] = graph.node_copy(node, lambda n: known[n])
    graph.output(known[last_node])
    return fx.GraphModule(model, graph)


def extract_weight_comparison(m: fx.GraphModule) -> NSResultsType:
    """Float and int8 weights of the layers of a converted n-shadows model, with their SQNR in dB.

    Args:
        m: from `convert_n_shadows_model`.

    Returns:
        {"model": {"weight": {"subgraph_I_0": float layer I, "subgraph_I_J": its candidate J}}}; layers
        and candidates without an int8 weight are not in it.
    """
    found: dict[str, Any] = {}
    by_name = {node.name: node for node in m.graph.nodes}
    for name, logger in m.named_children():
        if not isinstance(logger, OutputComparisonLogger):
            continue
        reference = extract_weight_from_node(by_name[logger.ref_node_name], m)
        shadow = unmerged(m.get_submodule(name.removesuffix("_logger")))
        results = [extract_weight_from_node(node, shadow) for node in shadow.graph.nodes]
        weights = [r["values"][0] for r in results if r is not None]
        if reference is None or not weights or not isinstance(weights[0], QuantizedTensor):
            continue
        value = reference["values"][0]
        more = {"comparisons": [compute_sqnr(value, weights[0])], "comparison_fn_name": "sqnr"}
        base = f"{logger.model_name.rpartition('_')[0]}_0"
        found[base] = [{**reference, **more, "qconfig_str": ""}]
        same = {**reference, "values": [weights[0]]}
        found[logger.model_name] = [{**same, **more, "qconfig_str": logger.qconfig_str}]
    return {"model": {_WEIGHT: found}}


def group_results_by_subgraph(results: NSResultsType) -> dict[str, dict[str, dict[str, Any]]]:
    """Layer -> candidate -> its result, "0" for the float layer.

    Args:
        results: of `extract_results_n_shadows_model` or `extract_weight_comparison`.
    """
    keys = ("ref_node_name", "ref_node_target_type", "fqn", "values", "qconfig_str")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, (result, *_) in next(iter(results["model"].values())).items():
        layer, _, candidate = name.rpartition("_")
        found.setdefault(layer, {})[candidate] = {
            **{key: result[key] for key in keys},
            "comparisons": result.get("comparisons", []),
            "comparison_fn_name": result.get("comparison_fn_name", ""),
        }
    return found


def create_results_comparison(results_grouped: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Layer -> its node, and for each candidate the measures of all runs and their mean.

    Args:
        results_grouped: of `group_results_by_subgraph`.

    Returns:
        {"subgraph_I": {"ref_node_name", "ref_node_target_type", "fqn", "candidates": {"J": {"qconfig_str",
        "comparison_fn_name", "cmp_raw": tensor [runs], "cmp_mean": scalar, NaN without a run}}}}.
    """
    found = {}
    for name, results in results_grouped.items():
        candidates = {}
        for candidate, result in results.items():
            if candidate == "0":
                continue
            raw = [torch.as_tensor(value) for value in result["comparisons"]]
            stacked = torch.stack(raw) if raw else torch.zeros(0)
            candidates[candidate] = {
                "qconfig_str": result["qconfig_str"],
                "comparison_fn_name": result["comparison_fn_name"],
                "cmp_raw": stacked,
                "cmp_mean": stacked.mean(),
            }
        keys = ("ref_node_name", "ref_node_target_type", "fqn")
        found[name] = {**{key: results["0"][key] for key in keys}, "candidates": candidates}
    return found


def print_n_shadows_summary(results_comparison: dict[str, Any]) -> None:
    """Prints a table: layers, and the mean of each candidate; - where it has none.

    Args:
        results_comparison: of `create_results_comparison`.
    """
    count = max((int(j) for row in results_comparison.values() for j in row["candidates"]), default=0)
    rows = [["node_name", "node_type", "fqn", *map(str, range(count))]]
    for layer in results_comparison.values():
        row = [layer["ref_node_name"], layer["ref_node_target_type"], layer["fqn"] or ""]
        for j in range(1, count + 1):
            candidate = layer["candidates"].get(str(j))
            known = candidate is not None and len(candidate["cmp_raw"])
            row.append(f"{float(candidate['cmp_mean']):.1f}" if known else "-")
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
