"""Steps of quantization-aware training on annotated graphs, under the names of torch.ao's pass.

`prepare_qat_pt2e` and `convert_pt2e` do this by themselves; programs that call a quantizer and `prepare`
one by one call `_fuse_conv_bn_qat` between them.
"""

import dataclasses
from typing import Any

from torch import fx

from torch_ao_ext.quantization.pt2e._graph import check_graph_module, free_name
from torch_ao_ext.quantization.pt2e._qat import (
    attach_batch_norms,
    detach_batch_norms,
    fold_trained,
)
from torch_ao_ext.quantization.pt2e.prepare import make_observer
from torch_ao_ext.quantization.quantizer._targets import BATCH_NORM, is_call
from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    DerivedQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    SharedQuantizationSpec,
)

__all__ = ["_fold_conv_bn_qat", "_fuse_conv_bn_qat"]


def _annotation(meta: dict[str, Any]) -> QuantizationAnnotation:
    return meta.get(Q_ANNOTATION_KEY) or QuantizationAnnotation()


def _fuse_conv_bn_qat(m: fx.GraphModule) -> fx.GraphModule:
    """Makes one module, to be trained, of each annotated product and the batch norm behind it.

    Convolutions, transposed ones and linear layers whose weight has a QuantizationSpec; the module
    fake-quantizes W gamma / sqrt(running_var + eps). It takes the annotations of the product's input and
    of the batch norm's result, or of the product's where the batch norm has none; one of the bias is
    dropped: a bias stays float. Others keep their batch norm.

    Args:
        m: exported in training mode and annotated, not prepared yet; changed in place.

    Returns:
        m.

    Raises:
        TypeError: not an exported graph module.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.pt2e.prepare import prepare
        >>> from torch_ao_ext.quantization.pt2e.qat_utils import _fold_conv_bn_qat, _fuse_conv_bn_qat
        >>> from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack
        >>> quantizer = xnnpack.XNNPACKQuantizer()
        >>> _ = quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_qat=True))
        >>> net, x = torch.nn.Sequential(torch.nn.Conv1d(2, 4, 1), torch.nn.BatchNorm1d(4)), torch.randn(3, 2, 5)
        >>> graph = torch.export.export(net.train(), (x,)).module()
        >>> _ = quantizer.annotate(graph)
        >>> trained = prepare(_fuse_conv_bn_qat(graph), is_qat=True)
        >>> trained(x).sum().backward()
        >>> "batch_norm" in str(_fold_conv_bn_qat(trained).graph)
        False
    """  # noqa: E501
    check_graph_module("_fuse_conv_bn_qat", m)
    norms = {node.args[0]: node for node in m.graph.nodes if is_call(node, BATCH_NORM)}
    replaced: dict[fx.Node, fx.Node] = {}
    for product, detached in detach_batch_norms(m).items():
        source, weight = product.args[0], product.args[1]
        own, behind = _annotation(product.meta), _annotation(detached.meta)
        spec = own.input_qspec_map.get(weight)
        fake_quant = make_observer(spec, {}, True) if isinstance(spec, QuantizationSpec) else None
        if fake_quant is not None:
            name = free_name(m, "activation_post_process_0")
            m.add_module(name, fake_quant)
            with m.graph.inserting_before(product):
                product.update_arg(1, m.graph.call_module(name, (weight,)))
        before = set(m.graph.nodes)
        attach_batch_norms(m, {product: detached})
        (made,) = [node for node in m.graph.nodes if node not in before]
        replaced[norms[product]] = made
        if fake_quant is None:
            continue
        replaced[product] = made
        inputs = {source: own.input_qspec_map[source]} if source in own.input_qspec_map else {}
        output = own.output_qspec if behind.output_qspec is None else behind.output_qspec
        made.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(inputs, output, _annotated=True)
    _follow(m, replaced)
    return m


def _follow(m: fx.GraphModule, replaced: dict[fx.Node, fx.Node]) -> None:
    """Annotations that name nodes which are gone name those in their place."""

    def key(value: Any) -> Any:
        return tuple(map(key, value)) if isinstance(value, tuple) else replaced.get(value, value)

    def renamed(spec: Any) -> Any:
        if isinstance(spec, SharedQuantizationSpec):
            return SharedQuantizationSpec(key(spec.edge_or_node))
        if isinstance(spec, DerivedQuantizationSpec):
            return dataclasses.replace(spec, derived_from=[key(source) for source in spec.derived_from])
        return spec

    for node in m.graph.nodes:
        found = node.meta.get(Q_ANNOTATION_KEY)
        if found is not None:
            found.input_qspec_map = {key(n): renamed(spec) for n, spec in found.input_qspec_map.items()}
            found.output_qspec = renamed(found.output_qspec)


def _fold_conv_bn_qat(m: fx.GraphModule) -> fx.GraphModule:
    """Makes a product with an observed weight of each module of `_fuse_conv_bn_qat` or `prepare_qat_pt2e`.

    Args:
        m: prepared and trained; changed in place.

    Returns:
        m; `convert_pt2e` takes it as it takes the prepared graph.

    Raises:
        TypeError: not an exported graph module.
    """
    check_graph_module("_fold_conv_bn_qat", m)
    if fold_trained(m):
        m.graph.lint()
        m.recompile()
    return m
