"""Valid calls of the normalizations, and their exact results (op_samples.py).

The formulas follow csrc/kernels/norm.h: exact integer sums, float sums in 64 lanes, statistics in
float64, every step behind them one float32 operation or a fused one, or one of 16-bit integers.
"""

import numpy as np
import torch
from int8_samples import finish, real
from op_cases import random_int

U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16
F = np.float32

_OUTPUTS = [(0.03, 9, U8), (0.02, -9, S8), (1.0, 0, F32), (1.0, 0, BF16), (0.05, 255, U8)]
_POST_OPS = [("", []), ("relu", []), ("clamp", [-1.0, 1.0]), ("leaky_relu", [0.1]), ("gelu,tanh", [])]


def _rows():
    """(input, scale, zero point) of every dtype and layout."""
    return [
        (random_int(U8, 3, 70), 0.1, 7),
        (random_int(S8, 5, 2, 66)[:, :, ::2], 0.1, -7),
        (torch.randn(2, 3, 130).mul(3), 1.0, 0),
        (torch.randn(130, 4).to(BF16).t(), 1.0, 0),
        (random_int(U8, 4, 40)[:, :33], 0.1, 255),
        (torch.randn(0, 5), 1.0, 0),
    ]


def _parameters(shape, i):
    weight, bias = torch.randn(shape), torch.randn(shape)
    kinds = [(weight, bias), (None, None), (weight.to(BF16), bias), (weight, None), (None, bias.to(BF16))]
    return kinds[i % 5]


def _shape(x, i):
    return list(x.shape[-2:] if i == 1 else x.shape[-1:])


def layer_norm_calls():
    calls = []
    for i, x in enumerate(_rows()):
        shape = _shape(x[0], i)
        eps = (1e-5, 0.0, 1e-3)[i % 3]
        calls.append((*x, *_parameters(shape, i), *_OUTPUTS[i % 5], shape, eps, *_POST_OPS[i % 5]))
    return calls


def rms_norm_calls():
    return [(*c[:4], *c[5:9], (None, 1e-6)[i % 2], *c[10:]) for i, c in enumerate(layer_norm_calls())]


def add_layer_norm_calls():
    calls = []
    for i, c in enumerate(layer_norm_calls()):
        shape = tuple(c[0].shape)
        others = [(random_int(S8, *shape), 0.05, 3), (torch.randn(shape), 1.0, 0),
                  (torch.randn(shape[::-1]).to(BF16).permute(*range(len(shape))[::-1]), 1.0, 0)]  # fmt: skip
        calls.append((*c[:3], *others[i % 3], *c[3:]))
    return calls


def _images():
    return [
        (random_int(U8, 2, 6, 5, 7), 0.1, 7),
        (random_int(S8, 2, 4, 5, 70).movedim(-1, 1), 0.1, -7),
        (random_int(U8, 3, 6, 40)[:, :, ::2], 0.1, 0),
        (random_int(S8, 4, 12), 0.1, 127),
        (random_int(U8, 1, 3, 2, 5, 6).movedim(-1, 1), 0.1, 7),
        (random_int(U8, 0, 6, 3), 0.1, 7),
    ]


def group_norm_calls():
    calls = []
    for i, x in enumerate(_images()):
        groups = (3, 7, 6, 1, 2, 2)[i]
        out, post = _OUTPUTS[i % 5], _POST_OPS[i % 5]
        calls.append((*x, *_parameters([x[0].shape[1]], i), *out, groups, (1e-5, 1e-3)[i % 2], *post))
    return calls


def instance_norm_calls():
    return [(*c[:8], *c[9:]) for c in group_norm_calls() if c[0].dim() > 2]


def batch_norm_calls():
    calls = []
    for i, c in enumerate(group_norm_calls()):
        n = c[0].shape[1]
        mean, var = torch.randn(n).to((F32, BF16)[i % 2]), torch.rand(n) + 0.1
        calls.append((*c[:3], mean, var, *c[3:8], *c[9:]))
    first, last = calls[0], calls[1]
    return [
        *calls,
        (torch.randn(first[0].shape), 1.0, 0, *first[3:]),
        (torch.randn(2, 4, 5, 70).movedim(-1, 1).to(BF16), 1.0, 0, *last[3:]),
    ]


