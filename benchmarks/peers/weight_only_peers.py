"""A linear layer on 8- or 4-bit weights: onnxruntime's MatMulNBits and nncf.compress_weights in OpenVINO.

Answers are float32 of float32 inputs. What ran: the node in the optimised graph, and the type of the weight
in the runtime model.
"""

import logging

import numpy
import torch

from benchmarks.peers import onnxruntime_peer, openvino_peer

GROUP = 128


def _onnx(w):
    """x `[M, K]` @ w^T as an ONNX model for any M."""
    from onnx import TensorProto, helper, numpy_helper

    n, k = w.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x0", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["m", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", n])],
        [numpy_helper.from_array(numpy.ascontiguousarray(w.numpy().T), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def onnxruntime_file(w, bits, folder):
    """MatMulNBits in groups of 128, int8 arithmetic (accuracy_level 4)."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)
    config = DefaultWeightOnlyQuantConfig(block_size=GROUP, is_symmetric=True, accuracy_level=4, bits=bits)
    quantizer = MatMulNBitsQuantizer(_onnx(w), algo_config=config)
    quantizer.process()
    file = folder / f"nbits{bits}.onnx"
    onnx.save(quantizer.model.model, file)
    return file


def onnxruntime_call(file, m, bits, threads):
    """A session of the file with its own packed weights; m: any."""
    del m
    optimised = file.with_suffix(".optimised.onnx")
    run = onnxruntime_peer.session(file, threads, optimised)
    integer, rest = onnxruntime_peer.weighted(optimised)
    if integer["MatMulNBits"] != 1 or rest:
        raise RuntimeError(f"no {bits}-bit peer: {dict(integer + rest)}")
    return lambda x: torch.from_numpy(run.run(["y"], {"x0": x.numpy()})[0])


def openvino_file(w, bits, folder):
    """Compressed weights: 8 bits per channel or 4 bits in groups of 128."""
    import nncf
    import onnx
    import openvino

    source, file = folder / "float.onnx", folder / f"compressed{bits}.xml"
    onnx.save(_onnx(w), source)
    mode = nncf.CompressWeightsMode
    options = {"mode": mode.INT8_SYM} if bits == 8 else {"mode": mode.INT4_SYM, "group_size": GROUP}
    if bits == 4:
        options |= {"ratio": 1.0, "all_layers": True}
    model = nncf.compress_weights(openvino.Core().read_model(source), **options)
    openvino.save_model(model, file, compress_to_fp16=False)
    return file


def openvino_call(file, m, bits, threads):
    """The file compiled for inputs of m rows, with weights of its own, float32 said explicitly."""
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # two models of one file would share its pages
    model = core.read_model(file)
    model.reshape({"x0": [m, model.input("x0").partial_shape[1].get_length()]})
    compiled = openvino_peer.compiled_model(model, threads, "f32")
    types = openvino_peer.constants(compiled)
    if not any(name in types for name in ((f"i{bits}", f"u{bits}"))):
        raise RuntimeError(f"no {bits}-bit peer: constants of {sorted(types)}")
    return openvino_peer.call_of(compiled, ["x0"])


ENGINES = {
    "onnxruntime": (onnxruntime_file, onnxruntime_call),
    "openvino": (openvino_file, openvino_call),
}
