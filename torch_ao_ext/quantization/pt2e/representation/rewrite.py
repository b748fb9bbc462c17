"""Integer operators of a graph become integer arithmetic of ATen operators."""

import operator
from typing import Any

import torch
from torch import fx

from torch_ao_ext._graph_ops import arguments_of
from torch_ao_ext._lower._inputs import check_inputs
from torch_ao_ext._lower._sizes import sizes_by_method
from torch_ao_ext._lower.lower import integer_graph
from torch_ao_ext.quantization import _decomposed
from torch_ao_ext.quantization.pt2e._graph import (
    check_graph_module,
    copy_graph_module,
    inherit_meta,
    remove_unused,
    tensor_of,
    where,
)
from torch_ao_ext.quantization.pt2e.representation._attention import ATTENTION
from torch_ao_ext.quantization.pt2e.representation._between import BETWEEN
from torch_ao_ext.quantization.pt2e.representation._decomposed_ops import DECOMPOSED
from torch_ao_ext.quantization.pt2e.representation._products import PRODUCTS
from torch_ao_ext.quantization.pt2e.representation._values import NoFormula

__all__ = ["reference_representation_rewrite"]


_TABLES = {
    "quantized_decomposed": DECOMPOSED,
    "torch_ao": {f"{name}.default": rule for name, rule in {**PRODUCTS, **BETWEEN, **ATTENTION}.items()},
}


def _rule(node: fx.Node) -> Any:
    """The function that writes a node in ATen operators; None where it is one already."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    space, _, name = str(node.target).partition(".")
    if space not in _TABLES:
        return None
    if name not in _TABLES[space]:
        raise NoFormula(f"{space}::{name.removesuffix('.default')} has no form in ATen operators")
    return _TABLES[space][name]


def _arguments(node: fx.Node, proxies: dict[fx.Node, fx.Proxy]) -> tuple[Any, ...]:
    """All arguments in schema order, defaults among them."""
    given = arguments_of(node)
    values = [given.get(a.name, a.default_value) for a in node.target._schema.arguments]
    return fx.map_arg(tuple(values), lambda n: proxies[n])


def _replace(model: fx.GraphModule, node: fx.Node, rule: Any) -> None:
    tracer = fx.proxy.GraphAppendingTracer(model.graph)
    last = node.prev
    with model.graph.inserting_before(node):
        proxies = {n: fx.Proxy(n, tracer) for n in node.all_input_nodes}
        result = rule(*_arguments(node, proxies))
    place = {k: v for k, v in node.meta.items() if k not in ("val", "tensor_meta")}
    while last.next is not node:
        last = last.next
        last.meta.update(place)
    if isinstance(result, tuple):
        for reader in list(node.users):
            assert reader.target is operator.getitem
            reader.replace_all_uses_with(result[reader.args[1]].node)
            model.graph.erase_node(reader)
    else:
        inherit_meta(result.node, node)
        node.replace_all_uses_with(result.node)
    model.graph.erase_node(node)


def reference_representation_rewrite(model: fx.GraphModule) -> fx.GraphModule:
    """The model of a converted graph in integer arithmetic, ATen operators only.

    `dequantize -> op -> quantize` becomes int64 sums of integers less their zero points, one
    float32 multiplication by the scales, bias, activations and rounding: what the operators of
    `torch_ao_ext.lower` compute, written out, for other runtimes and as a definition. It is slow.

    Args:
        model: from convert_pt2e; left as it is.

    Returns:
        A new graph module without operators of this library or `quantized_decomposed`.

    Raises:
        TypeError: not a graph module.
        ValueError: an operator without such a form, by node and line.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
        >>> from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
        >>> x, model = torch.randn(2, 8), torch.nn.Linear(8, 4).eval()
        >>> quantizer = x86.X86InductorQuantizer()
        >>> _ = quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        >>> prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
        >>> _ = prepared(x)
        >>> convert_pt2e(prepared, use_reference_representation=True)(x).shape
        torch.Size([2, 4])
    """
    check_graph_module("reference_representation_rewrite", model)
    _decomposed.operators()
    result = copy_graph_module(integer_graph(model, float_inside=True))
    for node in list(result.graph.nodes):
        value = tensor_of(result, node)
        if value is not None:
            node.meta["val"] = value
    for node in list(result.graph.nodes):
        if node._erased or node.op != "call_function":
            continue
        try:
            rule = _rule(node)
            if rule is not None:
                _replace(result, node, rule)
        except NoFormula as reason:
            raise ValueError(
                "reference_representation_rewrite: argument 'model' must hold operators with a form in "
                f"ATen operators, got {where(node)}: {reason}"
            ) from None
    check_inputs(result, sizes_by_method(result))
    remove_unused(result)
    result.graph.lint()
    result.recompile()
    return result
