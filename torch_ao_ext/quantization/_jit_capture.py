"""A TorchScript program as the graph that torch.export would make."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.quantizer._targets import aten

__all__ = ["captured"]

_CONV = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
_CONV_TRANSPOSE = {
    1: aten.conv_transpose1d.default, 2: aten.conv_transpose2d.input, 3: aten.conv_transpose3d.input,
}  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter logs and prints its steps."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _convolutions(graph: fx.Graph) -> None:
    """Traces hold aten::_convolution for all kinds; in place."""
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not aten.convolution.default:
            continue
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = node.args
        dims = len(stride)
        if transposed:
            node.target = _CONV_TRANSPOSE[dims]
            node.args = (x, weight, bias, stride, padding, output_padding, groups, dilation)
        else:
            node.target = _CONV[dims]
            node.args = (x, weight, bias, stride, padding, dilation, groups)


def _name_layers(graph: fx.Graph) -> None:
    """Operators with a weight lie in the module that holds it; in place."""
    for node in graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        weights = [n.target for n in node.all_input_nodes if n.op == "get_attr" and "." in n.target]
        owner = weights[0].rpartition(".")[0] if weights else ""
        parts = owner.split(".") if owner else []
        names = [".".join(parts[: i + 1]) for i in range(len(parts))]
        node.meta["nn_module_stack"] = {name: (name, "torch.nn.Module") for name in names}


def captured(op: str, program: torch.jit.ScriptModule, inputs: tuple[Any, ...]) -> fx.GraphModule:
    """The graph of a program for these inputs; sizes stay free where the program allows it.

    Args:
        op: for messages.
        program: in evaluation mode.
        inputs: positional.

    Raises:
        ValueError: a program that torch's converter does not take, with its reason.
    """
    try:
        from torch._export.converter import TS2EPConverter

        with _quiet(), torch.no_grad():
            graph = TS2EPConverter(program, inputs, {}).convert().module()
    except Exception as error:
        text = str(error).strip()
        reason = text.splitlines()[-1] if text else "no reason given"
        raise ValueError(
            f"{op}: argument 'model' must be a program that torch can convert to a graph for these inputs, "
            f"got {type(error).__name__}: {reason}"
        ) from error
    _convolutions(graph.graph)
    _name_layers(graph.graph)
    graph.recompile()
    return graph
