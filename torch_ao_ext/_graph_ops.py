"""The library's operators in an fx graph: exported, traced or lowered modules."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._island import Island
from torch_ao_ext.ops.island import ProgramStep, read_program

__all__ = [
    "ATTENTION_REASON", "FUSED", "REASON", "SECOND_FACTORS", "Fused", "GraphOp", "arguments_of",
    "attribute_of", "graph_ops", "island_of", "module_types", "owner", "product_macs", "sizes_of",
]  # fmt: skip

# Key in a node's meta: why `lower` left the operator float.
REASON = "torch_ao_reason"
ATTENTION_REASON = "one float operator; int8 when the quantizer has a config for torch.matmul"
# Key in the meta of an operator that `lower` made: a Fused.
FUSED = "torch_ao_fused"


@dataclass(frozen=True)
class Fused:
    """Where an operator of a lowered graph comes from.

    Args:
        nodes: names of the float operators in the converted (and prepared) graph, first to last.
        output: (scale, zero_point) of an integer result, None for floats.
    """

    nodes: tuple[str, ...]
    output: tuple[float, int] | None


@dataclass(frozen=True)
class GraphOp:
    """One call of an operator.

    Args:
        fqn: the module that holds the weight; the node's name when there is none.
        op: operator name, e.g. "linear_dynamic".
        weight: its int8 weight, None for an operator without one.
        bias: its float bias or None.
        macs: multiply-accumulates per input row: elements of the weight.
        float_reason: why it computes in float; "" for one that computes on integers.
        more_weights: of a recurrent operator, those after the first one.
        more_biases: the same of its biases.
        weight_names: of a recurrent operator, the names that all its weights have in the float layer.
    """

    fqn: str
    op: str
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    macs: int
    float_reason: str = ""
    more_weights: tuple[torch.Tensor, ...] = ()
    more_biases: tuple[torch.Tensor, ...] = ()
    weight_names: tuple[str, ...] = ()


aten = torch.ops.aten
# Operators that multiply values, and the name of the second factor of each product.
SECOND_FACTORS = {
    torch.ops.torch_ao.matmul.default: ("other",),
    torch.ops.torch_ao.attention.default: ("key", "value"),
    torch.ops.torch_ao.scaled_dot_product_attention.default: ("key", "value"),
    aten.scaled_dot_product_attention.default: ("key", "value"),
}
_CELL_WEIGHTS = ["weight_ih", "weight_hh"]


def attribute_of(module: nn.Module, node: Any) -> torch.Tensor | None:
    """The tensor that a get_attr node reads; None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, name = node.target.rpartition(".")
    value = getattr(module.get_submodule(owner), name, None)
    return value if isinstance(value, torch.Tensor) else None


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Arguments of an operator by name."""
    names = [argument.name for argument in node.target._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def owner(node: fx.Node) -> str:
    """Name of the innermost module that a node lies in, the node's own when unknown."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    name = stack[-1][0] if stack else ""
    for prefix in ("L['self'].", "L__self__."):
        name = name.removeprefix(prefix)
    return name or node.name


def module_types(node: fx.Node) -> list[str]:
    """Qualified class names of the modules that a node lies in, the outermost first."""
    kinds = [kind for _, kind in node.meta.get("nn_module_stack", {}).values()]
    return [k if isinstance(k, str) else f"{k.__module__}.{k.__qualname__}" for k in kinds]


def _matrix(value: Any) -> int:
    """Elements of one matrix of a batch, 0 when its sizes are unknown or free."""
    sizes = value.shape[-2:] if isinstance(value, torch.Tensor) else ()
    return torch.Size(sizes).numel() if len(sizes) == 2 and all(isinstance(s, int) for s in sizes) else 0


def product_macs(node: fx.Node) -> int:
    """Multiply-accumulates of products of two values: one matrix of each second factor; else 0."""
    names = SECOND_FACTORS.get(node.target, ())
    factors = (arguments_of(node)[name] for name in names)
    return sum(_matrix(getattr(factor, "meta", {}).get("val")) for factor in factors)


def _macs(op: str, weight: torch.Tensor | None, packed: bool) -> int:
    if weight is None or op.startswith("embedding"):  # a lookup is no product, and has no packed weight
        return 0
    return weight.numel() * (2 if packed else 1)  # two weights of 4 bits are a byte


def _row(fqn: str, op: str, weight: torch.Tensor | None, bias: torch.Tensor | None, macs: int) -> GraphOp:
    norm = "norm" in op  # a float factor, no product
    reason = ATTENTION_REASON if op == "scaled_dot_product_attention" else ""
    return GraphOp(fqn, op, None if norm else weight, bias, 0 if norm else macs, reason)


