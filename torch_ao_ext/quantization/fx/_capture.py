"""Captures a model by torch.export; chosen modules stay whole, as calls in the graph.

While torch.export runs, a chosen module is an operator of this file, which knows the shapes of its
results from runs of the float model; afterwards the graph calls the module itself.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from torch_ao_ext.quantization.fx._where import located

__all__ = ["KeptModule", "examples_of", "export_whole", "kept_calls", "unchanged"]

_library = torch.library.Library("torch_ao_graph", "DEF")
_library.define("kept(Tensor[] inputs, int call) -> Tensor[]")
_kept_op = torch.ops.torch_ao_graph.kept.default


class KeptModule(nn.Module):
    """A module that a graph calls as a whole, with the tensors of one call site.

    Args:
        module: what is called.
        leaves: the call's arguments, flat; _TENSOR where a tensor of the graph goes.
        spec: how they are nested.
    """

    def __init__(self, module: nn.Module, leaves: list[Any], spec: Any) -> None:
        super().__init__()
        self.module = module
        self.leaves = leaves
        self.spec = spec
        self.fate: Any = None  # what becomes of the module: see fx/_fates.py

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of the module's result, in order."""
        given = iter(tensors)
        leaves = [next(given) if leaf is _TENSOR else leaf for leaf in self.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return [leaf.contiguous() for leaf in _tensors(self.module(*args, **kwargs))]


class _Tensor:
    """Stands for a tensor among constants; one object, in copies and pickles, too."""

    def __reduce__(self) -> str:
        return "_TENSOR"

    def __deepcopy__(self, memo: Any) -> "_Tensor":
        return self


_TENSOR = _Tensor()


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


@dataclass
class _Run:
    """One call in a run of the float model."""

    inputs: list[torch.Size]
    outputs: list[tuple[torch.Size, torch.dtype]]
    result: Any  # with shapes instead of tensors


@dataclass
class _Site:
    """A call of a kept module: what both runs saw, then what the export saw."""

    name: str
    module: nn.Module
    run: _Run
    larger: _Run | None = None  # the same call with twice the batch
    leaves: list[Any] = field(default_factory=list)
    spec: Any = None

    def sizes(self, inputs: list[torch.Tensor]) -> list[list[Any]]:
        """Sizes of the results: those of the run, with the free size of the inputs."""
        found: list[list[Any]] = [list(shape) for shape, _ in self.run.outputs]
        if self.larger is None:
            return found
        free = [
            (i, dim, a)
            for i, (before, after) in enumerate(zip(self.run.inputs, self.larger.inputs, strict=True))
            for dim, (a, b) in enumerate(zip(before, after, strict=True))
            if a != b
        ]
        for sizes, (shape, _) in zip(found, self.larger.outputs, strict=True):
            for dim, (a, b) in enumerate(zip(list(sizes), shape, strict=True)):
                if a != b and free:
                    tensor, axis, before = free[0]
                    symbol = inputs[tensor].shape[axis]
                    sizes[dim] = symbol if a == before else symbol * a // before
        return found


# Sites of the export that is running.
_sites: list[_Site] = []


def _fake(inputs: list[torch.Tensor], call: int) -> list[torch.Tensor]:
    site = _sites[call]
    dtypes = [dtype for _, dtype in site.run.outputs]
    sizes = site.sizes(inputs)
    like = inputs[0] if inputs else torch.empty(0)
    return [like.new_empty(s, dtype=d) for s, d in zip(sizes, dtypes, strict=True)]


torch.library.register_fake("torch_ao_graph::kept", _fake, lib=_library)


class _StandIn(nn.Module):
    """Where a kept module was, while torch.export runs."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__()
        self._numbers = itertools.cycle(numbers)  # an export may run the model again

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        number = next(self._numbers)
        site = _sites[number]
        leaves, site.spec = pytree.tree_flatten((args, kwargs))
        site.leaves = [_TENSOR if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        results = iter(_kept_op(tensors, number))
        return pytree.tree_map_only(_Run, lambda _: next(results), site.run.result)


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Runs inside leave statistics and random numbers as they were."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield
        for buffer, value in before:
            buffer.copy_(value)


def _observe_calls(model: nn.Module, names: list[str], inputs: tuple[Any, ...]) -> list[tuple[str, _Run]]:
    """Runs the model; what each call of the named modules took and gave."""
    calls: list[tuple[str, _Run]] = []

    def hook(name: str) -> Any:
        def record(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            outputs = [(t.shape, t.dtype) for t in _tensors(result)]
            shape = pytree.tree_map_only(torch.Tensor, lambda t: _Run([t.shape], [], None), result)
            calls.append((name, _Run([t.shape for t in _tensors((args, kwargs))], outputs, shape)))

        return record

    with contextlib.ExitStack() as stack, unchanged(model):
        for name in names:
            module = model.get_submodule(name)
            stack.callback(module.register_forward_hook(hook(name), with_kwargs=True).remove)
        model(*inputs)
    return calls


def _batch(inputs: tuple[Any, ...]) -> int | None:
    """The common first size of the tensors; None when they have none. Numbers and strings have no sizes."""
    tensors = [x for x in inputs if not isinstance(x, (bool, int, float, str, type(None)))]
    if not tensors or not all(isinstance(x, torch.Tensor) and x.dim() > 0 for x in tensors):
        return None
    sizes = {x.shape[0] for x in tensors}
    return sizes.pop() if len(sizes) == 1 else None


def _twice(inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The inputs with twice the batch; None when they have no common one."""
    if not _batch(inputs):
        return None
    return tuple(torch.cat([x, x]) if isinstance(x, torch.Tensor) else x for x in inputs)


@contextlib.contextmanager
def _stand_ins(model: nn.Module, sites: list[_Site]) -> Iterator[None]:
    """Kept modules are replaced, under each name that they have."""
    numbers: dict[int, list[int]] = {}
    for number, site in enumerate(sites):
        numbers.setdefault(id(site.module), []).append(number)
    places = [
        (parent, key, child)
        for parent in model.modules()
        for key, child in parent._modules.items()
        if child is not None and id(child) in numbers
    ]
    made = {identity: _StandIn(found) for identity, found in numbers.items()}
    for parent, key, child in places:
        parent._modules[key] = made[id(child)]
    _sites[:] = sites
    try:
        yield
    finally:
        _sites.clear()
        for parent, key, child in places:
            parent._modules[key] = child


def _export(model: nn.Module, inputs: tuple[Any, ...], free: bool) -> fx.GraphModule:
    first = {0: torch.export.Dim.AUTO}
    shapes = tuple(first if isinstance(x, torch.Tensor) else None for x in inputs) if free else None
    return torch.export.export(model, inputs, dynamic_shapes=shapes).module()


def _sites_of(model: nn.Module, names: list[str], inputs: tuple[Any, ...], more: Any) -> list[_Site]:
    first = _observe_calls(model, names, inputs)
    sites = [_Site(name, model.get_submodule(name), run) for name, run in first]
    if more is not None:
        second = _observe_calls(model, names, more)
        if [name for name, _ in second] != [name for name, _ in first]:
            raise RuntimeError("the batch changes which modules are called")
        for site, (_, run) in zip(sites, second, strict=True):
            site.larger = run
    return sites


def _call_kept(graph: fx.GraphModule, sites: list[_Site]) -> None:
    """The stand-in operators become calls of the modules, in place."""
    used: set[str] = set()
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target is not _kept_op:
            continue
        tensors, number = node.args
        site = sites[number]
        name, count = site.name, 0
        while name in used:
            count += 1
            name = f"{site.name}_{count}"
        used.add(name)
        parent: nn.Module = graph
        for part in name.split(".")[:-1]:
            if not isinstance(getattr(parent, part, None), nn.Module):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(name.split(".")[-1], KeptModule(site.module, site.leaves, site.spec))
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, tuple(tensors))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()


