"""What quantizers share: the config of an operator, and small steps of annotation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx

from torch_ao_ext._graph_ops import module_types
from torch_ao_ext.quantization.observer import PlaceholderObserver
from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
)

__all__ = [
    "OperatorConfig",
    "QuantizationConfig",
    "annotate_input_qspec_map",
    "annotate_output_qspec",
    "get_bias_qspec",
    "get_input_act_qspec",
    "get_module_name_filter",
    "get_output_act_qspec",
    "get_weight_qspec",
    "is_valid_annotation",
]


@dataclass(eq=True, frozen=True)
class QuantizationConfig:
    """Specs of one operator's tensors; None leaves a tensor float.

    Args:
        input_activation: spec of the inputs.
        output_activation: spec of the output.
        weight: spec of the weight.
        bias: None, or a spec with a float dtype: biases stay float.
        is_qat: the specs make fake-quants.
    """

    input_activation: QuantizationSpec | None
    output_activation: QuantizationSpec | None
    weight: QuantizationSpec | None
    bias: QuantizationSpec | None
    is_qat: bool = False


class OperatorConfig(NamedTuple):
    """A config and the operator patterns that it is for."""

    config: QuantizationConfig
    operators: list[list[Any]]


def get_input_act_qspec(quantization_config: QuantizationConfig | None) -> QuantizationSpec | None:
    """Spec of the inputs, None without a config."""
    return None if quantization_config is None else quantization_config.input_activation


def get_output_act_qspec(quantization_config: QuantizationConfig | None) -> QuantizationSpec | None:
    """Spec of the output, None without a config."""
    return None if quantization_config is None else quantization_config.output_activation


def get_weight_qspec(quantization_config: QuantizationConfig | None) -> QuantizationSpec | None:
    """Spec of the weight, None without one.

    Raises:
        ValueError: its scheme is not symmetric, and not affine per channel.
    """
    if quantization_config is None or quantization_config.weight is None:
        return None
    scheme = quantization_config.weight.qscheme
    allowed = (torch.per_tensor_symmetric, torch.per_channel_symmetric, torch.per_channel_affine, None)
    if scheme not in allowed:
        raise ValueError(
            "get_weight_qspec: argument 'quantization_config' must have a symmetric weight scheme, "
            f"or per_channel_affine, got {scheme}"
        )
    return quantization_config.weight


def get_bias_qspec(quantization_config: QuantizationConfig | None) -> QuantizationSpec | None:
    """Spec of the bias, a float one; None without a config.

    Raises:
        ValueError: the config's spec is not float.
    """
    if quantization_config is None:
        return None
    if quantization_config.bias is None:
        return QuantizationSpec(dtype=torch.float, observer_or_fake_quant_ctr=PlaceholderObserver)
    if quantization_config.bias.dtype != torch.float:
        raise ValueError(
            "get_bias_qspec: argument 'quantization_config' must have a bias of dtype "
            f"torch.float32, got {quantization_config.bias.dtype}"
        )
    return quantization_config.bias


def _annotation(node: fx.Node) -> QuantizationAnnotation:
    return node.meta.setdefault(Q_ANNOTATION_KEY, QuantizationAnnotation())


def annotate_input_qspec_map(node: fx.Node, input_node: fx.Node, qspec: QuantizationSpecBase | None) -> None:
    """Sets the spec of one argument of a node."""
    _annotation(node).input_qspec_map[input_node] = qspec


def annotate_output_qspec(node: fx.Node, qspec: QuantizationSpecBase | None) -> None:
    """Sets the spec of what a node returns."""
    _annotation(node).output_qspec = qspec


def is_annotated(*nodes: fx.Node) -> bool:
    """Whether a quantizer has decided about one of the nodes."""
    return any(Q_ANNOTATION_KEY in node.meta and node.meta[Q_ANNOTATION_KEY]._annotated for node in nodes)


def mark_annotated(*nodes: fx.Node) -> None:
    """Notes that a quantizer has decided about the nodes."""
    for node in nodes:
        _annotation(node)._annotated = True


def module_names(node: fx.Node) -> list[str]:
    """Fully qualified names of the modules that a node lies in, the outermost first.

    Names are those of the user's model: `L['self'].` and getattr calls, which some
    versions of export write, are taken away.
    """
    names = []
    for name, _ in node.meta.get("nn_module_stack", {}).values():
        plain = name
        while plain.startswith("getattr("):  # getattr(parent, 'child')
            parent, _, child = plain.removeprefix("getattr(").removesuffix(")").rpartition(", ")
            plain = f"{parent}.{child.strip(chr(39))}"
        for prefix in ("L['self'].", "L__self__.", "self."):
            plain = plain.removeprefix(prefix)
        names.append(plain)
    return names


def innermost_module(node: fx.Node) -> str:
    """The last of `module_names`; "" outside of all."""
    return (module_names(node) or [""])[-1]


def get_module_name_filter(module_name: str) -> Callable[[fx.Node], bool]:
    """A function that tells whether a node lies in the module, at any depth.

    Args:
        module_name: as in `named_modules()`, e.g. "block.sub".
    """

    def name_filter(node: fx.Node) -> bool:
        return module_name in module_names(node)

    return name_filter


def get_module_type_filter(module_type: Any) -> Callable[[fx.Node], bool]:
    """A function that tells whether a node lies in a module of the class, at any depth."""
    name = f"{module_type.__module__}.{module_type.__qualname__}"

    def type_filter(node: fx.Node) -> bool:
        return name in module_types(node)

    return type_filter


def is_valid_annotation(annotation: QuantizationAnnotation | None) -> bool:
    """Whether an annotation says anything about a tensor."""
    return annotation is not None and bool(annotation.input_qspec_map or annotation.output_qspec)
