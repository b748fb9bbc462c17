"""ExecuTorch with XNNPACK: static int8 for convolutional networks, dynamic int8 for transformers.

What ran is the lowered program: every product must lie in a delegate and between dequantize operators.
"""

import contextlib
import os
from collections import Counter

import torch

from benchmarks.peers.case import Built, counted, on_integers

PRODUCTS = ("convolution", "linear", "addmm", "mm", "bmm")


@contextlib.contextmanager
def quiet():
    """The runtime tells on stderr which files of other systems it does not find."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _quantized(case):
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    dynamic = case.workload.transformer
    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
    quantizer = XNNPACKQuantizer().set_global(config)
    if dynamic:
        # It makes float tensors of all constants; positions in a mask become float and fail as indices.
        quantizer.transform_for_annotation = lambda model: model
    prepared = prepare_pt2e(case.exported(), quantizer)
    for inputs in case.calibration():
        prepared(*inputs)
    return convert_pt2e(prepared)


def _name(node):
    target = node.target
    return (target.name() if hasattr(target, "name") else str(target)).split("::")[-1].split(".")[0]


def _is_int8(node):
    """A product whose weight was dequantized for it."""
    seen, todo = set(), list(node.all_input_nodes[1:])
    while todo:
        source = todo.pop()
        if source in seen:
            continue
        seen.add(source)
        if source.op == "call_function" and "dequantize" in _name(source):
            return True
        if source.op == "call_function" and _name(source) in (
            "permute_copy",
            "t_copy",
            "view_copy",
            "permute",
        ):
            todo += source.all_input_nodes
    return False


def executed(program):
    """(products on integers in a delegate, other products with a weight) by name."""
    integer, rest = Counter(), Counter()
    module = program.exported_program().graph_module
    delegated = [
        getattr(module, n.target).original_module.graph for n in module.graph.nodes if n.op == "get_attr"
    ]
    for graph in (module.graph, *delegated):
        for node in graph.nodes:
            if node.op == "call_function" and _name(node) in PRODUCTS:
                if graph is not module.graph and _is_int8(node):
                    integer[_name(node)] += 1
                elif _name(node) != "bmm":  # attention, no weight
                    rest[f"float {_name(node)}"] += 1
    return integer, rest


def xnnpack(case):
    """A .pte file of the int8 model."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with quiet():
        exported = torch.export.export(_quantized(case), case.inputs)
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        integer, rest = executed(program)
        ran = on_integers(integer.total(), rest.total(), counted(integer + rest))
        file = case.folder / "model.pte"
        file.write_bytes(program.to_executorch().buffer)
        return Built(load(file, case.threads), ran, file, "executorch")


def load(file, threads):
    """A call of the file's method; its pool has `threads` threads."""
    with quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        method = Runtime.get().load_program(file).load_method("forward")
    return lambda *inputs: method.execute(list(inputs))[0].clone()