def _weight_names(count: int, layers: int, bidirectional: bool) -> list[str]:
    """Of the weights of an LSTM, GRU or RNN in the float layer, in the operators' order."""
    ends = [f"_l{layer}{end}" for layer in range(layers) for end in ("", "_reverse")[: 1 + bidirectional]]
    parts = ("ih", "hh", "hr")[: count // len(ends)]
    return [f"weight_{part}{end}" for end in ends for part in parts]


def _recurrent_row(
    fqn: str, op: str, weights: list, biases: list, macs: int, names: list[str]
) -> GraphOp:
    """Without the tensors that are no constants."""
    known = [(t, name) for t, name in zip(weights, names, strict=True) if t is not None]
    weights, biases = [t for t, _ in known], [t for t in biases if t is not None]
    first_weight, first_bias = (next(iter(tensors), None) for tensors in (weights, biases))
    return GraphOp(
        fqn, op, first_weight, first_bias, macs, "", tuple(weights[1:]), tuple(biases[1:]),
        tuple(name for _, name in known),
    )  # fmt: skip


def _describe_recurrent(module: fx.GraphModule, node: fx.Node, prefix: str) -> GraphOp:
    """Of an operator with several weights: a list, or an argument for each."""
    a = arguments_of(node)
    sources = a["weights"] if "weights" in a else [a["weight_ih"], a["weight_hh"]]
    biases = a["biases"] if "weights" in a else [a.get("bias_ih"), a.get("bias_hh")]
    weights, floats = ([attribute_of(module, source) for source in of] for of in (sources, biases))
    op = node.target._schema.name.split("::")[1]
    macs = sum(size.numel() for size in sizes_of(module, sources))
    names = _CELL_WEIGHTS
    if "weights" in a:
        names = _weight_names(len(sources), a.get("num_layers", 1), a.get("bidirectional", False))
    return _recurrent_row(prefix + owner(node), op, weights, floats, macs, names)


def _describe(module: fx.GraphModule, node: fx.Node, prefix: str) -> GraphOp:
    arguments = arguments_of(node)
    if "weights" in arguments or "weight_ih" in arguments:
        return _describe_recurrent(module, node, prefix)
    source = arguments.get("weight")
    weight = attribute_of(module, source)
    # Weights of lowered graphs lie at the root: there the node knows its module.
    fqn = source.target.rpartition(".")[0] if weight is not None else ""
    # A weight that is an input of the graph is known by its shape only.
    known = weight if weight is not None else getattr(source, "meta", {}).get("val")
    op = node.target._schema.name.split("::")[1]
    macs = _macs(op, known, bool(arguments.get("group_size")))
    macs = product_macs(node) or macs
    bias = attribute_of(module, arguments.get("bias"))
    return _row(prefix + (fqn or owner(node)), op, weight, bias, macs)


def _describe_step(step: ProgramStep, constants: list[torch.Tensor | None], prefix: str) -> GraphOp:
    def constant(name: str) -> torch.Tensor | None:
        token = step.argument(name)
        return constants[int(token[1:])] if token is not None and token.startswith("@") else None

    op = step.target._schema.name.split("::")[1]
    if op in ("lstm_cell", "gru_cell", "rnn_cell"):
        weights, biases = (
            [constant(f"{what}_ih"), constant(f"{what}_hh")] for what in ("weight", "bias")
        )
        macs = sum(w.numel() for w in weights if w is not None)
        return _recurrent_row(prefix + step.label, op, weights, biases, macs, _CELL_WEIGHTS)
    weight = constant("weight")
    packed = (step.argument("group_size") or "i0") != "i0"
    macs = step.macs or _macs(op, weight, packed)
    return _row(prefix + step.label, op, weight, constant("bias"), macs)


def island_of(module: fx.GraphModule, node: fx.Node) -> tuple[str, list[torch.Tensor | None]] | None:
    """Program and constants of an island, as module or operator; None for anything else."""
    if node.op == "call_module":
        called = module.get_submodule(str(node.target))
        return (called.program, list(called.constants)) if isinstance(called, Island) else None
    if node.target is not torch.ops.torch_ao.island.default:
        return None
    given = arguments_of(node)
    return given["program"], [attribute_of(module, source) for source in given["constants"]]


def _counts(schema: Any) -> bool:
    """Operators of ours that compute: neither internal ones nor a copy."""
    space, _, op = schema.name.partition("::")
    return space == "torch_ao" and not op.startswith("_") and op != "contiguous"


def graph_ops(module: nn.Module, name: str) -> Iterator[GraphOp]:
    """Calls of torch_ao operators in a graph module, in order; nothing for other modules.

    Args:
        module: any module; its children are not looked at.
        name: its name in the model, "" for the root.
    """
    if not isinstance(module, fx.GraphModule):
        return
    prefix = f"{name}." if name else ""
    for node in module.graph.nodes:
        island = island_of(module, node)
        if island is not None:
            steps = [s for s in read_program(island[0])[0] if _counts(s.target._schema)]
            yield from (_describe_step(step, island[1], prefix) for step in steps)
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            if _counts(node.target._schema):
                yield _describe(module, node, prefix)


def sizes_of(module: nn.Module, source: Any) -> list[torch.Size]:
    """Of the tensors that a node, or each of a list of nodes, stands for; those that are known."""
    sources = source if isinstance(source, (list, tuple)) else [source]
    values = [attribute_of(module, s) for s in sources]
    values = [
        s.meta.get("val") if v is None and isinstance(s, fx.Node) else v
        for s, v in zip(sources, values, strict=True)
    ]
    return [v.shape for v in values if isinstance(v, torch.Tensor)]
