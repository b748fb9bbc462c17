"""Graph modules that pickle with what their nodes know: names, modules of the user, sizes.

fx pickles the code of a graph and traces it again, which loses all of that, and what torch.export
adds to a module does not pickle at all.
"""

import pickle
import warnings
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import _PyTreeCodeGen

from torch_ao_ext._graph_ops import module_types
from torch_ao_ext.quantization import _decomposed

__all__ = ["FREE_SIZES", "NOTES", "TRAIN_EVAL", "WRITTEN", "PortableGraphModule", "target_of", "target_state"]

# Key in the meta of a restored input: dimensions of any size.
FREE_SIZES = "torch_ao_free_sizes"

# Key in the meta of a graph: what FX graph mode has decided for its nodes (fx/_notes.py).
NOTES = "_observed_graph_module_attrs"

# Mark of get_attr nodes whose buffer the graph writes to: no constants.
WRITTEN = "torch_ao_ext_written"

_KEPT_META = ("stack_trace", "torch_ao_reason", "torch_ao_fused", WRITTEN)
# Of torch.export: checks on Python numbers, which the lowered graph replaces by its own.
_CHECKS = "_guards_fn"
_SKIPPED = (
    "_graph", "_code", "_lineno_map", "_prologue_start", "_tracer_cls", "_tracer_extras", "train", "eval",
)  # fmt: skip
_HOOKS = (
    "_forward_pre_hooks", "_forward_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs",
)  # fmt: skip
# Attribute that says what train() and eval() do; see export_utils.
TRAIN_EVAL = "_torch_ao_ext_train_eval"


class _Reference:
    """Stands for a node among arguments."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Format:
    """Stands for a memory format, which torch.save does not write."""

    def __init__(self, format: torch.memory_format) -> None:
        self.name = str(format).removeprefix("torch.")


def _portable(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return _Reference(value.name)
    return _Format(value) if isinstance(value, torch.memory_format) else value


def target_state(target: Any) -> tuple[Any, ...]:
    """A target of a node in a form that pickles."""
    if isinstance(target, torch._ops.OpOverload):
        return ("op", *target._schema.name.split("::"), target._overloadname)
    return ("", target)


def target_of(state: tuple[Any, ...]) -> Any:
    """The target of `target_state`."""
    if state[0] != "op":
        return state[1]
    _, space, name, overload = state
    if space == "quantized_decomposed":
        _decomposed.operators()  # defined on first use
    return getattr(getattr(getattr(torch.ops, space), name), overload)


def _hint(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _meta(node: fx.Node) -> dict[str, Any]:
    found = {key: node.meta[key] for key in _KEPT_META if key in node.meta}
    stack = zip(node.meta.get("nn_module_stack", {}).items(), module_types(node), strict=True)
    found["nn_module_stack"] = {str(key): (str(name), kind) for (key, (name, _)), kind in stack}
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        symbols = [(d, s) for d, s in enumerate(value.shape) if not isinstance(s, int)]
        free = [d for d, s in symbols if s.node.maybe_as_int() is None]
        found["val"] = ([_hint(s) for s in value.shape], value.dtype)
        found[FREE_SIZES] = node.meta.get(FREE_SIZES, free)
    return found


def _restored_meta(meta: dict[str, Any]) -> dict[str, Any]:
    if "val" in meta:
        sizes, dtype = meta["val"]
        meta = {**meta, "val": torch.empty(sizes, dtype=dtype, device="meta")}
    return meta


def _users_hooks(hooks: Any) -> dict[int, Any]:
    """Without those that torch.export has put there."""
    return {k: f for k, f in hooks.items() if not getattr(f, "__module__", "").startswith("torch.")}


def _attempt(verb: str, step: Any, value: Any) -> dict[str, Any]:
    """Notes that name classes and factories of the user; the graph can do without."""
    try:
        return {NOTES: step(value)}
    except (pickle.PickleError, AttributeError, ImportError, TypeError) as error:
        warnings.warn(f"meta[{NOTES!r}] of a graph is left out, it cannot be {verb}: {error}", stacklevel=3)
        return {}


class PortableGraphModule(fx.GraphModule):
    """A graph module that copies and pickles whole."""

    def __reduce__(self) -> tuple[Any, ...]:
        nodes = []
        for node in self.graph.nodes:
            if node.op == "call_module" and node.target == _CHECKS:
                continue
            args, kwargs = (fx.node.map_aggregate(a, _portable) for a in (node.args, node.kwargs))
            nodes.append((node.op, node.name, target_state(node.target), args, kwargs, _meta(node)))
        state = {key: value for key, value in self.__dict__.items() if key not in _SKIPPED}
        state["_modules"] = {k: m for k, m in self._modules.items() if k != _CHECKS}
        for hooks in _HOOKS:
            state[hooks] = _users_hooks(state.get(hooks, {}))
        own = ("_user_preserved_attributes", "_torch_ao_ext")
        state["meta"] = {k: v for k, v in self.meta.items() if str(k).startswith(own)}
        if NOTES in self.meta:
            state["meta"] |= _attempt("pickled", pickle.dumps, self.meta[NOTES])
        codegen = self.graph._codegen
        trees = isinstance(codegen, _PyTreeCodeGen)
        unpacking = (type(codegen), codegen.pytree_info) if trees else None
        return _restored, (type(self).__mro__[1], nodes, state, unpacking)


def _restored(
    kind: type[fx.GraphModule], nodes: list[Any], state: dict[str, Any], unpacking: Any
) -> fx.GraphModule:
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}

    def resolved(value: Any) -> Any:
        if isinstance(value, _Reference):
            return made[value.name]
        if isinstance(value, _Format):
            return getattr(torch, value.name)
        if isinstance(value, tuple):
            return tuple(resolved(part) for part in value)
        if isinstance(value, list):
            return [resolved(part) for part in value]
        if isinstance(value, slice):
            return slice(resolved(value.start), resolved(value.stop), resolved(value.step))
        if isinstance(value, dict):
            return {key: resolved(part) for key, part in value.items()}
        return value

    for op, name, target, args, kwargs, meta in nodes:
        arguments = (resolved(tuple(args)), resolved(dict(kwargs)))
        node = graph.create_node(op, target_of(target), *arguments, name)
        node.meta = _restored_meta(meta)
        made[name] = node
    if unpacking is not None:
        graph._codegen = unpacking[0](unpacking[1])
    root = nn.Module()
    root.__dict__.update(state)
    result = kind(root, graph)
    for key, value in state.items():
        if key not in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            result.__dict__[key] = value
    if NOTES in result.meta:
        result.meta |= _attempt("loaded", pickle.loads, result.meta.pop(NOTES))
    result.graph.lint()
    settle = state.get(TRAIN_EVAL)
    return result if settle is None else settle(result)