def norm_samples():
    """name -> calls, as op_samples.samples()."""
    sums = add_layer_norm_calls()
    return {
        "layer_norm": layer_norm_calls(),
        "rms_norm": rms_norm_calls(),
        "add_layer_norm": sums,
        "add_layer_norm_sum": [(*c, (None, F32, BF16)[i % 3]) for i, c in enumerate(sums)],
        "group_norm": group_norm_calls(),
        "instance_norm": instance_norm_calls(),
        "batch_norm": batch_norm_calls(),
    }


# --- exact results ------------------------------------------------------------


def _floats(t):
    return None if t is None else t.float().numpy()


def _real(x, scale, zero_point):
    return real(x, scale, zero_point) if x.dtype in (U8, S8) else x.float().numpy()


def _fold(lanes):
    """Sum of the last dimension: lane i + lane i + half, until one is left."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = (lanes[..., :half] + lanes[..., half:]).astype(F)
    return lanes[..., 0].astype(np.float64)


def _lane_sum(x):
    """[rows, count] -> [rows]: 64 float32 lanes in blocks of 8192, the blocks in float64."""
    total = np.zeros(len(x))
    for first in range(0, x.shape[1], 8192):
        block = x[:, first : first + 8192]
        block = np.pad(block, ((0, 0), (0, -block.shape[1] % 64))).reshape(len(x), -1, 64)
        lanes = np.zeros((len(x), 64), F)
        for i in range(block.shape[1]):
            lanes = (lanes + block[:, i]).astype(F)
        total = total + _fold(lanes)
    return total


def _fma(a, b, c):
    """float32 a * b + c, rounded once: the sum is rounded to odd in float64."""
    a, b, c = np.broadcast_arrays(a, b, c)
    p, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)  # the product is exact
    s = p + c
    t = s - p
    rest = (p - (s - t)) + (c - t)
    bits = s.view(np.int64)
    off = np.isfinite(rest) & (rest != 0) & (bits % 2 == 0)
    step = np.where((rest < 0) == (s < 0), 1, -1)
    return (bits + np.where(off, step, 0)).view(np.float64).astype(F)


def _in_steps(x, dtype, post):
    """Whether the last operation gives steps of an 8-bit output: without a post-op but relu."""
    return (dtype or x.dtype) in (U8, S8) and (not post or post[0] in ("", "relu"))


def _unit(x, scale, dtype, post):
    """(factor in the coefficients, scale behind them)."""
    return (float(F(1.0 / scale)), 1.0) if _in_steps(x, dtype, post) else (1.0, scale)


# Words: 16-bit fixed point, as in csrc/kernels/norm.h.


def _times(x, y):
    return (x * y + 2**14) >> 15


def _plus(x, y):
    return np.clip(x + y, -(2**15), 2**15 - 1)


def _word(x):
    """The integer of x; 0 for a number that no word holds."""
    return np.rint(np.where(np.abs(x) < 2**15, x, 0)).astype(np.int64)


def _fraction(most):
    """Bits behind the point, 4 to 7, with which `most` is below 32767; -1 for none."""
    bits = np.full(np.shape(most), -1)
    for f in range(4, 8):
        bits = np.where(most < 32767 / 2**f, f, bits)
    return bits


def _to_bytes(y, shift, zero_point, post):
    y = np.clip(y, 0, 255)
    return torch.from_numpy(np.maximum(y, zero_point + shift if post and post[0] else 0) - shift)


def _shift(dtype):
    return 128 if dtype == S8 else 0


def _channel_words(q, zero_point, a, b, out, post):
    """(results in words, where they hold) of integers q, float32 a and b in steps of `out`."""
    (z_in, in_shift), (z_out, out_shift) = zero_point, out
    centre = (((a * F(128 - z_in - in_shift)).astype(F) + b).astype(F) + F(z_out + out_shift)).astype(F)
    f = _fraction(np.maximum(np.abs(centre), np.abs(a) * F(128)))
    up = 2.0**f
    t = _plus(_times((q + in_shift - 128) * 256, _word(a * up * 128)), _word(centre * up))
    return _to_bytes(_times(t, (2.0 ** (15 - f)).astype(np.int64)), out_shift, z_out, post), f > 0


def _row_words(q, zero_point, a, b, weight, bias, out, post):
    """The same of rows [rows, count]; weight and bias in steps."""
    (z_in, in_shift), (z_out, out_shift) = zero_point, out
    slope = a.astype(np.float64)
    factor, centre = slope * 2**17, (slope * (128 - z_in - in_shift) + b) * 2**10
    size = np.abs(centre)
    own = (factor < 32767) & (size < 32767) & ((q.shape[1] <= 1022) | (factor + size < 32765))
    own &= _word(factor) != 0
    shift = (bias + F(z_out + out_shift)).astype(F)
    f = _fraction(np.maximum(np.abs(weight).max() * F(32), np.abs(shift).max()))
    up = 2.0**f
    t = _plus(_times((q + in_shift - 128) * 256, _word(factor)[:, None]), _word(centre)[:, None])
    t = _plus(_times(t, _word(weight * up * 32)), _word(shift * up))
    y = _to_bytes(_times(t, (2.0 ** (15 - f)).astype(np.int64)), out_shift, z_out, post)
    return y, np.broadcast_to((own & (f > 0))[:, None], q.shape)


def _chosen(words, floats):
    y, held = words
    return torch.where(torch.from_numpy(np.array(held)), y.to(floats.dtype), floats)


def _affine(n, weight, bias):
    if weight is not None:
        n = (n * weight).astype(F)
    return n if bias is None else (n + bias).astype(F)


def _byte_factors(q, count, scale, zero_point, eps, centred):
    """[rows, count] integers -> mean of q - zero_point and 1 / sqrt(var + eps), float64 [rows]."""
    q, step = q.astype(object), float(F(scale))
    sums = q.sum(1) if q.size else np.zeros(len(q), object)
    squares = (q * q).sum(1) if q.size else sums
    z, part = zero_point, 1.0 / count
    if centred:
        square = [float(count * s2 - s * s) for s, s2 in zip(sums, squares, strict=True)]
        unit = step * step * (part * part)
    else:
        square = [float(s2 - 2 * z * s + count * z * z) for s, s2 in zip(sums, squares, strict=True)]
        unit = step * step * part
    mean = np.array([float(s - count * z) * part for s in sums])
    square = np.array(square, float)
    known = 1.0 / np.sqrt(square * unit + eps)
    return mean, np.where((square == 0) & (eps > 0), 0.0, known)  # no spread: the bias exactly


def _row_coefficients(q, count, scale, zero_point, eps, centred):
    """Float32 a and b of each row with n = a * (q - zero_point) + b."""
    mean, k = _byte_factors(q, count, scale, zero_point, eps, centred)
    factor = float(F(scale)) * k
    return factor.astype(F), (-mean * factor).astype(F) if centred else np.zeros(len(q), F)


def _normalized_rows(rows, eps, centred, weight, bias):
    """Float32 results of float32 rows."""
    count = rows.shape[1]
    m = (_lane_sum(rows) / count).astype(F) if centred else np.zeros(len(rows), F)
    d = (rows - m[:, None]).astype(F)
    rest = _lane_sum(d) / count if centred else np.zeros(len(rows))
    k = 1.0 / np.sqrt(_lane_sum((d * d).astype(F)) / count - rest * rest + eps)
    a, b = k.astype(F), (-rest * k).astype(F)
    n = ((d * a[:, None]).astype(F) + b[:, None]).astype(F)
    return _affine(n, weight, bias)


def _norm(x, scale, zero_point, weight, bias, s_y, z_y, dtype, shape, eps, post, centred):
    if x.numel() == 0:
        return torch.empty(x.shape, dtype=dtype or x.dtype)
    count = int(np.prod(shape))
    parameters = [None if p is None else _floats(p).reshape(1, count) for p in (weight, bias)]
    if x.dtype not in (U8, S8):
        r = _normalized_rows(_floats(x).reshape(-1, count), eps, centred, *parameters)
        return finish(r.reshape(x.shape), x.dtype, s_y, z_y, dtype, *post)
    unit, s_y = _unit(x, s_y, dtype, post)
    q = x.numpy().astype(np.int64).reshape(-1, count)
    a, b = _row_coefficients(q, count, scale, zero_point, eps, centred)
    ones, zeros = np.ones((1, count), F), np.zeros((1, count), F)
    weight, bias = (o if p is None else p for o, p in zip((ones, zeros), parameters, strict=True))
    weight, bias = (weight * F(unit)).astype(F), (bias * F(unit)).astype(F)
    n = _fma((q - zero_point).astype(F), a[:, None], b[:, None])
    y = finish(_fma(n, weight, bias), x.dtype, s_y, z_y, dtype, *post)
    if _in_steps(x, dtype, post):
        points = (zero_point, _shift(x.dtype)), (z_y, _shift(dtype or x.dtype))
        y = _chosen(_row_words(q, points[0], a, b, weight, bias, points[1], post), y)
    return None if y is None else y.reshape(x.shape)


def _quiet(formula):
    def run(args):
        with np.errstate(all="ignore"):
            return formula(args)

    return run


def layer_norm(args):
    *head, shape, eps = args[:10]
    return _norm(*head, shape, eps, args[10:], True)


def rms_norm(args):
    x, scale, zero_point, weight, s_y, z_y, dtype, shape, eps, *post = args
    eps = 2.0**-23 if eps is None else eps
    return _norm(x, scale, zero_point, weight, None, s_y, z_y, dtype, shape, eps, post, False)


def _summed(args):
    x, s_x, z_x, other, s_o, z_o = args[:6]
    return (_real(x, s_x, z_x) + _real(other, s_o, z_o)).astype(F)


def add_layer_norm(args):
    x = args[0]
    weight, bias, s_y, z_y, dtype, shape, eps, *post = args[6:]
    if x.numel() == 0:
        return torch.empty(x.shape, dtype=dtype or x.dtype)
    count = int(np.prod(shape))
    parameters = [None if p is None else _floats(p).reshape(1, count) for p in (weight, bias)]
    r = _normalized_rows(_summed(args).reshape(-1, count), eps, True, *parameters)
    return finish(r.reshape(x.shape), x.dtype, s_y, z_y, dtype, *post)


def add_layer_norm_sum(args):
    y = add_layer_norm(args[:15])
    return None if y is None else (y, torch.from_numpy(_summed(args)).to(args[15] or F32))


def _per_channel(x, zero_point, a, b, rest):
    """r = fma(f32(q - zero_point), a[n, c], b[n, c]), finished."""
    s_y, z_y, dtype, *post = rest
    unit, s_y = _unit(x, s_y, dtype, post)
    d = (x.numpy().astype(np.int64) - zero_point).astype(F) if x.dtype in (U8, S8) else _floats(x)
    shape = (*a.shape, *[1] * (x.dim() - 2))
    a, b = (a * unit).astype(F).reshape(shape), (b * unit).astype(F).reshape(shape)
    y = finish(_fma(d, a, b), x.dtype, s_y, z_y, dtype, *post)
    if x.dtype in (U8, S8) and _in_steps(x, dtype, post):
        points = (zero_point, _shift(x.dtype)), (z_y, _shift(dtype or x.dtype))
        words, held = _channel_words(x.numpy().astype(np.int64), points[0], a, b, points[1], post)
        y = _chosen((words, np.broadcast_to(held, x.shape)), y)
    return y


def _channel_parameters(weight, bias):
    one, zero = 1.0, 0.0
    return (
        one if weight is None else _floats(weight).astype(float),
        zero if bias is None else _floats(bias).astype(float),
    )


def group_norm(args):
    x, scale, zero_point, weight, bias, s_y, z_y, dtype, groups, eps, *post = args
    samples, channels = x.shape[:2]
    size = channels // groups
    count = size * int(np.prod(x.shape[2:]))
    q = x.contiguous().numpy().astype(np.int64).reshape(samples * groups, count)
    mean, k = _byte_factors(q, count, scale, zero_point, eps, True)
    factor = np.repeat((float(F(scale)) * k).reshape(samples, groups), size, 1)
    weight, bias = _channel_parameters(weight, bias)
    f = factor * weight
    b = bias - np.repeat(mean.reshape(samples, groups), size, 1) * f
    return _per_channel(x, zero_point, f, b, (s_y, z_y, dtype, *post))


def instance_norm(args):
    return group_norm((*args[:8], args[0].shape[1], *args[8:]))


def batch_norm(args):
    x, scale, zero_point, mean, var, weight, bias, s_y, z_y, dtype, eps, *post = args
    weight, bias = _channel_parameters(weight, bias)
    f = 1.0 / np.sqrt(_floats(var).astype(float) + eps) * weight
    b = bias - _floats(mean).astype(float) * f
    a = float(F(scale)) * f
    return _per_channel(x, zero_point, a[None], b[None], (s_y, z_y, dtype, *post))


NORM_FORMULAS = {
    name: _quiet(formula)
    for name, formula in {
        "layer_norm": layer_norm,
        "rms_norm": rms_norm,
        "add_layer_norm": add_layer_norm,
        "add_layer_norm_sum": add_layer_norm_sum,
        "group_norm": group_norm,
        "instance_norm": instance_norm,
        "batch_norm": batch_norm,
    }.items()
}
