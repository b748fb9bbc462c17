"""onnxruntime: static (QDQ) and dynamic int8; what ran is the node list of the optimised graph."""

from collections import Counter
from pathlib import Path

import torch

from benchmarks.peers.case import Built, counted, on_integers

INTEGER = (
    "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "QGemm", "QAttention", "DynamicQuantizeLSTM", "MatMulNBits",
)  # fmt: skip
FLOAT = ("Conv", "FusedConv", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "LSTM", "GRU", "NhwcFusedConv")


def session(path, threads, optimised=None):
    """A session with its own pool, idle while the others are timed: its workers must not spin."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if optimised:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def weighted(path):
    """(nodes on integers, nodes in float) by type, of those that hold a weight."""
    import onnx

    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    with_weight = [node for node in graph.node if constants.intersection(node.input)]
    integer = Counter(node.op_type for node in with_weight if node.op_type in INTEGER)
    return integer, Counter(node.op_type for node in with_weight if node.op_type in FLOAT)


def _call(run, names):
    def call(*inputs):
        feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(run.run(["y"], feeds)[0])

    return call


def checked_session(file, threads):
    """(session of an int8 file, what it runs); RuntimeError when that is float."""
    optimised = Path(file).with_suffix(".optimised.onnx")
    run = session(file, threads, optimised)
    integer, rest = weighted(optimised)
    return run, on_integers(integer.total(), rest.total(), counted(integer + rest))


def _built(case, file):
    run, ran = checked_session(file, case.threads)
    return Built(_call(run, case.names), ran, file, "onnxruntime")


def static(case):
    """Static int8."""
    return _built(case, case.onnx_static)


def dynamic(case):
    """Dynamic int8."""
    return _built(case, case.onnx_dynamic)


def load(file, threads):
    """For a fresh process."""
    run = session(file, threads)
    return _call(run, [entry.name for entry in run.get_inputs()])
