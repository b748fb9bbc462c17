"""A convolution as onnxruntime's QLinearConv: uint8 in and out, int8 weights per channel, int32 bias.

What ran: the node in the optimised graph.
"""

import numpy
import torch

from benchmarks.peers import onnxruntime_peer


def _model(x, x_qparams, w, w_scale, bias, y_qparams, shape, channels_last):
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "x_scale": numpy.float32(x_qparams[0]),
        "x_zero_point": numpy.uint8(x_qparams[1]),
        "w": w.numpy(),
        "w_scale": w_scale.numpy(),
        "w_zero_point": numpy.zeros(len(w_scale), numpy.int8),
        "y_scale": numpy.float32(y_qparams[0]),
        "y_zero_point": numpy.uint8(y_qparams[1]),
        "bias": bias.numpy(),
    }
    names = ["x", *constants]
    attributes = {
        "kernel_shape": shape.kernel, "strides": shape.stride, "dilations": shape.dilation,
        "pads": shape.padding * 2, "group": shape.groups,
    }  # fmt: skip
    domain = ""
    if channels_last:
        domain, attributes["channels_last"] = "com.microsoft", 1
    node = helper.make_node("QLinearConv", names, ["y"], domain=domain, **attributes)
    unknown = [None] * x.dim()
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, unknown)],
        [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def onnxruntime_call(x, x_qparams, w, w_scale, bias, y_qparams, shape, channels_last, threads, folder):
    """The answer has torch's shape; channels_last: both tensors lie in memory as this library's do."""
    import onnx

    x = x.movedim(1, -1) if channels_last else x
    x = x.contiguous()
    file, optimised = folder / "conv.onnx", folder / "optimised.onnx"
    onnx.save(_model(x, x_qparams, w, w_scale, bias, y_qparams, shape, channels_last), file)
    run = onnxruntime_peer.session(file, threads, optimised)
    integer, rest = onnxruntime_peer.weighted(optimised)
    if integer["QLinearConv"] != 1 or rest:
        raise RuntimeError(f"no int8 peer: {dict(integer + rest)}")
    feeds = {"x": x.numpy()}

    def call():
        y = torch.from_numpy(run.run(["y"], feeds)[0])
        return y.movedim(-1, 1) if channels_last else y

    call()
    return call
