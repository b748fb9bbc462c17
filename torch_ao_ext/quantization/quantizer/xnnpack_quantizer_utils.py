"""Annotators of single operators: inputs, weight, bias and output of each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.pt2e._simplify import PAD, pad_value
from torch_ao_ext.quantization.quantizer._targets import (
    ADD,
    BATCH_NORM,
    CAT,
    CONV,
    CONV_TRANSPOSE,
    HARDTANH,
    LINEAR,
    MUL,
    RELU,
    argument,
    aten,
    float_value,
    is_call,
    only_user,
)
from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    QuantizationAnnotation,
    QuantizationSpecBase,
    SharedQuantizationSpec,
)
from torch_ao_ext.quantization.quantizer.utils import (
    OperatorConfig,
    QuantizationConfig,
    get_bias_qspec,
    get_input_act_qspec,
    get_output_act_qspec,
    get_weight_qspec,
    is_annotated,
)

__all__ = ["OP_TO_ANNOTATOR", "OperatorConfig", "QuantizationConfig", "propagate_annotation"]

Filter = Callable[[fx.Node], bool]
Annotator = Callable[[fx.GraphModule, QuantizationConfig | None, Filter | None], list[list[fx.Node]]]

# Above this a number added to an activation would use up its range.
_LARGE_SCALAR = torch.finfo(torch.float32).max

# Operators that keep the qparams of what they read, once it is quantized.
KEEP_QPARAMS = RELU | HARDTANH | {
    aten.max_pool2d.default, aten.mean.default, aten.mean.dim, aten.permute.default,
    aten.transpose.int, aten.squeeze.dim, aten.unsqueeze.default, aten.view.default,
    aten.reshape.default, aten.slice.Tensor, aten.flatten.using_ints, aten.adaptive_avg_pool2d.default,
    aten.dropout.default, aten.contiguous.default,
}  # fmt: skip
# A product computes these on its sums, before any rounding.
_SMOOTH = {
    aten.sigmoid.default, aten.tanh.default, aten.silu.default, aten.silu_.default, aten.gelu.default,
    aten.hardswish.default, aten.hardswish_.default, aten.hardsigmoid.default, aten.hardsigmoid_.default,
    aten.leaky_relu.default, aten.leaky_relu_.default,
}  # fmt: skip


def _set(
    node: fx.Node,
    inputs: dict[fx.Node, QuantizationSpecBase | None],
    output: QuantizationSpecBase | None = None,
) -> None:
    node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )


def _set_chain(
    chain: list[fx.Node],
    inputs: dict[fx.Node, QuantizationSpecBase | None],
    output: QuantizationSpecBase | None,
) -> list[fx.Node]:
    """Inputs at the first node of a fused chain, the output at its last."""
    for node in chain:
        _set(node, inputs if node is chain[0] else {}, output if node is chain[-1] else None)
    return chain


def _chain(node: fx.Node, links: tuple[set[Any], ...]) -> list[fx.Node] | None:
    """Node and its only readers, one for each link; None when one is missing."""
    chain = [node]
    for targets in links:
        after = only_user(chain[-1])
        if after is None or not is_call(after, targets):
            return None
        chain.append(after)
    return chain


def _matches(
    model: fx.GraphModule, targets: set[Any], links: tuple[set[Any], ...], wanted: Filter | None
) -> list[list[fx.Node]]:
    found = []
    for node in model.graph.nodes:
        if not is_call(node, targets) or (wanted is not None and not wanted(node)):
            continue
        chain = _chain(node, links)
        if chain is not None and not is_annotated(*chain):
            found.append(chain)
    return found


def _product(targets: set[Any], *links: set[Any]) -> Annotator:
    """Annotator of conv or linear with constant weights, and what it is fused with."""

    def annotate(
        model: fx.GraphModule, quantization_config: QuantizationConfig | None, filter_fn: Filter | None = None
    ) -> list[list[fx.Node]]:
        done = []
        for chain in _matches(model, targets, links, filter_fn):
            node = chain[0]
            weight = node.args[1]
            if not float_value(node.args[0]) or weight.op != "get_attr":
                continue
            inputs = {
                node.args[0]: get_input_act_qspec(quantization_config),
                weight: _weight_spec(node, quantization_config),
            }
            if isinstance(argument(node, 2), fx.Node):
                inputs[node.args[2]] = get_bias_qspec(quantization_config)
            # Its readers quantize what _SMOOTH gives, as they do behind an operator of its own.
            smooth = is_call(chain[-1], _SMOOTH)
            output = None if smooth else get_output_act_qspec(quantization_config)
            done.append(_set_chain(chain, inputs, output))
        return done

    return annotate


def _weight_spec(node: fx.Node, config: QuantizationConfig | None) -> QuantizationSpecBase | None:
    """The weight's spec, along the axis of the output channels."""
    from dataclasses import replace

    spec = get_weight_qspec(config)
    if spec is None or not is_call(node, CONV_TRANSPOSE) or spec.qscheme != torch.per_channel_symmetric:
        return spec
    # Transposed weights are [in, out / groups, ...]: channels of one group share a scale.
    return replace(spec, ch_axis=1)


