"""OpenVINO: onnxruntime's QDQ file, nncf.quantize, float32 and bfloat16; what ran is its runtime model.

The CPU plugin would run float layers in bfloat16 where the CPU has it, so that the precision is always said.
"""

import logging
from collections import Counter

import torch

from benchmarks.peers.case import Built, counted, on_integers

PRODUCTS = (
    "Convolution",
    "FullyConnected",
    "Deconvolution",
    "LSTMSequence",
    "LSTMCell",
    "GRUSequence",
    "RNNSeq",
)


def compiled_model(model, threads, precision, properties=None):
    """A model or file compiled for the CPU with a pool of its own; properties: more of the plugin's."""
    import openvino

    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        **(properties or {}),
    }
    return openvino.Core().compile_model(model, "CPU", options)


def executed(compiled):
    """How many layers with weights ran as what: {'Convolution brgconv_avx512_I8': 20}."""
    found = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kind, primitive = (_text(facts[key]) for key in ("layerType", "primitiveType"))
        if kind in PRODUCTS:
            found[f"{kind} {primitive}"] += 1
    return found


def constants(compiled):
    """Types of the constants in memory, {'i8', 'f32'}."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return {_text(f["runtimePrecision"]) for f in facts if _text(f["layerType"]) == "Const"}


def _text(value):
    return value if isinstance(value, str) else value.astype(str)


def call_of(compiled, names):
    """Tensors -> tensor."""
    request = compiled.create_infer_request()

    def call(*inputs):
        feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(request.infer(feeds, share_inputs=True)[0].copy())

    return call


def _int8(case, model, file):
    compiled = compiled_model(model, case.threads, "f32")
    found = executed(compiled)
    integer = sum(count for name, count in found.items() if name.lower().endswith(("_i8", "_u8")))
    ran = on_integers(integer, found.total() - integer, counted(found))
    return Built(call_of(compiled, case.names), ran, file, "openvino")


def static(case):
    """The same QDQ file as onnxruntime's static int8."""
    import openvino

    return _int8(case, openvino.Core().read_model(case.onnx_static), case.onnx_static)


def nncf_quantized(case):
    """nncf's own static int8 of the float file."""
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    data = nncf.Dataset([case.feeds(x) for x in case.calibration()])
    kind = nncf.ModelType.TRANSFORMER if case.workload.transformer else None
    model = nncf.quantize(
        openvino.Core().read_model(case.onnx), data, model_type=kind, subset_size=len(case.calibration())
    )
    file = case.folder / "nncf.xml"
    openvino.save_model(model, file, compress_to_fp16=False)
    return _int8(case, model, file)


def _float(case, precision, suffix):
    import openvino

    compiled = compiled_model(openvino.Core().read_model(case.onnx), case.threads, precision)
    found = executed(compiled)
    if not any(name.lower().endswith(suffix) for name in found):
        raise RuntimeError(f"asked for {precision}, ran {counted(found)}")
    return Built(call_of(compiled, case.names), counted(found), case.onnx, f"openvino {precision}")


def float32(case):
    """float32, said explicitly."""
    return _float(case, "f32", ("f32", "fp32"))


def bfloat16(case):
    """bfloat16; raises where the plugin falls back to float32."""
    return _float(case, "bf16", ("bf16",))


def load(file, threads, precision="f32"):
    """For a fresh process."""
    compiled = compiled_model(str(file), threads, precision)
    return call_of(compiled, [entry.get_any_name() for entry in compiled.inputs])
