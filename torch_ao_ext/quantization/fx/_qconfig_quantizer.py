"""Annotates an exported graph as a QConfigMapping says."""

import operator
import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from torch_ao_ext._graph_ops import module_types
from torch_ao_ext.nn.quantized._static import STORAGE
from torch_ao_ext.quantization.fx._qconfig_specs import config_of, core_of, spec_of, weight_factory
from torch_ao_ext.quantization.observer import FixedQParamsObserver
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping
from torch_ao_ext.quantization.quantizer import xnnpack_quantizer_utils
from torch_ao_ext.quantization.quantizer._targets import aten, float_value, is_call, only_user
from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torch_ao_ext.quantization.quantizer.utils import (
    QuantizationConfig,
    is_annotated,
    module_names,
)
from torch_ao_ext.quantization.quantizer.xnnpack_quantizer_utils import (
    OP_TO_ANNOTATOR,
    convert_scalars_to_attrs,
    propagate_annotation,
)

__all__ = ["KEEP_QPARAMS", "QConfigMappingQuantizer"]

# ATen operator -> functions and methods that a mapping names it by.
_FUNCTIONS: dict[Any, tuple[Any, ...]] = {
    aten.linear.default: (F.linear,),
    aten.conv1d.default: (F.conv1d, torch.conv1d),
    aten.conv2d.default: (F.conv2d, torch.conv2d),
    aten.conv3d.default: (F.conv3d, torch.conv3d),
    aten.conv_transpose1d.default: (F.conv_transpose1d, torch.conv_transpose1d),
    aten.conv_transpose2d.input: (F.conv_transpose2d, torch.conv_transpose2d),
    aten.conv_transpose3d.input: (F.conv_transpose3d, torch.conv_transpose3d),
    aten.add.Tensor: (torch.add, torch.Tensor.add, "add"),
    aten.add_.Tensor: (torch.add, torch.Tensor.add_, "add_"),
    aten.mul.Tensor: (torch.mul, torch.Tensor.mul, "mul"),
    aten.mul_.Tensor: (torch.mul, torch.Tensor.mul_, "mul_"),
    aten.cat.default: (torch.cat,),
    aten.embedding.default: (F.embedding,),
    aten.sigmoid.default: (torch.sigmoid, "sigmoid", "sigmoid_"),
    aten.hardsigmoid.default: (F.hardsigmoid, "hardsigmoid", "hardsigmoid_"),
    aten.tanh.default: (torch.tanh, "tanh", "tanh_"),
    aten.hardswish.default: (F.hardswish,),
    aten.leaky_relu.default: (F.leaky_relu,),
    aten.gelu.default: (F.gelu,),
}

# Names in a BackendConfig besides.
_OPERATORS = {
    aten.add.Tensor: (operator.add,), aten.add_.Tensor: (operator.add,), aten.mul.Tensor: (operator.mul,),
    aten.mul_.Tensor: (operator.mul,),
}  # fmt: skip
# A batch norm that the product in front of its relu computes: nothing is rounded between them.
_WITH_NORM = ("linear_relu_bn", "conv_relu_bn")
# Products and arithmetic, fusions before their parts.
_STATIC = (
    "linear_relu", "linear", "conv_relu", "conv", "conv_transpose_relu", "conv_transpose", "add_relu", "add",
    "mul_relu", "mul", "cat",
)  # fmt: skip
_WITHOUT_WEIGHT = set(_OPERATORS) | {
    aten.cat.default, aten.sigmoid.default, aten.hardsigmoid.default, aten.tanh.default,
    aten.hardswish.default, aten.leaky_relu.default, aten.gelu.default,
}  # fmt: skip
_ACTIVATIONS = {aten.hardswish.default, aten.leaky_relu.default, aten.gelu.default}
_FIXED = {aten.sigmoid.default, aten.hardsigmoid.default, aten.tanh.default}
# Their values lie within those of their first argument.
KEEP_QPARAMS = xnnpack_quantizer_utils.KEEP_QPARAMS | {
    aten.max_pool1d.default, aten.max_pool3d.default, aten.avg_pool1d.default, aten.avg_pool2d.default,
    aten.avg_pool3d.default, aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool3d.default,
    aten.unflatten.int, aten.select.int, aten.clone.default,
}  # fmt: skip


