"""Every op gives the same bits on 1, 2 and 3 threads, for work that is shared among them."""

import op_reference as reference
import pytest
import torch
from op_cases import ENGINES, random_int, weight_problem

ops = torch.ops.torch_ao
U8, S8 = torch.uint8, torch.int8


# [M, N, K] of 1.5 to 12 million multiply-adds: an engine shares them from 0.2 to 0.4 million on.
# One row, few rows, more rows than columns (rows are cut), more columns than rows.
SHAPES = [(1, 1500, 1030), (5, 700, 515), (33, 2100, 130), (700, 96, 129), (400, 65, 64), (150, 300, 130)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [U8, S8, torch.float32, torch.bfloat16])
def test_linear(engine, shape, dtype, forced, on_threads, rng):
    forced(engine)
    m, n, k = shape
    weight, scale, zero_point, bias = weight_problem(rng, n, k, zero_points=engine != "xnnpack")
    x = random_int(rng.choice([U8, S8]), m, k)
    output = (1.0, 0) if dtype.is_floating_point else (0.3 * k**0.5, 5)
    call = (x, 0.02, 7, weight, scale, zero_point, bias, *output, dtype)
    y = on_threads(lambda: ops.linear(*call, "relu"))
    if engine != "xnnpack":  # its bound is tested in test_linear.py
        assert torch.equal(y, reference.linear(*call, "relu"))
    # A weight that was packed for 3 threads serves 1, and one row alone is the row of the batch.
    assert torch.equal(on_threads(lambda: ops.linear(x[m // 2 :][:1], *call[1:], "relu")), y[m // 2 :][:1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_dynamic(engine, shape, per_row, dtype, forced, on_threads, rng):
    forced(engine)
    m, n, k = shape
    x = (torch.randn(m, k) * torch.logspace(-2, 2, m).unsqueeze(1)).to(dtype)
    problem = weight_problem(rng, n, k, zero_points=engine != "xnnpack")
    flags = (per_row, rng.random() < 0.5, rng.random() < 0.5)
    y = on_threads(lambda: ops.linear_dynamic(x, *problem, *flags))
    if engine != "xnnpack":
        assert torch.equal(y, reference.linear_dynamic(x, *problem, *flags))


# 32768 elements are a thread's least share of an elementwise op.
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.view(10, 41, 10, 50).to(memory_format=torch.channels_last),
    "transposed": lambda x: x.t(),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantize(layout, dtype, on_threads):
    x = LAYOUTS[layout](torch.randn(50, 4100).to(dtype))
    s, z = on_threads(lambda: ops.choose_qparams_per_token(x, -128, 127))
    on_threads(lambda: ops.choose_qparams(x, 0, 255))
    q = on_threads(lambda: ops.quantize_per_token(x, s, z, -128, 127, S8))
    on_threads(lambda: ops.dequantize_per_token(q, s, z, dtype))
    q = on_threads(lambda: ops.quantize_per_tensor(x, 0.02, 3, 0, 255, U8))
    on_threads(lambda: ops.dequantize_per_tensor(q, 0.02, 3, dtype))
    for axis in range(-1, x.dim() - 1):
        c = x.shape[axis]
        scales, points = torch.rand(c) + 0.01, torch.randint(-128, 128, (c,))
        q = on_threads(lambda a=(scales, points, axis): ops.quantize_per_channel(x, *a, -128, 127, S8))
        on_threads(lambda a=(scales, points, axis), q=q: ops.dequantize_per_channel(q, *a, dtype))


def test_between_layers(on_threads):
    """Rows, channels, lines and pieces of one, each beyond the work that a thread takes at least."""
    rows, image = random_int(S8, 700, 130), random_int(U8, 3, 40, 61, 70)
    weight, bias = torch.randn(130), torch.randn(40)
    out, table = (0.03, 100, U8), random_int(U8, 40, 256)
    on_threads(lambda: ops.layer_norm(rows, 0.1, 3, weight, None, *out, [130]))
    on_threads(lambda: ops.add_layer_norm_sum(rows, 0.1, 3, rows.float(), 1.0, 0, weight, None, *out, [130]))
    long = random_int(U8, 1, 3, 200_001)
    for x in (image, image.to(memory_format=torch.channels_last)):
        on_threads(lambda x=x: ops.group_norm(x, 0.1, 3, bias, bias, *out, 8))
        on_threads(lambda x=x: ops.batch_norm(x, 0.1, 3, bias, bias.abs() + 0.1, None, None, *out))
        on_threads(lambda x=x: ops.interpolate(x, 0.1, 3, 0.1, 3, None, [90, 35], "bilinear"))
        on_threads(lambda x=x: ops.interpolate(x, 0.1, 3, 0.1, 3, None, [90, 35]))
        on_threads(lambda x=x: ops.cat([x, x], [0.1, 0.2], [3, 4], 1, *out))
        on_threads(lambda x=x: ops.max_pool2d(x, [3, 3], [2, 2], [1, 1]))
        on_threads(lambda x=x: ops.lookup(x, table))
    on_threads(lambda: ops.max_pool1d(long, [3], [1], [1]))
    on_threads(lambda: ops.cat([long, long], [0.1, 0.2], [3, 4], 0, *out))
    on_threads(lambda: ops.requantize(long, 0.1, 3, 0.1, 3, U8, "relu"))
