"""Steps on graphs of torch.fx that programs around FX graph mode import."""

import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext.nn.quantized._observed import INT8
from torch_ao_ext.quantization.fx._arguments import (
    EMPTY_ARG_DICT,
    NON_OBSERVABLE_ARG_DICT,
    NON_QUANTIZABLE_WEIGHT_OPS,
    NodeInfo,
    all_node_args_except_first,
    get_non_observable_arg_indexes_and_types,
    node_arg_is_bias,
    node_arg_is_weight,
    return_arg_list,
)
from torch_ao_ext.quantization.fx._notes import ObservedGraphModuleAttrs
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.quant_type import QuantType

__all__ = [
    "EMPTY_ARG_DICT",
    "NON_OBSERVABLE_ARG_DICT",
    "NON_QUANTIZABLE_WEIGHT_OPS",
    "NodeInfo",
    "ObservedGraphModuleAttrs",
    "all_node_args_except_first",
    "all_node_args_have_no_tensors",
    "assert_and_get_unique_device",
    "collect_producer_nodes",
    "create_getattr_from_value",
    "create_node_from_old_node_preserve_meta",
    "get_custom_module_class_keys",
    "get_linear_prepack_op_for_dtype",
    "get_new_attr_name_with_prefix",
    "get_non_observable_arg_indexes_and_types",
    "get_qconv_prepack_op",
    "get_skipped_module_name_and_classes",
    "graph_module_from_producer_nodes",
    "maybe_get_next_module",
    "node_arg_is_bias",
    "node_arg_is_weight",
    "return_arg_list",
]

_ops = torch.ops.torch_ao
_CONV = {
    F.conv1d: _ops.conv1d, F.conv2d: _ops.conv2d, F.conv3d: _ops.conv3d,
    F.conv_transpose1d: _ops.conv_transpose1d, F.conv_transpose2d: _ops.conv_transpose2d,
    F.conv_transpose3d: _ops.conv_transpose3d,
}  # fmt: skip


def get_new_attr_name_with_prefix(prefix: str) -> Callable[[nn.Module], str]:
    """A function that gives the first prefix + number that a module has no attribute of.

    Args:
        prefix: dots become underscores.

    Example:
        >>> from torch import nn
        >>> from torch_ao_ext.quantization.fx.utils import get_new_attr_name_with_prefix
        >>> get_new_attr_name_with_prefix("block.scale_")(nn.Linear(2, 2))
        'block_scale_0'
    """
    prefix = prefix.replace(".", "_")

    def get_new_attr_name(module: nn.Module) -> str:
        count = 0
        while hasattr(module, f"{prefix}{count}"):
            count += 1
        return f"{prefix}{count}"

    return get_new_attr_name


def assert_and_get_unique_device(module: nn.Module) -> torch.device | None:
    """The device of all parameters and buffers; None where there are none.

    The CPU where others are on the meta device, with a warning.

    Raises:
        AssertionError: several devices.
    """
    found = {t.device for t in [*module.parameters(), *module.buffers()]}
    if found == {torch.device("cpu"), torch.device("meta")}:
        warnings.warn(
            "assert_and_get_unique_device: parts of the module are on the meta device", stacklevel=2
        )
        return torch.device("cpu")
    if len(found) > 1:
        raise AssertionError(
            "assert_and_get_unique_device: argument 'module' must be on one device, got "
            + ", ".join(sorted(map(str, found)))
        )
    return found.pop() if found else None


def create_getattr_from_value(
    module: nn.Module, graph: fx.Graph, prefix: str, value: Any, device: torch.device | None = None
) -> fx.Node:
    """A node that reads a new buffer.

    Args:
        module: gets the buffer.
        graph: gets the node, where it inserts.
        prefix: of the buffer's name.
        value: a tensor, which is copied, or what makes one.
        device: of a value that is no tensor; None: the module's.
    """
    name = get_new_attr_name_with_prefix(prefix)(module)
    if isinstance(value, torch.Tensor):
        made = value.detach().clone()
    else:
        made = torch.tensor(value, device=assert_and_get_unique_device(module) if device is None else device)
    module.register_buffer(name, made)
    return graph.create_node("get_attr", name)


def create_node_from_old_node_preserve_meta(
    quantized_graph: fx.Graph, create_node_args: tuple[Any, ...], old_node: fx.Node
) -> fx.Node:
    """A new node that has the line of the user's model of an old one.

    Args:
        quantized_graph: gets the node.
        create_node_args: of `create_node`.
        old_node: the old one.
    """
    node = quantized_graph.create_node(*create_node_args)
    node.stack_trace = old_node.stack_trace
    return node


def collect_producer_nodes(node: fx.Node) -> list[fx.Node] | None:
    """A node and all that it is computed of, itself first; None where an input of the graph is among it."""
    found, pending = [node], [node]
    while pending:
        for source in pending.pop().all_input_nodes:
            if source.op == "placeholder":
                return None
            if source not in found:
                found.append(source)
                pending.append(source)
    return found


def graph_module_from_producer_nodes(root: fx.GraphModule, producer_nodes: list[fx.Node]) -> fx.GraphModule:
    """A graph without inputs that computes the first of these nodes.

    Args:
        root: of the nodes.
        producer_nodes: from `collect_producer_nodes`.

    Raises:
        ValueError: no nodes.
    """
    if not producer_nodes:
        raise ValueError(
            "graph_module_from_producer_nodes: argument 'producer_nodes' must not be empty, got []"
        )
    graph, made, wanted = fx.Graph(), {}, set(producer_nodes)
    for node in producer_nodes[0].graph.nodes:
        if node in wanted:
            made[node] = graph.node_copy(node, lambda source: made[source])
    graph.output(made[producer_nodes[0]])
    return fx.GraphModule(root, graph)


