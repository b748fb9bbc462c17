"""Valid calls of the elementwise and pooling ops, and their exact results (op_samples.py)."""

import numpy as np
import torch
import torch.nn.functional as functional
from op_cases import random_int

U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16
F = np.float32


def _inputs(dtype):
    return [
        random_int(dtype, 3, 70),
        random_int(dtype, 2, 6, 4, 5).contiguous(memory_format=torch.channels_last),
        random_int(dtype, 5, 12)[:, ::2],
        random_int(dtype, 2, 0, 3),
        random_int(dtype, 7, 130).t(),
    ]


_OUTPUTS = [(0.3, 9, None), (0.02, -9, S8), (1.0, 0, F32), (1.0, 0, BF16), (0.05, 255, U8)]
_POST_OPS = [("", []), ("relu", []), ("clamp", [-1.0, 1.0]), ("gelu", []), ("leaky_relu,sigmoid", [0.1])]


def requantize_calls():
    calls = []
    for i, (out, post) in enumerate(zip(_OUTPUTS, _POST_OPS, strict=True)):
        dtype = (U8, S8)[i % 2]
        calls.append((_inputs(dtype)[i], 0.1, (7, -7)[i % 2], *out, *post))
    floats, bf16 = torch.randn(3, 70), torch.randn(130, 7).to(BF16).t()
    return [
        *calls,
        (random_int(U8, 80, 60), 0.1, 7, 0.01, 3, None, "tanh", []),
        (random_int(S8, 70, 80).t(), 0.1, -7, 0.3, 9, U8, "leaky_relu", [0.2]),
        (floats, 1.0, 0, 0.02, 100, U8, "gelu", []),
        (bf16, 1.0, 0, 0.02, -3, S8, "relu", []),
        (floats[:, ::2], 1.0, 0, 1.0, 0, None, "", []),
    ]


