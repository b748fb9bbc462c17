"""torchao: dynamic int8 and pt2e under torch.compile, and pt2e's lowering without a compiler.

What ran: Inductor's counts of fused integer layers and the integer products of one profiled call, or
the operators of the lowered graph. Neither quantizes the tables of embedding bags: they stay in float32,
but for torchao's own operator on int8 rows with one scale (torchao_op_peers.py).
"""

import copy
import logging
import warnings
from collections import Counter

import torch
from torch import nn

from benchmarks.peers import torchao_op_peers
from benchmarks.peers.case import Built, counted, on_integers
from benchmarks.peers.torch_peers import compiled_now

FUSED = ("qconv_weight_prepack_matcher_count", "qlinear_weight_prepack_matcher_count")


def _fusions():
    counts = torch._dynamo.utils.counters["inductor"]
    return Counter({name.split("_")[0]: counts[name] for name in FUSED})


def integer_products(fast, inputs):
    """Calls of torch._int_mm in one forward: layers that Inductor left to it instead of fusing them."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(activities=cpu) as profiler:
        fast(*inputs)
    return Counter(event.name.split("::")[1] for event in profiler.events() if event.name == "aten::_int_mm")


def _ran(case, integer, detail, tables="float32"):
    """on_integers of the layers, and what the tables of bags are of."""
    bags = sum(isinstance(module, nn.EmbeddingBag) for module in case.model.modules())
    text = on_integers(integer, max(0, case.layers - integer), detail)
    return text + (f"; {bags} tables in {tables}" if bags else "")


def _copy(model):
    """A copy that shares the tables of bags, gigabytes that nothing here writes to."""
    tables = [module.weight for module in model.modules() if isinstance(module, nn.EmbeddingBag)]
    return copy.deepcopy(model, {id(table): table for table in tables})


def _compiled(case, module, tables="float32"):
    """Built of `module` under torch.compile; its integer layers counted."""
    before = _fusions()
    fast = compiled_now(module, case.inputs)
    fused = _fusions() - before
    products = integer_products(fast, case.inputs)
    integer = fused.total() + products.total()
    detail = f"Inductor fused {counted(fused)}; products {counted(products)}"
    return Built(fast, _ran(case, integer, detail, tables))


def quantized(model):
    """The model with Int8DynamicActivationInt8Weight in its linear layers."""
    logging.getLogger("torchao").setLevel(logging.CRITICAL)  # CUDA libraries that it cannot load
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def dynamic(case):
    """Int8DynamicActivationInt8Weight under torch.compile with freezing."""
    model = quantized(_copy(case.model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _compiled(case, model)


def int8_bags(case):
    """The same with the workload's `bags` on int8 rows, one scale a table."""
    own = torchao_op_peers.Bags([table.weight for table in case.model.bags.tables])
    model = quantized(_copy(case.model))
    model.bags = own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _compiled(case, model, "int8, one scale")


def _converted(case):
    from torchao.quantization.pt2e import quantize_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = quantize_pt2e.prepare_pt2e(case.exported(), quantizer)
    for inputs in case.calibration():
        prepared(*inputs)
    return quantize_pt2e.convert_pt2e(prepared)


def pt2e_compiled(case):
    """pt2e with the x86 quantizer, torch.compile with freezing."""
    return _compiled(case, _converted(case))


def pt2e_lowered(case):
    """The same graph lowered to oneDNN operators, run without a compiler."""
    from torchao.quantization.pt2e.lowering import lower_pt2e_quantized_to_x86

    lowered = lower_pt2e_quantized_to_x86(_converted(case), case.inputs)
    found = Counter(str(n.target).split(".")[1] for n in lowered.graph.nodes if "onednn.q" in str(n.target))
    integer = Counter(
        {k: v for k, v in found.items() if k.startswith(("qconv", "qlinear")) and "prepack" not in k}
    )
    return Built(lowered, _ran(case, integer.total(), counted(integer)))
