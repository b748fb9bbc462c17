"""torch_ao_ext itself: dynamic int8 eager, traced and compiled, and pt2e; what ran is its report."""

import copy
from collections import Counter

from torch import nn

from benchmarks.harness import peers
from benchmarks.peers.case import Built, counted, on_integers
from benchmarks.peers.torch_peers import compiled_now

WITH_WEIGHTS = ("linear", "conv", "lstm", "gru", "rnn", "bag")


def _ran(model):
    report = peers.ours().report(model)
    layers = [row for row in report.rows if row.op not in report.functions]  # upsample_bilinear2d is none
    rows = [row for row in layers if any(k in row.op.lower() for k in WITH_WEIGHTS)]
    integer = Counter(row.op for row in rows if row.status == "int8")
    rest = Counter(f"float {row.op}" for row in rows if row.status != "int8")
    return on_integers(integer.total(), rest.total(), counted(integer + rest))


def _dynamic_model(case):
    kinds = {nn.Linear, nn.LSTM, nn.GRU, nn.EmbeddingBag}
    return peers.ours().quantization.quantize_dynamic(case.model, kinds)


def dynamic(case):
    """quantize_dynamic, eager."""
    model = _dynamic_model(case)
    return Built(model, _ran(model))


def dynamic_traced(case):
    """quantize_dynamic, traced and frozen."""
    model = _dynamic_model(case)
    traced, file = case.traced(model, "own_dynamic")
    return Built(traced, _ran(model), file, "torch_ao_ext")


def dynamic_compiled(case):
    """quantize_dynamic under torch.compile."""
    model = _dynamic_model(case)
    return Built(compiled_now(model, case.inputs), _ran(model))


def x86_quantizer(is_dynamic=False):
    """X86InductorQuantizer with its default config."""
    from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(is_dynamic=is_dynamic)
    return x86.X86InductorQuantizer().set_global(config)


def _xnnpack_quantizer():
    from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack

    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    return xnnpack.XNNPACKQuantizer().set_global(config)


def _lowered(case, quantizer=None):
    ao = peers.ours()
    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = quantizer or x86_quantizer()
    prepared = prepare_pt2e(case.exported(), quantizer)
    for inputs in case.calibration():
        prepared(*inputs)
    return ao.lower(convert_pt2e(prepared), case.inputs)


def pt2e(case):
    """The lowered graph, eager, its operators in islands."""
    lowered = _lowered(case)
    return Built(lowered, _ran(lowered))


def pt2e_traced(case):
    """The lowered graph, traced and frozen."""
    lowered = _lowered(case)
    traced, file = case.traced(lowered, "own_pt2e")
    return Built(traced, _ran(lowered), file, "torch_ao_ext")


def pt2e_xnnpack_traced(case):
    """The graph of XNNPACKQuantizer, weights per channel, traced and frozen."""
    lowered = _lowered(case, _xnnpack_quantizer())
    traced, file = case.traced(lowered, "own_pt2e_xnnpack")
    return Built(traced, _ran(lowered), file, "torch_ao_ext")


def pt2e_dynamic(case):
    """The graph lowered with inputs of linear layers quantized at run time, one scale for a tensor, eager."""
    lowered = _lowered(case, x86_quantizer(is_dynamic=True))
    return Built(lowered, _ran(lowered))


def pt2e_rows(case):
    """The same with a scale for each row of an input."""
    from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

    config = x86.get_x86_inductor_row_dynamic_config()
    lowered = _lowered(case, x86.X86InductorQuantizer().set_global(config))
    return Built(lowered, _ran(lowered))


def pt2e_compiled(case):
    """The lowered graph under torch.compile."""
    lowered = _lowered(case)
    return Built(compiled_now(lowered, case.inputs), _ran(lowered))


def eager_traced(case):
    """Eager mode with edges found by itself, traced and frozen."""
    from torch_ao_ext import quantization as tq

    model = copy.deepcopy(case.model)
    model.qconfig = tq.get_default_qconfig("x86")
    prepared = tq.prepare(model, auto_edges=True)
    for inputs in case.calibration():
        prepared(*inputs)
    converted = tq.convert(prepared)
    traced, file = case.traced(converted, "own_eager")
    return Built(traced, _ran(converted), file, "torch_ao_ext")


def fx_traced(case):
    """FX graph mode, traced and frozen."""
    from torch_ao_ext.quantization import get_default_qconfig_mapping
    from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx

    prepared = prepare_fx(copy.deepcopy(case.model), get_default_qconfig_mapping("x86"), case.inputs)
    for inputs in case.calibration():
        prepared(*inputs)
    converted = convert_fx(prepared)
    traced, file = case.traced(converted, "own_fx")
    return Built(traced, _ran(converted), file, "torch_ao_ext")


def load(file, threads):
    """For a fresh process."""
    peers.ours()
    from benchmarks.peers.torch_peers import load_torchscript

    return load_torchscript(file, threads)
