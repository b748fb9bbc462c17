"""A sparse int8 linear layer in OpenVINO: uint8 in and out, zeros of the weight left out.

Its CPU plugin has such products on AMX alone, and runs dense ones without a word where it cannot: what ran is
the primitive's name.
"""

import numpy

from benchmarks.peers import openvino_peer
from benchmarks.peers.case import counted

LEAST_ZEROS = 0.5  # the property's share; below it a weight stays dense, 1 is the plugin's "never"


def _model(w, w_scale, bias, x_qparams, y_qparams, m):
    """Dequantized x `[M, K]` @ w^T + bias, quantized: integers throughout once fused."""
    from onnx import TensorProto, helper, numpy_helper

    n, k = w.shape
    constants = {
        "x_scale": numpy.float32(x_qparams[0]), "x_zero_point": numpy.uint8(x_qparams[1]),
        "w": w.numpy(), "w_scale": w_scale.numpy(), "w_zero_point": numpy.zeros(n, numpy.int8),
        "bias": bias.numpy(),
        "y_scale": numpy.float32(y_qparams[0]), "y_zero_point": numpy.uint8(y_qparams[1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero_point"], ["real_x"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero_point"], ["real_w"], axis=0),
        helper.make_node("Gemm", ["real_x", "real_w", "bias"], ["real_y"], transB=1),
        helper.make_node("QuantizeLinear", ["real_y", "y_scale", "y_zero_point"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [m, k])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [m, n])],
        [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def checked(found):
    """RuntimeError unless the layers that ran were one sparse product."""
    if found.total() != 1 or not all("sparse" in name and name.endswith("I8") for name in found):
        raise RuntimeError(f"asked for sparse weights (the engine has them on AMX), ran {counted(found)}")


def openvino_call(x, x_qparams, w, w_scale, bias, y_qparams, threads, folder):
    """A call without arguments on integers x `[M, K]` and w `[N, K]`; RuntimeError where it is dense."""
    import onnx

    file = folder / "sparse.onnx"
    onnx.save(_model(w, w_scale, bias, x_qparams, y_qparams, len(x)), file)
    compiled = openvino_peer.compiled_model(
        str(file), threads, "f32", {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": LEAST_ZEROS}
    )
    checked(openvino_peer.executed(compiled))
    call = openvino_peer.call_of(compiled, ["x"])
    return lambda: call(x)

