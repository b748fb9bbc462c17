"""Steps on fx graphs that prepare, convert and lower share."""

import copy
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext.quantization.pt2e._portable import TRAIN_EVAL, WRITTEN, PortableGraphModule

# What a copy of a graph module takes along besides tensors and modules.
HOOKS = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs",
)  # fmt: skip


# Attributes that each graph module has for itself.
_OWN_EACH = ("train", "eval", TRAIN_EVAL, "_tracer_cls", "_tracer_extras")


def check_graph_module(function: str, model: Any) -> None:
    """Raises unless model is an fx.GraphModule, as torch.export makes."""
    if not isinstance(model, fx.GraphModule):
        raise TypeError(
            f"{function}: argument 'model' must be an exported graph module, as from "
            f"torch.export.export(model, example_inputs).module(), got {type(model).__name__}"
        )


def copy_graph_module(
    model: fx.GraphModule, kind: type[fx.GraphModule] = PortableGraphModule
) -> fx.GraphModule:
    """A module with its own graph and attributes; tensors and child modules are shared.

    Args:
        model: left as it is, whatever is done to the copy.
        kind: class of the copy.
    """
    graph = fx.Graph()  # torch.export's own tracer cannot be built again, as pickle does
    value, old = graph.graph_copy(model.graph, {}, return_output_node=True)
    graph.output(value).meta = copy.copy(old.meta)
    graph._codegen = model.graph._codegen  # how inputs are unpacked; never changed
    result = kind(model, graph)
    result.meta = copy.copy(getattr(model, "meta", {}))
    take_attributes(result, model)
    return result


def take_attributes(result: fx.GraphModule, model: fx.GraphModule) -> None:
    """What a graph module has besides graph, tensors and modules: hooks, and attributes that it lacks."""
    for name in HOOKS:
        getattr(result, name).update(getattr(model, name))
    for name, value in model.__dict__.items():
        if name not in result.__dict__ and name not in _OWN_EACH:
            result.__dict__[name] = value
    result.training = model.training


def tensor_of(model: nn.Module, node: Any) -> torch.Tensor | None:
    """The constant of a get_attr node; None for anything else, and for buffers that the graph writes to."""
    if not isinstance(node, fx.Node) or node.op != "get_attr" or node.meta.get(WRITTEN):
        return None
    owner, _, name = node.target.rpartition(".")
    value = getattr(model.get_submodule(owner), name, None)
    return value if isinstance(value, torch.Tensor) else None


def free_name(model: nn.Module, prefix: str) -> str:
    """prefix, or prefix with the first number that no attribute of the root has."""
    name, count = prefix, 0
    while hasattr(model, name):
        count += 1
        name = f"{prefix}_{count}"
    return name


def add_constant(model: fx.GraphModule, name: str, value: torch.Tensor, replaces: Any = None) -> fx.Node:
    """Registers a buffer at a (dotted) name and returns its get_attr node.

    The caller sets the insertion point.

    Args:
        model: gets the buffer.
        name: taken with a number behind it when it is in use.
        value: the tensor.
        replaces: a get_attr node that is about to lose its only reader; its name is free then.
    """
    if isinstance(replaces, fx.Node) and replaces.target == name and len(replaces.users) == 1:
        readers = [n for n in model.graph.nodes if n.op == "get_attr" and n.target == name]
        if readers == [replaces]:
            path, _, old = name.rpartition(".")
            delattr(model.get_submodule(path), old)
    owner, _, leaf = name.rpartition(".")
    parent = model
    for part in owner.split(".") if owner else ():
        if not isinstance(getattr(parent, part, None), nn.Module):
            parent.add_module(part, nn.Module())
        parent = getattr(parent, part)
    count = 0
    fresh = leaf
    while hasattr(parent, fresh):
        count += 1
        fresh = f"{leaf}_{count}"
    parent.register_buffer(fresh, value)
    node = model.graph.get_attr(f"{owner}.{fresh}" if owner else fresh)
    set_value(node, value)
    return node


def set_value(node: fx.Node, value: torch.Tensor, like: fx.Node | None = None) -> None:
    """Notes shape and dtype of a constant, as a fake tensor of the graph's mode."""
    for other in node.graph.nodes if like is None else (like,):
        mode = getattr(other.meta.get("val"), "fake_mode", None)
        if mode is not None:
            node.meta["val"] = mode.from_tensor(value, static_shapes=True)
            return


def where(node: fx.Node) -> str:
    """The node's name, its module and the line of the user's model, for messages."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    text = f"node '{node.name}'"
    if stack and stack[-1][0]:
        text += f" in module '{stack[-1][0]}'"
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ")]
    return f"{text} ({places[-1]})" if places else text


def inherit_meta(node: fx.Node, source: fx.Node) -> None:
    """A node made for another one keeps its place in the user's model."""
    for key in ("nn_module_stack", "stack_trace", "source_fn_stack", "torch_fn", "val", "tensor_meta"):
        if key in source.meta:
            node.meta[key] = source.meta[key]


def replace_node(node: fx.Node, new: fx.Node) -> None:
    """Puts a node made for another one in its place, in the user's model as well."""
    inherit_meta(new, node)
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def retype(node: fx.Node, dtype: torch.dtype) -> None:
    """Notes that a node's values are of this dtype now."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        node.meta["val"] = node.meta["val"].to(dtype)
        node.meta.pop("tensor_meta", None)


def reads_sizes_only(node: fx.Node) -> bool:
    """Whether a user of a tensor looks at its shape and not at its values."""
    if node.op == "call_module" and node.target == "_guards_fn":
        return True
    return node.op == "call_function" and node.target in (
        torch.ops.aten.sym_size.int,
        torch.ops.aten.sym_size.default,
        torch.ops.aten.sym_numel.default,
        torch.ops.aten.sym_stride.int,
    )


def remove_unused(model: fx.GraphModule) -> None:
    """Drops nodes that nobody reads, and the tensors and modules that no node names."""
    graph = model.graph
    graph.eliminate_dead_code()  # keeps checks of inputs: their modules are impure
    for node in reversed(list(graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    model.delete_all_unused_submodules()
    used = {node.target for node in graph.nodes if node.op == "get_attr"}
    for prefix, module in list(model.named_modules()):
        if _inside_call(model, prefix):
            continue
        for store in (module._parameters, module._buffers):
            for leaf in list(store):
                if (f"{prefix}.{leaf}" if prefix else leaf) not in used:
                    del store[leaf]
        module._non_persistent_buffers_set &= set(module._buffers)
    model.recompile()


def _inside_call(model: fx.GraphModule, prefix: str) -> bool:
    """Whether the module belongs to one that the graph calls."""
    called = {node.target for node in model.graph.nodes if node.op == "call_module"}
    return any(prefix == name or prefix.startswith(f"{name}.") for name in called)