def kept_calls(graph: fx.GraphModule) -> dict[str, KeptModule]:
    """Name of each kept module that a graph calls -> the module."""
    found = {node.target: graph.get_submodule(node.target) for node in graph.graph.nodes
             if node.op == "call_module"}  # fmt: skip
    return {name: module for name, module in found.items() if isinstance(module, KeptModule)}


def _attempt(
    model: nn.Module, names: list[str], inputs: tuple[Any, ...], more: Any, free: bool
) -> fx.GraphModule:
    """One export; `more` are inputs that show which sizes are free."""
    if not names:
        return _export(model, inputs, free)
    sites = _sites_of(model, names, inputs, more)
    with _stand_ins(model, sites):
        graph = _export(model, inputs, free)
    _call_kept(graph, sites)
    return graph


def export_whole(op: str, model: nn.Module, inputs: tuple[Any, ...], names: list[str]) -> fx.GraphModule:
    """The graph of a model, the first dimension of every input free where the model allows it.

    Args:
        op: for messages.
        model: left as it is; its tensors are shared.
        inputs: positional inputs; what is no tensor becomes a constant of the graph.
        names: modules that the graph calls as KeptModule.

    Raises:
        ValueError: torch.export does not take the model; names the line of the user's code.
    """
    more = _twice(inputs)
    if more is not None:
        # torch.export takes a size of 1 for a constant.
        first = more if _batch(inputs) == 1 else inputs
        try:
            return _attempt(model, names, first, _twice(first), free=True)
        except Exception:  # the model needs this batch; the export below says what is wrong otherwise
            pass
    advice = "change that line, or keep the module whole (set_non_traceable_module_names)"
    with located(op, "what torch.export captures", advice):
        return _attempt(model, names, inputs, None, free=False)


def examples_of(op: str, graph: fx.GraphModule) -> tuple[Any, ...]:
    """Values such as the inputs of a graph have: zeros, numbers and strings.

    Args:
        op: for messages.
        graph: whose inputs have `meta["val"]` or `meta["tensor_meta"]`, or defaults.

    Raises:
        ValueError: an input that does not say what it is.
    """
    return tuple(_example(op, node) for node in graph.graph.nodes if node.op == "placeholder")


def _example(op: str, node: fx.Node) -> Any:
    known = node.meta.get("val", node.meta.get("tensor_meta"))
    if known is None and node.args:
        return node.args[0]  # its default
    if isinstance(known, (bool, int, float, str)):
        return known
    if not hasattr(known, "shape") or not hasattr(known, "dtype"):
        raise ValueError(
            f"{op}: argument 'model' must have inputs with meta['val'] or meta['tensor_meta'] of a tensor, "
            f"got {type(known).__name__} for '{node.name}'; run torch.fx.passes.shape_prop.ShapeProp"
        )
    sizes = [size if isinstance(size, int) else int(size.node.hint) for size in known.shape]
    return torch.zeros(sizes, dtype=known.dtype)
