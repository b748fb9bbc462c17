"""Inputs in 8 bits at run time: onnxruntime's DynamicQuantizeLinear, the tensor of torchao's dynamic layers.

What ran: the node of the optimised graph, and the type of the tensor's values.
"""

import warnings

import torch

from benchmarks.peers import onnxruntime_peer


def onnxruntime_call(x, threads, folder):
    """A call without arguments -> (uint8 values, scale, zero point) of x, one scale for the tensor."""
    import onnx
    from onnx import TensorProto, helper

    byte, real = TensorProto.UINT8, TensorProto.FLOAT
    outputs = {"q": (byte, list(x.shape)), "scale": (real, []), "zero": (byte, [])}
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], list(outputs))],
        "quantize",
        [helper.make_tensor_value_info("x", real, list(x.shape))],
        [helper.make_tensor_value_info(name, *facts) for name, facts in outputs.items()],
    )
    file, optimised = folder / "quantize.onnx", folder / "optimised.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), file)
    run = onnxruntime_peer.session(file, threads, optimised)
    kinds = [node.op_type for node in onnx.load(optimised).graph.node]
    if kinds != ["DynamicQuantizeLinear"]:
        raise RuntimeError(f"no 8-bit peer: {kinds}")
    feeds = {"x": x.numpy()}

    def call():
        q, scale, zero_point = run.run(list(outputs), feeds)
        return torch.from_numpy(q), float(scale), int(zero_point)

    return call


def torchao_call(x):
    """A call without arguments -> (int8 values, scale of each row, zero point) of x, uncompiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import Int8Tensor, PerRow

    def call():
        tensor = Int8Tensor.from_hp(x, PerRow())
        return tensor.qdata, tensor.scale, 0

    if call()[0].dtype != torch.int8:
        raise RuntimeError(f"no 8-bit peer: values of {call()[0].dtype}")
    return call