def binary_calls():
    calls = []
    for i, (out, post) in enumerate(zip(_OUTPUTS, _POST_OPS, strict=True)):
        a, b = _inputs((U8, S8)[i % 2])[i], _inputs((S8, U8)[i // 2 % 2])[i]
        calls.append((a, 0.1, 7, b, 0.05, 3, *out, *post))
    row, column = random_int(U8, 4, 1, 6), random_int(S8, 5, 1)
    scalar = random_int(U8)
    return [
        *calls,
        (row, 0.1, 7, column, 0.05, -3, *_OUTPUTS[0], *_POST_OPS[1]),
        (row, 0.1, 7, scalar, 0.05, 3, *_OUTPUTS[1], *_POST_OPS[0]),
        (scalar, 0.1, 7, row.expand(3, 4, 2, 6), 0.05, 3, *_OUTPUTS[0], *_POST_OPS[0]),
    ]


def _images(rank):
    size = (7, 6, 5)[-rank:]
    x = random_int(S8, 2, 5, *size)
    nhwc = random_int(U8, 2, *size, 70).movedim(-1, 1)
    return [x, nhwc, random_int(U8, 1, 3, *size).transpose(1, -1).contiguous().transpose(1, -1), x[:0]]


def max_pool_calls(rank):
    x, nhwc, other, empty = _images(rank)
    two, one, zero, three = ([n] * rank for n in (2, 1, 0, 3))
    return [
        (x, two, None, zero, one, False),
        (nhwc, three, two, one, one, True),
        (other, two, one, zero, two, False),
        (nhwc, three, three, one, two, False),
        (empty, two, two, zero, one, False),
    ]


def avg_pool_calls(rank):
    x, nhwc, other, empty = _images(rank)
    two, one, zero, three = ([n] * rank for n in (2, 1, 0, 3))
    return [
        (x, 0.1, -7, *_OUTPUTS[0], two, None, zero, False, True, None),
        (nhwc, 0.1, 7, *_OUTPUTS[1], three, two, one, True, True, None),
        (nhwc, 0.1, 7, *_OUTPUTS[2], three, two, one, True, False, None),
        (other, 0.1, 7, *_OUTPUTS[3], three, one, one, False, False, 5),
        (empty, 0.1, 7, *_OUTPUTS[4], two, two, zero, False, True, -3),
    ]


def adaptive_calls(rank):
    x, nhwc, other, empty = _images(rank)
    return [
        (x, 0.1, -7, *_OUTPUTS[0], [1] * rank),
        (nhwc, 0.1, 7, *_OUTPUTS[1], [3] * rank),
        (other, 0.1, 7, *_OUTPUTS[2], [11] * rank),
        (nhwc, 0.1, 7, *_OUTPUTS[3], [2] * rank),
        (empty, 0.1, 7, *_OUTPUTS[4], [2] * rank),
    ]


def lookup_calls():
    dtypes = (U8, S8, F32, BF16)
    calls = []
    for i, x in enumerate([*_inputs(U8), *_inputs(S8)]):
        kind = dtypes[i % 4]
        table = random_int(kind, 256) if kind in (U8, S8) else torch.randn(256).to(kind)
        calls.append((x, table, 1))
    nhwc = calls[1][0]
    return [
        *calls,
        (random_int(S8, 3, 5, 7), random_int(S8, 5, 256), 1),
        (nhwc, torch.randn(6, 256), 1),
        (nhwc, random_int(U8, 5, 512)[:, ::2], -1),
    ]


def contiguous_calls():
    memory = [random_int(S8, *sizes) for sizes in ((2, 70, 3), (1, 5, 5, 21), (2, 2, 3, 4, 70))]
    last = [x.movedim(-1, 1) for x in (*memory, *(m.float() for m in memory), memory[0].to(BF16))]
    return [(x,) for x in (*_inputs(U8), *_inputs(S8), *last, random_int(U8))]


def cat_calls(n=5, k=3):
    a, b, c = random_int(U8, 2, n, k), random_int(S8, 2, 4, k), random_int(U8, 2, 1, k)
    images = [random_int(U8, 2, 3, 4, n).movedim(-1, 1) for n in (n, 66)]
    return [
        ([a, b, c], [0.1, 0.05, 0.3], [7, -3, 9], 1, *_OUTPUTS[0]),
        ([a], [0.1], [7], 0, *_OUTPUTS[1]),
        (images, [0.1, 0.3], [7, 9], 1, *_OUTPUTS[0]),
        ([images[0], images[0].contiguous()], [0.1, 0.2], [7, 9], -1, *_OUTPUTS[2]),
        ([b.transpose(0, 1), b.transpose(0, 1)], [0.1, 0.2], [7, 9], 2, *_OUTPUTS[3]),
        ([a[:0], a, a[:0]], [0.1, 0.3, 0.2], [7, 9, 0], 0, *_OUTPUTS[0]),
    ]


def interpolate_calls():
    images = {rank: _images(rank) for rank in (1, 2, 3)}
    x, nhwc, other, empty = images[2]
    return [
        (images[1][0], 0.1, -7, *_OUTPUTS[0], [11], "nearest", False, []),
        (images[3][1], 0.1, 7, *_OUTPUTS[1], [3, 12, 5], "nearest", False, [0.5, 2.0, 1.0]),
        (nhwc, 0.1, 7, 0.1, 7, None, [12, 10], "nearest", False, []),
        (x, 0.1, -7, *_OUTPUTS[2], [4, 13], "nearest", False, []),
        (x, 0.1, -7, *_OUTPUTS[0], [12, 10], "bilinear", False, []),
        (nhwc, 0.1, 7, 0.1, 7, None, [12, 10], "bilinear", False, []),
        (nhwc, 0.1, 7, *_OUTPUTS[1], [3, 17], "bilinear", True, []),
        (other, 0.1, 7, *_OUTPUTS[2], [9, 8], "bilinear", False, [1.5, 1.7]),
        (nhwc, 0.1, 7, *_OUTPUTS[3], [1, 1], "bilinear", True, []),
        (empty, 0.1, 7, *_OUTPUTS[4], [2, 2], "bilinear", False, []),
    ]


def int8_samples():
    """name -> calls, as op_samples.samples()."""
    result = {
        "requantize": requantize_calls(),
        "add": binary_calls(),
        "mul": binary_calls(),
        "contiguous": contiguous_calls(),
        "lookup": lookup_calls(),
        "interpolate": interpolate_calls(),
    }
    for rank in (1, 2, 3):
        result[f"max_pool{rank}d"] = max_pool_calls(rank)
        result[f"avg_pool{rank}d"] = avg_pool_calls(rank)
        result[f"adaptive_avg_pool{rank}d"] = adaptive_calls(rank)
    return result


# --- exact results ------------------------------------------------------------


def real(q, scale, zero_point):
    return ((q.numpy().astype(np.int64) - zero_point).astype(F) * F(scale)).astype(F)


def finish(r, input_dtype, scale, zero_point, dtype, post_ops="", numbers=(), divide=False):
    """Post-ops and quantize, each step one float32 operation; None for inexact post-ops."""
    numbers = list(numbers)
    for name in filter(None, post_ops.split(",")):
        if name == "relu":
            r = np.maximum(r, F(0))
        elif name == "clamp":
            r = np.minimum(F(numbers[1]), np.maximum(F(numbers[0]), r))
            del numbers[:2]
        elif name == "leaky_relu":
            r = np.where(r < 0, F(numbers.pop(0)) * r, r)
        else:
            return None
    dtype = dtype or input_dtype
    if dtype in (F32, BF16):
        return torch.from_numpy(np.array(r)).to(dtype)
    info = torch.iinfo(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        v = (r / F(scale) if divide else r * F(1.0 / scale)).astype(F)
        v = np.rint(v).astype(np.float64) + zero_point
    v = np.where(np.isnan(v), info.min, np.clip(v, info.min, info.max))  # inf * 0
    return torch.from_numpy(v).to(dtype)


def requantize(args):
    x, scale, zero_point, *rest = args
    values = real(x, scale, zero_point) if x.dtype in (U8, S8) else x.float().numpy()
    return finish(values, x.dtype, *rest)


def lookup(args):
    x, table, axis = args
    index = x.long() - torch.iinfo(x.dtype).min
    if table.dim() == 1:
        return table[index]
    rows = torch.arange(x.shape[axis]).view([-1 if d == axis % x.dim() else 1 for d in range(x.dim())])
    return table[rows.expand(x.shape), index]


def cat(args):
    tensors, scales, zero_points, dim, *out = args
    parts = [torch.from_numpy(real(*t)) for t in zip(tensors, scales, zero_points, strict=True)]
    return finish(torch.cat(parts, dim).numpy(), tensors[0].dtype, *out)


def _positions(size, out, scale, linear, align_corners):
    """first, second neighbour and weight of the second, float32 as torch has them."""
    step = F(1.0 / scale) if scale else F(F(size) / F(out))
    if align_corners:
        step = F(F(size - 1) / F(out - 1)) if out > 1 else F(0)
    o = np.arange(out).astype(F)
    if not linear:
        first = np.minimum(np.minimum((o * step).astype(F), F(size - 1)).astype(np.int64), size - 1)
        return first, first, np.zeros(out, F)
    source = (o * step).astype(F) if align_corners else (((o + F(0.5)) * step).astype(F) - F(0.5)).astype(F)
    source = np.maximum(source, F(0))
    first = np.minimum(np.minimum(source, F(size - 1)).astype(np.int64), size - 1)
    weight = np.minimum((source - first.astype(F)).astype(F), F(1))
    return first, np.minimum(first + 1, size - 1), weight


def interpolate(args):
    x, scale, zero_point, s_y, z_y, dtype, size, mode, align_corners, factors = args
    if (s_y, z_y, dtype or x.dtype) == (scale, zero_point, x.dtype):
        scale = s_y = 1.0  # counted in steps
    if np.prod(size, dtype=float) * x.shape[0] * x.shape[1] > 1e6:
        return None
    factors, linear = list(factors or [0] * len(size)), mode == "bilinear"
    axes = [
        _positions(n, int(m), f, linear, align_corners)
        for n, m, f in zip(x.shape[2:], size, factors, strict=True)
    ]
    if not linear:
        q = x
        for d, (first, _, _) in enumerate(axes):
            q = q.index_select(2 + d, torch.from_numpy(first))
        return finish(real(q, scale, zero_point), x.dtype, s_y, z_y, dtype)
    d = (x.numpy().astype(np.int64) - zero_point).astype(F)
    (y0, y1, v), (x0, x1, u) = axes
    down, along = np.stack([F(1) - v, v])[:, :, None], np.stack([F(1) - u, u])[:, None, :]

    def part(i, j):
        rows = d[:, :, (y0, y1)[i]][:, :, :, (x0, x1)[j]]
        return (rows * (down[i] * along[j]).astype(F)).astype(F)

    r = ((part(0, 0) + part(0, 1)).astype(F) + (part(1, 0) + part(1, 1)).astype(F)).astype(F)
    return finish((r * F(scale)).astype(F), x.dtype, s_y, z_y, dtype)


def add(args):
    a, s_a, z_a, b, s_b, z_b, *rest = args
    return finish((real(a, s_a, z_a) + real(b, s_b, z_b)).astype(F), a.dtype, *rest)


def mul(args):
    a, s_a, z_a, b, s_b, z_b, *rest = args
    return finish((real(a, s_a, z_a) * real(b, s_b, z_b)).astype(F), a.dtype, *rest)


def listed(values, rank):
    return [int(values)] * rank if not isinstance(values, (list, tuple)) else [int(v) for v in values]


def too_small(x, kernel, padding, dilation):
    """torch refuses these, or some of them."""
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    return any(s < r for s, r in zip(x.shape[2:], reach, strict=True))


def max_pool(rank, args):
    x = args[0]
    kernel, padding, dilation = (listed(args[i], rank) for i in (1, 3, 4))
    stride = kernel if args[2] in (None, []) else listed(args[2], rank)
    wide = any(p > k // 2 for p, k in zip(padding, kernel, strict=True))  # torch ignores the dilation here
    if wide or too_small(x, kernel, padding, dilation):
        return None
    pool = getattr(functional, f"max_pool{rank}d")
    pooled = pool(x.double(), kernel, stride, padding, dilation, bool(args[5]))
    return pooled.clamp(min=torch.iinfo(x.dtype).min).to(x.dtype)


def avg_pool(rank, args):
    x, scale, zero_point, s_y, z_y, dtype, kernel, stride, padding, ceil_mode, include, divisor = args
    kernel, padding = listed(kernel, rank), listed(padding, rank)
    stride = kernel if stride in (None, []) else listed(stride, rank)
    if too_small(x, kernel, padding, [1] * rank):
        return None
    if rank == 1:  # torch's own has no divisor_override
        x, kernel, stride, padding = x.unsqueeze(2), [1, *kernel], [1, *stride], [0, *padding]
    pool = getattr(functional, f"avg_pool{max(rank, 2)}d")
    numbers = (kernel, stride, padding, bool(ceil_mode), bool(include))
    centred = x.double() - zero_point
    sums = pool(centred, *numbers, 1)
    ones = pool(torch.ones_like(centred), *numbers, 1)
    if divisor is None:
        counts = (ones / pool(torch.ones_like(centred), *numbers, None)).round()
    else:
        counts = torch.full_like(ones, int(divisor))
    return _mean(sums, counts, scale, x.dtype, s_y, z_y, dtype, rank)


def _mean(sums, counts, scale, input_dtype, s_y, z_y, dtype, rank):
    r = ((sums.round().numpy().astype(F) * F(scale)).astype(F) / counts.numpy().astype(F)).astype(F)
    y = finish(r, input_dtype, s_y, z_y, dtype)
    return y.squeeze(2) if rank == 1 and y.dim() == 4 else y


def adaptive_avg_pool(rank, args):
    x, scale, zero_point, s_y, z_y, dtype, size = args
    size = listed(size, rank)
    if np.prod(size, dtype=float) > 1e6:
        return None
    pool = getattr(functional, f"adaptive_avg_pool{rank}d")
    centred = x.double() - zero_point
    counts = torch.ones([1, 1, *size], dtype=torch.float64)
    for axis, (n, parts) in enumerate(zip(x.shape[2:], size, strict=True)):
        widths = [-(-(o + 1) * n // parts) - o * n // parts for o in range(parts)]
        shape = [1] * (rank + 2)
        shape[2 + axis] = parts
        counts = counts * torch.tensor(widths, dtype=torch.float64).view(shape)
    sums = pool(centred, size) * counts
    return _mean(sums, counts.expand(sums.shape), scale, x.dtype, s_y, z_y, dtype, 0)


INT8_FORMULAS = {
    "requantize": requantize,
    "add": add,
    "mul": mul,
    "contiguous": lambda args: args[0].clone(memory_format=torch.contiguous_format),
    "lookup": lookup,
    "interpolate": interpolate,
}
for _rank in (1, 2, 3):
    INT8_FORMULAS[f"max_pool{_rank}d"] = lambda args, rank=_rank: max_pool(rank, args)
    INT8_FORMULAS[f"avg_pool{_rank}d"] = lambda args, rank=_rank: avg_pool(rank, args)
    INT8_FORMULAS[f"adaptive_avg_pool{_rank}d"] = lambda args, rank=_rank: adaptive_avg_pool(rank, args)
