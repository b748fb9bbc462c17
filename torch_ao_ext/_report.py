"""What of a model runs in int8, on which engine, and why the rest does not."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from torch_ao_ext._describe import FLOAT_REASON, has_matrix, type_name
from torch_ao_ext._float_modules import why_float_module
from torch_ao_ext._float_ops import float_ops
from torch_ao_ext._graph_ops import GraphOp, graph_ops
from torch_ao_ext._island import Island
from torch_ao_ext.nn.quantized import Embedding, LinearWeightOnly
from torch_ao_ext.nn.quantized._between import Between, ThroughFloat
from torch_ao_ext.nn.quantized._static import QuantizedOutput
from torch_ao_ext.nn.quantized._weighted import WeightedModule
from torch_ao_ext.nn.quantized.dynamic import RNNBase, RNNCellBase
from torch_ao_ext.nn.sparse import quantized as sparse
from torch_ao_ext.ops import service

__all__ = ["Report", "Row", "report"]

# Table lookups, not products: they have parameters and no MACs.
_LOOKUPS = (nn.Embedding, nn.EmbeddingBag)
RECURRENT = (RNNBase, RNNCellBase)
SPARSE = (sparse.Linear, sparse.dynamic.Linear)
_PRODUCTS = ("matmul", "attention")  # of two activations


@dataclass(frozen=True)
class Row:
    """One layer with weights, one module that runs in float, or one call of an operator in an fx graph.

    Args:
        fqn: name in the model; "" is the root.
        op: kind of layer, or the operator's name.
        status: "int8" or "float".
        engine: engine of the packed weight, or of a product without one; "not packed" or "torch".
        reason: why it is float, or why a sparse weight runs dense; else empty.
        macs: multiply-accumulates per input row (or output position); of a sparse layer those in blocks.
    """

    fqn: str
    op: str
    status: str
    engine: str
    reason: str
    macs: int = 0


@dataclass
class Report:
    """Rows and sums over a model; `str()` is a table.

    Attributes:
        rows: every layer that holds a weight matrix, every activation and norm between quantized tensors,
            every operator in a graph that computes, and every float module without parts of a quantized
            model; moves of data are no rows.
        int8: count of int8 rows by op.
        float: count of float rows by op.
        functions: those of `float` that are neither products nor lookups: norms, activations, pooling ...
        parameters: elements of weights (sparse ones: those in blocks) and biases, by "int8" and "float".
        macs: multiply-accumulates per row, by "int8" and "float".
    """

    rows: list[Row] = field(default_factory=list)
    int8: Counter = field(default_factory=Counter)
    float: Counter = field(default_factory=Counter)
    functions: Counter = field(default_factory=Counter)
    parameters: dict[str, int] = field(default_factory=lambda: {"int8": 0, "float": 0})
    macs: dict[str, int] = field(default_factory=lambda: {"int8": 0, "float": 0})

    @staticmethod
    def _percent(parts: dict[str, int]) -> dict[str, float]:
        total = sum(parts.values())
        if total == 0:
            return {"int8": 0.0, "float": 0.0}
        int8 = round(100.0 * parts["int8"] / total, 1)
        return {"int8": int8, "float": round(100.0 - int8, 1)}  # sums to 100

    @property
    def parameter_percent(self) -> dict[str, Any]:
        """Share of the parameters by status; sums to 100."""
        return self._percent(self.parameters)

    @property
    def mac_percent(self) -> dict[str, Any]:
        """Share of the multiply-accumulates by status; sums to 100."""
        return self._percent(self.macs)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "int8": dict(self.int8),
            "float": dict(self.float),
            "functions": dict(self.functions),
            "parameters": dict(self.parameters),
            "parameter_percent": self.parameter_percent,
            "macs": dict(self.macs),
            "mac_percent": self.mac_percent,
        }

    def _summary(self) -> str:
        ops = []
        for op in sorted(set(self.int8) | set(self.float - self.functions)):
            ops.append(f"{op} {self.int8[op]}/{self.int8[op] + self.float[op]}")
        besides = [f"{op} {n}" for op, n in sorted(self.functions.items()) if op not in self.int8]
        return (
            f"int8: {', '.join(ops) or 'no layers'}; "
            f"{self.parameter_percent['int8']} % of parameters, "
            f"{self.mac_percent['int8']} % of multiply-accumulates"
            + (f"; float besides: {', '.join(besides)}" if besides else "")
        )

    def __str__(self) -> str:
        head = ("layer", "op", "runs in", "engine", "reason")
        table = [head] + [
            (row.fqn or "(root)", row.op, row.status, row.engine, row.reason) for row in self.rows
        ]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([*lines, self._summary()])


def _op_name(layer: nn.Module) -> str:
    if isinstance(layer, (Embedding, LinearWeightOnly)) and layer.bits != 8:
        return f"{type(layer).__name__} ({layer.bits} bit)"
    if isinstance(layer, SPARSE):
        rows, columns = layer.block_shape
        return f"{type(layer).__name__} (sparse {rows}x{columns})"
    if isinstance(layer, RECURRENT) and layer.weight_dtype != torch.int8:
        dtypes = sorted({str(w.dtype).removeprefix("torch.") for w in layer._side()[0]}, reverse=True)
        return f"{type(layer).__name__} ({' and '.join(dtypes)} weights)"
    own = isinstance(layer, (WeightedModule, Between, *RECURRENT, Embedding, LinearWeightOnly))
    return type(layer).__name__ if own else type_name(layer).removeprefix("nn.")


def _engine(weight: torch.Tensor | None) -> str:
    if weight is None or weight.device.type != "cpu":
        return "not packed"
    states = service.explain_weight(weight)["states"]
    return states[0]["engine"] if states else "not packed"


def _dense_reason(layer: nn.Module) -> str:
    """Why a sparse layer that is packed runs dense; "" where it does not."""
    if not isinstance(layer, SPARSE) or layer.qweight.device.type != "cpu":
        return ""
    refused = [r for state in service.explain_weight(layer.qweight)["states"] for r in state["refused"]]
    return next((why for engine, why in refused if engine == "native sparse"), "")


def _graph_row(call: GraphOp) -> Row:
    if call.op in _PRODUCTS:  # the engine is chosen at each call, as it would be now
        engine = "reference" if service.info()["engine"] == "reference" else "native"
    else:  # operators without weights have one implementation, ours
        engine = _engine(call.weight) if call.macs and not call.float_reason else "native"
    status = "float" if call.float_reason else "int8"
    return Row(call.fqn, call.op, status, engine, call.float_reason, call.macs)


def _is_quantized(module: nn.Module) -> bool:
    """Whether a module makes a model a quantized one."""
    own = (WeightedModule, QuantizedOutput, LinearWeightOnly, Embedding, Island, *RECURRENT, *SPARSE)
    return isinstance(module, own) or any(True for _ in graph_ops(module, ""))


def _float_macs(module: nn.Module) -> int:
    if isinstance(module, _LOOKUPS):
        return 0
    weights = (p for p in module.parameters(recurse=False) if not is_lazy(p))
    return sum(p.numel() for p in weights if p.dim() >= 2)


def _count_parameters(model: nn.Module, result: Report) -> None:
    """Weights and biases, a shared tensor once."""
    seen: set[int] = set()
    for module in model.modules():
        calls = list(graph_ops(module, ""))
        tensors = [(p, "float") for p in module._parameters.values() if p is not None]
        if isinstance(module, (WeightedModule, *SPARSE)):
            tensors.append((module.qweight, "int8"))
            if module.qbias is not None:
                tensors.append((module.qbias, "float"))
        elif isinstance(module, LinearWeightOnly):
            if id(module.qweight) not in seen:
                seen.add(id(module.qweight))
                result.parameters["int8"] += module.in_features * module.out_features
            if module.qbias is not None:
                tensors.append((module.qbias, "float"))
        elif isinstance(module, RECURRENT):
            weights, _, biases = module._side()
            tensors += [(w, "int8") for w in weights] + [(b, "float") for b in biases]
        elif isinstance(module, Embedding) and id(module.qweight) not in seen:
            seen.add(id(module.qweight))
            result.parameters["int8"] += module.num_embeddings * module.embedding_dim
        tensors += [(call.weight, "int8") for call in calls if call.weight is not None]
        tensors += [(call.bias, "float") for call in calls if call.bias is not None]
        tensors += [(w, "int8") for call in calls for w in call.more_weights]
        tensors += [(b, "float") for call in calls for b in call.more_biases]
        tensors += [(t, "float") for call in float_ops(module, "") for t in call.tensors]
        for tensor, status in tensors:
            if id(tensor) not in seen and not is_lazy(tensor):
                seen.add(id(tensor))
                result.parameters[status] += tensor.numel()


def report(model: nn.Module) -> Report:
    """Lists what computes: int8 or float, the engine, the reason.

    Rows are the layers with weights and, in a quantized model, the modules without parts that run in
    float. In fx graphs (`torch.export`'s `module()`, traced and lowered models) each call of a torch_ao
    operator is a row, and each operator that computes in floats; its name is that of the module that
    holds the weight, or of the innermost one around it. What only moves values is no row, nor are torch
    functions that an eager model calls in its forward: nothing is run.

    Args:
        model: a Python module, converted or not.

    Returns:
        Report; print it, or read `rows`, `int8`, `float`, `to_dict()`.

    Raises:
        ValueError: not a Python module.

    Example:
        >>> import torch, torch_ao_ext
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Conv1d(4, 2, 1))
        >>> model = torch_ao_ext.quantization.quantize_dynamic(model)
        >>> [(row.fqn, row.status) for row in torch_ao_ext.report(model).rows]
        [('0', 'int8'), ('1', 'float')]
        >>> torch_ao_ext.report(model).rows[1].reason
        'no dynamic int8 module for nn.Conv1d'
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "report: argument 'model' must be a Python nn.Module (call it before torch.jit), "
            f"got {type(model).__name__}"
        )
    result = Report()
    graphs: list[str] = []  # what lies in a graph module is told by its calls
    quantized = any(map(_is_quantized, model.modules()))
    static = any(isinstance(module, QuantizedOutput) for module in model.modules())
    for name, module in model.named_modules():
        rows = [_graph_row(call) for call in graph_ops(module, name)]
        for f in float_ops(module, name):
            rows.append(Row(f.fqn, f.op, "float", "torch", f.reason, f.macs))
            result.functions.update([] if f.layer else [f.op])
        inside = any(name.startswith(prefix) for prefix in graphs)
        if isinstance(module, fx.GraphModule):
            graphs.append(f"{name}." if name else "")
        if isinstance(module, (WeightedModule, LinearWeightOnly, *SPARSE)):
            four = isinstance(module, LinearWeightOnly)  # whose bytes may hold two weights
            macs = module.in_features * module.out_features if four else module.qweight.numel()
            rows.append(
                Row(name, _op_name(module), "int8", _engine(module.qweight), _dense_reason(module), macs)
            )
        elif isinstance(module, RECURRENT):
            weights = module._side()[0]
            macs = sum(w.numel() for w in weights)
            rows.append(Row(name, _op_name(module), "int8", _engine(weights[0]), "", macs))
        elif isinstance(module, Embedding):
            rows.append(Row(name, _op_name(module), "int8", "native", ""))
        elif isinstance(module, Between):
            reason = module.float_reason() if isinstance(module, ThroughFloat) else ""
            if getattr(module, "got_floats", False):
                reason = "its input was float"
            status, engine = ("float", "torch") if reason else ("int8", "native")
            rows.append(Row(name, _op_name(module), status, engine, reason))
        elif has_matrix(module) and not (inside and type(module) is nn.Module):
            reason = getattr(module, FLOAT_REASON, "not converted by torch_ao_ext")
            rows.append(Row(name, _op_name(module), "float", "torch", reason, _float_macs(module)))
        elif quantized and ".parametrizations." not in f".{name}.":
            reason = why_float_module(module, static, inside)
            if reason:
                rows.append(Row(name, _op_name(module), "float", "torch", reason))
                result.functions[rows[-1].op] += 1
        for row in rows:
            result.rows.append(row)
            getattr(result, row.status)[row.op] += 1
            result.macs[row.status] += row.macs
    _count_parameters(model, result)
    return result