def _too_large(model: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "get_attr":
        return False
    value = model.get_parameter(node.target) if node.target in dict(model.named_parameters()) else None
    if value is None:
        owner, _, name = node.target.rpartition(".")
        value = getattr(model.get_submodule(owner), name)
    return value.numel() == 1 and abs(float(value)) > _LARGE_SCALAR


def _binary(targets: set[Any], *links: set[Any]) -> Annotator:
    """Annotator of an operator of two tensors."""

    def annotate(
        model: fx.GraphModule, quantization_config: QuantizationConfig | None, filter_fn: Filter | None = None
    ) -> list[list[fx.Node]]:
        done = []
        for chain in _matches(model, targets, links, filter_fn):
            operands = chain[0].args[:2]
            if len(operands) < 2 or not all(float_value(a) and not _too_large(model, a) for a in operands):
                continue
            spec = get_input_act_qspec(quantization_config)
            inputs: dict[fx.Node, QuantizationSpecBase | None] = dict.fromkeys(operands, spec)
            done.append(_set_chain(chain, inputs, get_output_act_qspec(quantization_config)))
        return done

    return annotate


def _same_qparams(targets: set[Any]) -> Annotator:
    """Annotator of an operator whose tensors all have the qparams of the first."""

    def annotate(
        model: fx.GraphModule, quantization_config: QuantizationConfig | None, filter_fn: Filter | None = None
    ) -> list[list[fx.Node]]:
        done = []
        for chain in _matches(model, targets, (), filter_fn):
            node = chain[0]
            tensors = [n for n in dict.fromkeys(node.all_input_nodes) if float_value(n)]
            if not tensors:
                continue
            before = tensors[0].meta.get(Q_ANNOTATION_KEY)
            follows = before is not None and before.output_qspec is not None and len(tensors) == 1
            first: QuantizationSpecBase | None = get_input_act_qspec(quantization_config)
            if follows:
                first = SharedQuantizationSpec(tensors[0])
            shared = SharedQuantizationSpec((tensors[0], node))
            inputs: dict[fx.Node, QuantizationSpecBase | None] = dict.fromkeys(tensors, shared)
            inputs[tensors[0]] = first
            _set(node, inputs, shared)
            done.append(chain)
        return done

    return annotate


_ACTIVATION = RELU | HARDTANH

OP_TO_ANNOTATOR: dict[str, Annotator] = {
    "linear": _product(LINEAR),
    "linear_relu": _product(LINEAR, RELU),
    "linear_relu_bn": _product(LINEAR, RELU, BATCH_NORM),
    "linear_smooth": _product(LINEAR, _SMOOTH),
    "conv": _product(CONV),
    "conv_relu": _product(CONV, _ACTIVATION),
    "conv_relu_bn": _product(CONV, _ACTIVATION, BATCH_NORM),
    "conv_relu_bn_max_pool": _product(CONV, _ACTIVATION, BATCH_NORM, {aten.max_pool2d.default}),
    "conv_smooth": _product(CONV, _SMOOTH),
    "conv_transpose": _product(CONV_TRANSPOSE),
    "conv_transpose_relu": _product(CONV_TRANSPOSE, _ACTIVATION),
    "conv_bn": _product(CONV, BATCH_NORM),
    "conv_bn_relu": _product(CONV, BATCH_NORM, _ACTIVATION),
    "conv_transpose_bn": _product(CONV_TRANSPOSE, BATCH_NORM),
    "conv_transpose_bn_relu": _product(CONV_TRANSPOSE, BATCH_NORM, _ACTIVATION),
    "adaptive_avg_pool2d": _same_qparams({aten.adaptive_avg_pool2d.default}),
    "add": _binary(ADD),
    "add_relu": _binary(ADD, RELU),
    "mul": _binary(MUL),
    "mul_relu": _binary(MUL, RELU),
    "cat": _same_qparams(CAT),
}


def propagate_annotation(model: fx.GraphModule) -> None:
    """Operators that keep qparams take those of the quantized node before them."""
    for node in model.graph.nodes:
        zeros = is_call(node, PAD) and pad_value(node) == 0  # every qparams hold 0 exactly
        if not (zeros or is_call(node, KEEP_QPARAMS)) or is_annotated(node):
            continue
        before = node.args[0]
        annotation = before.meta.get(Q_ANNOTATION_KEY) if isinstance(before, fx.Node) else None
        if annotation is not None and annotation.output_qspec is not None and float_value(node):
            shared = SharedQuantizationSpec(before)
            _set(node, {before: shared}, shared)


def convert_scalars_to_attrs(model: fx.GraphModule) -> fx.GraphModule:
    """Numbers in add and mul become one-element buffers."""
    for node in list(model.graph.nodes):
        if not is_call(node, ADD | MUL) or not float_value(node):
            continue
        arguments = list(node.args)
        for i, value in enumerate(arguments[:2]):
            if isinstance(value, fx.Node):
                continue
            count = 0
            while hasattr(model, f"_tensor_constant_{count}"):
                count += 1
            name = f"_tensor_constant_{count}"
            model.register_buffer(name, torch.tensor(float(value)))
            with model.graph.inserting_before(node):
                constant = model.graph.get_attr(name)
            mode = node.meta["val"].fake_mode
            constant.meta["val"] = mode.from_tensor(getattr(model, name), static_shapes=True)
            arguments[i] = constant
        node.args = tuple(arguments)
    model.recompile()
    return model