def _is_layer(kind: str) -> bool:
    return kind.startswith("torch.nn.modules.") and ".container." not in kind


@dataclass
class _Rule:
    qconfig: Any


class QConfigMappingQuantizer(Quantizer):
    """Rules of a QConfigMapping on ATen operators; the most special one counts.

    Args:
        mapping: its object types are classes of the modules that operators lie in, and torch
            functions.
        backend: a `fx._backend.Backend`, None for all that this library has.
    """

    def __init__(self, mapping: QConfigMapping, backend: Any = None) -> None:
        super().__init__()
        self.mapping = mapping
        self.backend = backend
        self._configs: dict[int, QuantizationConfig | None] = {}
        self._uses: dict[tuple[str, Any], int] = {}
        self._found: dict[fx.Node, Any] = {}

    def _by_type(self, node: fx.Node) -> _Rule | None:
        rules = self.mapping.object_type_qconfigs
        kinds = module_types(node)
        for kind in reversed(kinds):
            for key, qconfig in rules.items():
                if isinstance(key, type) and f"{key.__module__}.{key.__qualname__}" == kind:
                    return _Rule(qconfig)
        if kinds and _is_layer(kinds[-1]):
            return None  # a layer is not the function that it calls
        for function in _FUNCTIONS.get(node.target, ()):
            if function in rules:
                return _Rule(rules[function])
        return None

    def _by_name(self, names: list[str]) -> _Rule | None:
        exact = self.mapping.module_name_qconfigs
        for name in reversed(names):
            if name in exact:
                return _Rule(exact[name])
        for pattern, qconfig in self.mapping.module_name_regex_qconfigs.items():
            if any(re.match(pattern, name) for name in names):
                return _Rule(qconfig)
        return None

    def _by_order(self, node: fx.Node, names: list[str]) -> _Rule | None:
        found = None
        owner = names[-1] if names else ""
        for function in _FUNCTIONS.get(node.target, ()):
            index = self._uses.get((owner, function), 0)
            self._uses[(owner, function)] = index + 1
            key = (owner, function, index)
            if key in self.mapping.module_name_object_type_order_qconfigs:
                found = _Rule(self.mapping.module_name_object_type_order_qconfigs[key])
        return found

    def qconfig_of(self, node: fx.Node) -> Any:
        """The qconfig of a node; None leaves it float."""
        if node not in self._found:
            names = module_names(node)
            rule = self._by_order(node, names) or self._by_name(names) or self._by_type(node)
            qconfig = self.mapping.global_qconfig if rule is None else rule.qconfig
            self._found[node] = qconfig if self._backend_takes(node, qconfig) else None
        return self._found[node]

    def qconfigs(self) -> dict[str, Any]:
        """Name of each node that was asked for -> its qconfig."""
        return {node.name: qconfig for node, qconfig in self._found.items()}

    def _backend_takes(self, node: fx.Node, qconfig: Any) -> bool:
        if self.backend is None or qconfig is None or node.target not in _FUNCTIONS:
            return True
        kinds = module_types(node)
        layer = [kinds[-1]] if kinds and _is_layer(kinds[-1]) else []
        keys = layer or [*_FUNCTIONS[node.target], *_OPERATORS.get(node.target, ())]
        return self.backend.takes(keys, qconfig, node.target not in _WITHOUT_WEIGHT)

    def _config(self, node: fx.Node) -> QuantizationConfig | None:
        qconfig = self.qconfig_of(node)
        if qconfig is None:
            return None
        if id(qconfig) not in self._configs:
            self._configs[id(qconfig)] = config_of(qconfig)
        return self._configs[id(qconfig)]

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Numbers in add and mul become tensors, so that they can be quantized."""
        return convert_scalars_to_attrs(model)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotates every operator whose qconfig is for int8, then what lies between."""
        by_config: dict[int, tuple[QuantizationConfig, set[fx.Node]]] = {}
        for node in model.graph.nodes:
            config = self._config(node) if node.op == "call_function" else None
            if config is not None:
                by_config.setdefault(id(config), (config, set()))[1].add(node)
        for config, nodes in by_config.values():
            dynamic = config.input_activation.is_dynamic
            if config.weight is None:
                continue
            for op in () if dynamic or self.backend is not None else _WITH_NORM:
                OP_TO_ANNOTATOR[op](model, config, lambda node, chosen=nodes: _norm_too(node, chosen))
            for op in ("linear",) if dynamic else _STATIC:
                OP_TO_ANNOTATOR[op](model, config, lambda node, chosen=nodes: node in chosen)
        for node in model.graph.nodes:
            self._annotate_activation(node)
            self._annotate_rows(node)
        propagate_annotation(model)
        for node in model.graph.nodes:
            _keep_qparams(node)
        propagate_annotation(model)
        return model

    def _annotate_activation(self, node: fx.Node) -> None:
        """An activation behind an int8 value gives an int8 value."""
        if not is_call(node, _ACTIVATIONS | _FIXED) or is_annotated(node):
            return
        if _output_spec(node.args[0]) is None:
            return
        qconfig = self.qconfig_of(node)
        if qconfig is None or qconfig.activation is None:
            return
        observer = core_of(qconfig.activation())
        output: Any = None
        if isinstance(observer, FixedQParamsObserver):
            output = FixedQParamsQuantizationSpec(
                STORAGE[observer.dtype], float(observer.scale), int(observer.zero_point), observer.quant_min,
                observer.quant_max, torch.per_tensor_affine,
            )  # fmt: skip
            _readers_share(node)
        elif node.target in _ACTIVATIONS and self._config(node) is not None:
            output = self._config(node).output_activation
        if output is not None:
            node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation({}, output, _annotated=True)

    def _annotate_rows(self, node: fx.Node) -> None:
        qconfig = self.qconfig_of(node) if is_call(node, {aten.embedding.default}) else None
        observer = core_of(qconfig.weight()) if qconfig is not None and qconfig.weight is not None else None
        if getattr(observer, "qscheme", None) != torch.per_channel_affine_float_qparams:
            return
        if STORAGE.get(observer.dtype) != torch.uint8:
            return  # 4-bit rows are for quantize_dynamic
        spec = spec_of(observer, torch.uint8, weight_factory(qconfig.weight), True)
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation({node.args[0]: spec}, None, _annotated=True)

    def validate(self, model: fx.GraphModule) -> None:
        """Every annotated graph can run."""


def _norm_too(node: fx.Node, chosen: set[fx.Node]) -> bool:
    """Whether the batch norm behind the relu of a chosen product has its qconfig."""
    relu = only_user(node)
    return node in chosen and relu is not None and only_user(relu) in chosen


def _readers_share(node: fx.Node) -> None:
    """Those that wanted qparams of their own take the known ones."""
    for reader in node.users:
        annotation = reader.meta.get(Q_ANNOTATION_KEY)
        wanted = None if annotation is None else annotation.input_qspec_map.get(node)
        if isinstance(wanted, QuantizationSpec) and not wanted.is_dynamic:
            annotation.input_qspec_map[node] = SharedQuantizationSpec(node)


def _output_spec(node: Any) -> Any:
    annotation = node.meta.get(Q_ANNOTATION_KEY) if isinstance(node, fx.Node) else None
    return None if annotation is None else annotation.output_qspec


def _keep_qparams(node: fx.Node) -> None:
    if not is_call(node, KEEP_QPARAMS) or is_annotated(node) or not float_value(node):
        return
    before = node.args[0]
    if _output_spec(before) is not None:
        shared = SharedQuantizationSpec(before)
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation({before: shared}, shared, _annotated=True)
