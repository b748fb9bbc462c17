"""int8 linear and recurrent layers in a TorchScript program; no inputs are needed."""

from collections.abc import Iterator
from typing import Any

import torch

from torch_ao_ext.nn.quantized._observed import quantize_weight
from torch_ao_ext.nn.quantized.dynamic.modules.linear import dynamic_quant_of
from torch_ao_ext.quantization._jit_recurrent import RECURRENT, constants_of, recurrent_to_int8

__all__ = ["layers_to_int8"]


def _nodes(block: Any, kind: str) -> Iterator[Any]:
    for node in block.nodes():
        if node.kind() == kind:
            yield node
        for inner in node.blocks():
            yield from _nodes(inner, kind)


def _constant(value: Any) -> torch.Tensor | None:
    found = value.toIValue() if value.node().kind() == "prim::Constant" else None
    return found if isinstance(found, torch.Tensor) else None


def _replace(graph: Any, node: Any, weight: torch.Tensor, qconfig: Any) -> None:
    x, _, bias = node.inputs()
    parts = quantize_weight(weight, qconfig)
    rule = dynamic_quant_of(qconfig)
    graph.setInsertPoint(node)
    zero_point = graph.insertConstant(parts.zero_point)
    constants = [graph.insertConstant(value) for value in (parts.data, parts.scale)]
    flags = [graph.insertConstant(flag) for flag in rule]
    none, no_post_ops = graph.insertConstant(None), graph.insertConstant("")
    numbers = graph.insertNode(graph.create("prim::ListConstruct", [], 1)).output()
    numbers.setType(torch._C.ListType(torch._C.FloatType.get()))
    arguments = [x, *constants, zero_point, bias, *flags, none, no_post_ops, numbers]
    # A program has every argument: those behind are tensors of post-ops.
    schema = torch.ops.torch_ao.linear_dynamic.default._schema
    arguments += [none] * (len(schema.arguments) - len(arguments))
    made = graph.create("torch_ao::linear_dynamic", arguments, 1)
    made.insertBefore(node)
    made.output().setType(node.output().type())
    node.output().replaceAllUsesWith(made.output())
    node.destroy()


def layers_to_int8(program: torch.jit.ScriptModule, qconfig_of: Any) -> torch.jit.ScriptModule:
    """A frozen copy whose linear layers are `torch_ao::linear_dynamic`, recurrent ones `torch_ao::lstm` ...

    Args:
        program: in evaluation mode.
        qconfig_of: name of a module -> its QConfig or None.

    Raises:
        ValueError: a weight that is not finite, a QConfig that is not for int8 weights, no layer.
    """
    names = {p.data_ptr(): name.rpartition(".")[0] for name, p in program.named_parameters()}
    frozen = torch.jit.freeze(program, optimize_numerics=False)
    graph = frozen.graph
    count = 0
    for node in list(_nodes(graph, "aten::linear")):
        weight = _constant(list(node.inputs())[1])
        if weight is None:
            continue
        name = names.get(weight.data_ptr(), "")
        qconfig = qconfig_of(name)
        if qconfig is None:
            continue
        try:
            _replace(graph, node, weight, qconfig)
        except ValueError as error:
            raise ValueError(f"quantize_dynamic_jit: '{name}': {error}") from error
        count += 1
    for node in [found for kind in RECURRENT for found in _nodes(graph, kind)]:
        params = constants_of(node)
        name = "" if params is None else names.get(params[0].data_ptr(), "")
        qconfig = None if params is None else qconfig_of(name)
        if qconfig is None:
            continue
        try:
            count += recurrent_to_int8(graph, node, params, qconfig)
        except ValueError as error:
            raise ValueError(f"quantize_dynamic_jit: '{name}': {error}") from error
    if not count:
        raise ValueError(
            "quantize_dynamic_jit: argument 'model' must hold a linear or recurrent layer whose module has a "
            "QConfig in qconfig_dict, got none"
        )
    torch._C._jit_pass_dce(graph)
    return frozen
