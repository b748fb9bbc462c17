"""Shapes without values: free sizes, the meta device."""

import torch
from fake_refusals import S8, W, X
from fake_values import floats, weights
from torch._dynamo.testing import CompileCounterWithBackend

ops = torch.ops.torch_ao


def test_symbolic_sizes_add_no_guard():
    """One graph serves every batch and every length: no size of it is specialised."""
    torch._dynamo.reset()
    w, s, _, bias = weights(16, 8)

    def f(x):
        y = ops.linear_dynamic(x, w, s, None, bias)
        scales, points = ops.choose_qparams_per_token(y, 0, 255)
        q = ops.quantize_per_token(y, scales, points, 0, 255, torch.uint8)
        return ops.dequantize_per_token(q, scales, points)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend=counter)
    for shape in ((3, 4, 8), (2, 7, 8), (9, 5, 8)):
        x = floats(*shape)
        assert torch.equal(compiled(x), f(x))
    assert counter.frame_count == 1


def test_meta_device():
    y = ops.linear_dynamic(X.to("meta"), W.to("meta"), S8.to("meta"))
    assert y.device.type == "meta" and y.shape == (4, 5)
