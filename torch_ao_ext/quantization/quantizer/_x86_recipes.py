"""How X86InductorQuantizer annotates each kind of node.

A product (conv or linear) may end in `+ tensor` and an activation; the tensor that is
added is quantized as well. Only inputs are annotated: what a product gives is quantized
by the input of the next quantized node, so that a float reader stays float.
"""

from dataclasses import dataclass

import torch
from torch import fx

from torch_ao_ext.quantization.quantizer._config_table import ConfigTable
from torch_ao_ext.quantization.quantizer._targets import (
    HARDTANH,
    LINEAR,
    MATMUL,
    MUL,
    RELU,
    argument,
    aten,
    float_value,
    is_call,
    only_user,
    plain_add,
)
from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    QuantizationAnnotation,
    QuantizationSpecBase,
    SharedQuantizationSpec,
)
from torch_ao_ext.quantization.quantizer.utils import (
    QuantizationConfig,
    get_bias_qspec,
    get_input_act_qspec,
    get_weight_qspec,
    is_annotated,
)

SAME_QPARAMS = {
    aten.max_pool2d.default, aten.cat.default, aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten.flatten.using_ints,
}  # fmt: skip
_CONV = {aten.conv1d.default, aten.conv1d.padding, aten.conv2d.default, aten.conv2d.padding}
_CONV_UNARY = RELU | HARDTANH | {
    aten.hardswish.default, aten.hardswish_.default, aten.silu.default, aten.silu_.default
}  # fmt: skip
_LINEAR_UNARY = RELU | {
    aten.tanh.default, aten.leaky_relu.default, aten.leaky_relu_.default, aten.gelu.default
}  # fmt: skip


@dataclass
class X86Annotation(QuantizationAnnotation):
    """An annotation that knows whether its node is the last one of a quantized pattern."""

    _is_output_of_quantized_pattern: bool = False


def _annotate(node: fx.Node, inputs: dict[fx.Node, QuantizationSpecBase | None], last: bool) -> None:
    node.meta[Q_ANNOTATION_KEY] = X86Annotation(
        input_qspec_map=inputs, _annotated=True, _is_output_of_quantized_pattern=last
    )


def _quantized(node: fx.Node) -> bool:
    annotation = node.meta.get(Q_ANNOTATION_KEY)
    return isinstance(annotation, X86Annotation) and annotation._is_output_of_quantized_pattern


def _add_after(node: fx.Node, order: dict[fx.Node, int]) -> tuple[fx.Node, fx.Node] | None:
    """(add, its other operand) when node's only reader is an add that it can absorb."""
    add = only_user(node)
    if add is None or not plain_add(add) or is_annotated(add) or add.args[0] is add.args[1]:
        return None
    extra = add.args[1] if add.args[0] is node else add.args[0]
    # Of two products the later one absorbs the add: the other's result is ready by then.
    if (
        is_call(extra, _CONV | LINEAR)
        and only_user(extra) is add
        and order[extra] > order[node]
        and extra.target == node.target
    ):
        return None
    if extra.meta["val"].shape != node.meta["val"].shape:
        return None
    return add, extra


def _annotate_product(
    node: fx.Node, config: QuantizationConfig, table: ConfigTable, order: dict[fx.Node, int]
) -> None:
    activation = get_input_act_qspec(config)
    inputs: dict[fx.Node, QuantizationSpecBase | None] = {
        node.args[0]: activation,
        node.args[1]: get_weight_qspec(config),
    }
    if isinstance(argument(node, 2), fx.Node):
        inputs[node.args[2]] = get_bias_qspec(config)
    chain = [node]
    extra_inputs: dict[fx.Node, QuantizationSpecBase | None] = {}
    dynamic = activation is None or activation.is_dynamic
    added = None if dynamic else _add_after(node, order)
    if added is not None and table.find(added[0]) is not None:
        chain.append(added[0])
        extra_inputs[added[1]] = activation
    unary = _LINEAR_UNARY if is_call(node, LINEAR) else _CONV_UNARY
    after = only_user(chain[-1])
    if after is not None and is_call(after, unary) and table.find(after) is not None:
        chain.append(after)
    for link in chain:
        given = inputs if link is node else extra_inputs if added and link is added[0] else {}
        _annotate(link, given, last=link is chain[-1] and activation is not None)


def _constant(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def annotate_products(model: fx.GraphModule, table: ConfigTable, linear_only: bool) -> None:
    """Conv and linear with constant weights, the add and activation behind them.

    A config without activations is for linear alone: no conv has a form with floats and int8 weights.
    """
    targets = LINEAR if linear_only else _CONV | LINEAR
    order = {node: i for i, node in enumerate(model.graph.nodes)}
    for node in model.graph.nodes:
        if not is_call(node, targets) or is_annotated(node) or not float_value(node.args[0]):
            continue
        config = table.find(node)
        if config is None or (config.input_activation is None and not is_call(node, LINEAR)):
            continue
        if _constant(node.args[1]):
            _annotate_product(node, config, table, order)


def annotate_matmul(model: fx.GraphModule, table: ConfigTable) -> None:
    """Matmul of two float tensors, where a config for matmul is set."""
    for node in model.graph.nodes:
        config = table.operators.get(aten.matmul.default) if is_call(node, MATMUL) else None
        if config is None or table.find(node, aten.matmul.default) is None or is_annotated(node):
            continue
        if all(float_value(arg) for arg in node.args):
            spec = get_input_act_qspec(config)
            _annotate(node, {arg: spec for arg in node.args}, last=True)


def annotate_mul(model: fx.GraphModule, table: ConfigTable) -> None:
    """Products of two float tensors of one shape."""
    for node in model.graph.nodes:
        config = table.find(node) if is_call(node, MUL) and not is_annotated(node) else None
        if config is None or config.input_activation is None:
            continue
        operands = node.args
        if all(float_value(arg) for arg in operands) and (
            operands[0].meta["val"].shape == operands[1].meta["val"].shape
        ):
            spec = get_input_act_qspec(config)
            _annotate(node, {arg: spec for arg in operands}, last=True)


def _wanted(node: fx.Node) -> bool:
    """A flatten pays only before another quantized node."""
    if node.target is not aten.flatten.using_ints:
        return True
    wanted = SAME_QPARAMS | _CONV | LINEAR | MUL | MATMUL
    return any(is_call(user, wanted) for user in node.users)


def annotate_between(model: fx.GraphModule, table: ConfigTable) -> None:
    """Pooling, cat and flatten behind quantized nodes: the output takes the input's qparams."""
    for node in model.graph.nodes:
        if not is_call(node, SAME_QPARAMS) or is_annotated(node) or not _wanted(node):
            continue
        config = table.find(node)
        tensors = list(
            dict.fromkeys(n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor))
        )
        if config is None or config.input_activation is None:
            continue
        if not tensors or not all(_quantized(n) for n in tensors):
            continue
        first = SharedQuantizationSpec((tensors[0], node))
        inputs: dict[fx.Node, QuantizationSpecBase | None] = dict.fromkeys(tensors[1:], first)
        inputs[tensors[0]] = get_input_act_qspec(config)
        _annotate(node, inputs, last=True)
        node.meta[Q_ANNOTATION_KEY].output_qspec = first
