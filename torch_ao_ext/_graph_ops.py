"""The library's operators in an fx graph: exported, traced or lowered modules."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

__all__ = ["GraphOp", "graph_ops"]


@dataclass(frozen=True)
class GraphOp:
    """One call of an operator.

    Args:
        fqn: the module that holds the weight; the node's name when there is none.
        op: operator name, e.g. "linear_dynamic".
        weight: its int8 weight, None for an operator without one.
        bias: its float bias or None.
        macs: multiply-accumulates per input row: elements of the weight.
    """

    fqn: str
    op: str
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    macs: int


def _attribute(module: nn.Module, node: Any) -> torch.Tensor | None:
    """The tensor that a get_attr node reads; None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, name = node.target.rpartition(".")
    value = getattr(module.get_submodule(owner), name, None)
    return value if isinstance(value, torch.Tensor) else None


def _arguments(node: fx.Node) -> dict[str, Any]:
    names = [argument.name for argument in node.target._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _describe(module: fx.GraphModule, node: fx.Node, prefix: str) -> GraphOp:
    arguments = _arguments(node)
    source = arguments.get("weight")
    weight = _attribute(module, source)
    fqn = node.name if weight is None else source.target.rpartition(".")[0] or node.name
    # A weight that is an input of the graph is known by its shape only.
    known = weight if weight is not None else getattr(source, "meta", {}).get("val")
    op = node.target._schema.name.split("::")[1]
    lookup = op.startswith("embedding")  # no product, and no packed weight
    macs = 0 if known is None or lookup else known.numel()
    if arguments.get("group_size"):  # linear_weight_only with two weights a byte
        macs *= 2
    bias = _attribute(module, arguments.get("bias"))
    return GraphOp(prefix + fqn, op, weight, bias, macs)


def graph_ops(module: nn.Module, name: str) -> Iterator[GraphOp]:
    """Calls of torch_ao operators in a graph module, in order; nothing for other modules.

    Args:
        module: any module; its children are not looked at.
        name: its name in the model, "" for the root.
    """
    if not isinstance(module, fx.GraphModule):
        return
    for node in module.graph.nodes:
        target = node.target
        if node.op == "call_function" and isinstance(target, torch._ops.OpOverload):
            space, _, op = target._schema.name.partition("::")
            if space == "torch_ao" and not op.startswith("_"):
                yield _describe(module, node, f"{name}." if name else "")