def all_node_args_have_no_tensors(
    node: Any, modules: dict[str, nn.Module], cache: dict[fx.Node, bool]
) -> bool:
    """Whether a value is known to be a number and to be computed of numbers only.

    Args:
        node: the value.
        modules: of the graph, by name; observers pass values on.
        cache: answers so far.
    """
    if not isinstance(node, fx.Node):
        return True
    if node not in cache:
        cache[node] = _has_no_tensors(node, modules, cache)
    return cache[node]


def _has_no_tensors(node: fx.Node, modules: dict[str, nn.Module], cache: dict[fx.Node, bool]) -> bool:
    if node.op == "call_module":
        passes = is_observer(modules[str(node.target)])
        return passes and all_node_args_have_no_tensors(node.args[0], modules, cache)
    if node.op in ("placeholder", "get_attr"):
        return False
    if node.target is operator.getitem:
        return all_node_args_have_no_tensors(node.args[0], modules, cache)
    if (node.target is getattr and node.args[1] in ("ndim", "shape")) or (
        node.op == "call_method" and node.target == "size"
    ):
        return True
    leaves: list[Any] = []
    for value in node.args:
        leaves += value if isinstance(value, (list, tuple)) else [value]
    known = all(isinstance(leaf, (fx.Node, int)) for leaf in leaves)
    return known and all(all_node_args_have_no_tensors(leaf, modules, cache) for leaf in leaves)


def maybe_get_next_module(
    node: fx.Node, modules: dict[str, nn.Module], target_module_type: type[nn.Module] | None = None,
    target_functional_type: Any = None,
) -> fx.Node | None:  # fmt: skip
    """The first reader of a node that calls a module of a class, or a function; None: no reader does.

    Args:
        node: the node.
        modules: of the graph, by name.
        target_module_type: class, subclasses count.
        target_functional_type: function.
    """
    for user in node.users:
        if user.op == "call_module" and target_module_type is not None:
            if isinstance(modules[str(user.target)], target_module_type):
                return user
        elif user.op == "call_function" and target_functional_type is not None:
            if user.target == target_functional_type:
                return user
    return None


def get_custom_module_class_keys(custom_module_mapping: dict[QuantType, dict[type, type]]) -> list[Any]:
    """All classes that a mapping has entries for, each once.

    Args:
        custom_module_mapping: such as `PrepareCustomConfig.float_to_observed_mapping`.
    """
    kinds = (QuantType.STATIC, QuantType.DYNAMIC, QuantType.WEIGHT_ONLY)
    return list(dict.fromkeys(key for kind in kinds for key in custom_module_mapping.get(kind, {})))


def get_linear_prepack_op_for_dtype(dtype: torch.dtype) -> Any:
    """The operator that packs the weight of `torch_ao.linear` ahead of its first call.

    The packed form hangs on the plain weight, so nothing is returned and the weight stays the argument of
    `linear`. Arguments are those of `linear` without the input.

    Args:
        dtype: of the weight, torch.qint8 or int8.

    Raises:
        ValueError: another dtype; no operator takes weights in float16.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.fx.utils import get_linear_prepack_op_for_dtype
        >>> prepack = get_linear_prepack_op_for_dtype(torch.qint8)
        >>> w, s, x = torch.ones(4, 8, dtype=torch.int8), torch.ones(4), torch.ones(2, 8, dtype=torch.uint8)
        >>> prepack(w, s, None, None, torch.uint8, 0.1, 0, 0.2, 0)
        >>> torch.ops.torch_ao.linear(x, 0.1, 0, w, s, None, None, 0.2, 0)[0].tolist()
        [4, 4, 4, 4]
    """
    if dtype not in INT8:
        raise ValueError(
            f"get_linear_prepack_op_for_dtype: argument 'dtype' must be torch.qint8 or int8, got {dtype}"
        )
    return _ops._prepack_linear.default


def get_qconv_prepack_op(conv_op: Callable[..., Any]) -> Any:
    """The operator that packs the weight of a convolution: the int8 convolution itself, in its first call.

    The packed form hangs on the plain weight, and later calls with the same qparams find it there.

    Args:
        conv_op: torch.nn.functional.conv1d to conv3d, conv_transpose1d to conv_transpose3d.

    Raises:
        AssertionError: another function.

    Example:
        >>> import torch.nn.functional as F
        >>> from torch_ao_ext.quantization.fx.utils import get_qconv_prepack_op
        >>> get_qconv_prepack_op(F.conv2d)
        <OpOverload(op='torch_ao.conv2d', overload='default')>
    """
    if conv_op not in _CONV:
        raise AssertionError(
            "get_qconv_prepack_op: argument 'conv_op' must be a convolution of torch.nn.functional, got "
            f"{conv_op}"
        )
    return _CONV[conv_op].default


def get_skipped_module_name_and_classes(
    prepare_custom_config: PrepareCustomConfig, is_standalone_module: bool
) -> tuple[list[str], list[type[Any]]]:
    """Names and classes of the modules that stay whole.

    Args:
        prepare_custom_config: names them.
        is_standalone_module: inside of one, only those that stay float.
    """
    config = prepare_custom_config
    names, classes = list(config.non_traceable_module_names), list(config.non_traceable_module_classes)
    if not is_standalone_module:
        names += config.standalone_module_names
        classes += config.standalone_module_classes
        classes += get_custom_module_class_keys(config.float_to_observed_mapping)
    return names, classes
