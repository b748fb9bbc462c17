"""The float weights that the int8 weights of a converted graph come from."""

from typing import Any

from torch import fx

from torch_ao_ext._graph_ops import FUSED, arguments_of
from torch_ao_ext.quantization.pt2e._graph import copy_graph_module, tensor_of
from torch_ao_ext.quantization.pt2e._qat import fold_trained
from torch_ao_ext.quantization.quantizer._targets import CONV, CONV_TRANSPOSE, LINEAR, argument, is_call

__all__ = ["original_weights"]


def original_weights(lowered: fx.GraphModule, prepared: fx.GraphModule) -> dict[str, list[Any]]:
    """Name of each int8 weight -> float weight and bias (None without one), batch norms folded in.

    Args:
        lowered: the int8 graph of `prepared`.
        prepared: with ranges; left as it is.
    """
    prepared = copy_graph_module(prepared)
    fold_trained(prepared)
    products = {n.name: n for n in prepared.graph.nodes if is_call(n, LINEAR | CONV | CONV_TRANSPOSE)}
    found = {}
    for node in lowered.graph.nodes:
        fused = node.meta.get(FUSED)
        product = next((products[name] for name in fused.nodes if name in products), None) if fused else None
        source = arguments_of(node).get("weight") if product is not None else None
        if isinstance(source, fx.Node) and source.op == "get_attr":
            found[source.target] = [_tensor(prepared, argument(product, place)) for place in (1, 2)]
    return found


def _tensor(graph: fx.GraphModule, node: Any) -> Any:
    while isinstance(node, fx.Node) and node.op == "call_module":  # observers
        node = node.args[0]
    value = tensor_of(graph, node)
    return None if value is None else value.detach().clone()
