"""The numeric rules in numpy, written from csrc/engines/linear.h and nothing else.

Integers are exact in int64; every float step is one float32 operation of numpy,
which fuses nothing.
"""

import numpy as np
import torch
from attention_samples import ATTENTION_FORMULAS
from int8_samples import INT8_FORMULAS, cat
from norm_samples import NORM_FORMULAS

F = np.float32
RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}
FLT_MIN = np.finfo(F).tiny


def to_numpy(t):
    """A tensor's values; bfloat16 as the float32 of the same value."""
    if t is None:
        return None
    return (t.float() if t.dtype == torch.bfloat16 else t).detach().contiguous().numpy()


def dynamic_range(symmetric, reduce_range):
    if symmetric:
        return (-63, 63) if reduce_range else (-127, 127)
    return (0, 127) if reduce_range else (0, 255)


def row_qparams(low, high, symmetric, lo, hi):
    """Row rule, float32 throughout."""
    low, high = np.minimum(F(low), F(0)), np.maximum(F(high), F(0))
    with np.errstate(under="ignore"):
        scale = F(max(-low, high) / F(hi)) if symmetric else F((high - low) / F(hi - lo))
    if scale < FLT_MIN:
        scale = F(1) if high == low else F(FLT_MIN)
    if symmetric:
        return scale, 0
    return scale, int(np.clip(np.rint(F(-low / scale)) + F(lo), lo, hi))


def tensor_qparams(low, high, symmetric, lo, hi):
    """ATen's ChooseQuantizationParams, in double; symmetric: max|x| / hi."""
    small = F(6.1e-5)
    low, high = min(F(low), F(0)), max(F(high), F(0))
    scale = float(max(-low, high)) / hi if symmetric else (float(high) - float(low)) / (hi - lo)
    with np.errstate(divide="ignore", over="ignore"):
        if F(scale) == 0 or np.isinf(F(1) / F(scale)):
            scale = 0.1
    if scale < small:
        original, scale = F(scale), float(small)
        if low == 0:
            high = F(small * F(hi - lo))
        elif high == 0:
            low = F(-small * F(hi - lo))
        else:
            factor = F(small / original)
            low, high = F(low * factor), F(high * factor)
    if symmetric:
        return F(scale), 0
    low, high = float(low), float(high)
    from_min, from_max = lo - low / scale, hi - high / scale
    closer = lo - abs(low / scale) < hi - abs(high / scale)
    return F(scale), int(np.rint(np.clip(from_min if closer else from_max, lo, hi)))


def quantize(x, inverse, zero_point, lo, hi):
    """clamp(round_half_even(x * inverse) + zero_point, lo, hi); NaN gives lo."""
    with np.errstate(over="ignore", invalid="ignore"):
        q = np.rint((np.asarray(x, F) * F(inverse)).astype(F)).astype(np.float64) + zero_point
    q = np.where(np.isnan(q), lo, q)
    return np.clip(q, lo, hi).astype(np.int64)


def as_rows(t):
    """[*, K] as [rows, K]; K may be 0."""
    rows = int(np.prod(t.shape[:-1]))
    return to_numpy(t).reshape(rows, t.shape[-1])


def apply_post_op(r, name, args, other, slope=None, affine_weight=None, affine_bias=None):
    if name == "relu":
        return np.maximum(r, F(0))
    if name == "clamp":
        return np.minimum(np.maximum(r, F(args[0])), F(args[1]))
    if name == "leaky_relu":
        return np.where(r < 0, (F(args[0]) * r).astype(F), r)
    if name == "add":
        return (r + other).astype(F)
    if name == "prelu":
        return np.where(r < 0, (slope * r).astype(F), r)
    if name == "affine":
        return ((r * affine_weight).astype(F) + affine_bias).astype(F)
    return _SMOOTH[name](torch.from_numpy(r.astype(np.float64))).numpy().astype(F)


_SMOOTH = {
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "hardswish": torch.nn.functional.hardswish,
    "hardsigmoid": torch.nn.functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
NUM_ARGS = {"clamp": 2, "leaky_relu": 1}


def real_values(acc, scale, weight_scale, bias, post_ops="", post_op_args=(), other=None, *tensors):
    """post_ops(f32(acc) * (s_x * s_w) + bias), [M, N] float32; scale is [M, 1] or a number.

    tensors: slope, affine_weight and affine_bias, as many as there are.
    """
    r = (acc.astype(F) * (np.asarray(scale, F) * weight_scale.astype(F)).astype(F)).astype(F)
    if bias is not None:
        r = (r + bias.astype(F)).astype(F)
    args = list(post_op_args)
    for name in post_ops.split(",") if post_ops else ():
        count = NUM_ARGS.get(name, 0)
        r = apply_post_op(r, name, args[:count], other, *map(to_numpy, tensors))
        del args[:count]
    return r


def to_output(r, dtype, scale=1.0, zero_point=0):
    """The output tensor of real values r."""
    if not dtype.is_floating_point:
        lo, hi = RANGES[dtype]
        with np.errstate(over="ignore"):
            v = np.rint((r / F(scale)).astype(F)).astype(np.float64) + zero_point
        v = np.where(np.isnan(v), lo, v)
        return torch.from_numpy(np.clip(v, lo, hi).astype(np.int64)).to(dtype)
    return torch.from_numpy(r.astype(F)).to(dtype)


def weight_side(weight, weight_scale, weight_zero_point):
    n = weight.shape[0]
    w = to_numpy(weight).astype(np.int64)
    zero_point = np.zeros(1, np.int64)
    if weight_zero_point is not None:
        zero_point = to_numpy(weight_zero_point).astype(np.int64).reshape(-1)
    scale = to_numpy(weight_scale).reshape(-1)
    return w - np.broadcast_to(zero_point, n)[:, None], np.broadcast_to(scale, n)


def other_values(other, scale, zero_point, columns):
    if other is None:
        return None
    values = to_numpy(other).reshape(-1, columns)
    if other.dtype.is_floating_point:
        return values.astype(F)
    return ((values.astype(np.int64) - zero_point).astype(F) * F(scale)).astype(F)


def linear_real(
    input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point=None, bias=None,
    post_ops="", post_op_args=(), other=None, other_scale=1.0, other_zero_point=0, *tensors,
):  # fmt: skip
    """[M, N] float32 before the output is quantized."""
    w, scale = weight_side(weight, weight_scale, weight_zero_point)
    x = as_rows(input).astype(np.int64) - input_zero_point
    added = other_values(other, other_scale, other_zero_point, weight.shape[0])
    product = (x @ w.T, F(input_scale), scale, to_numpy(bias))
    return real_values(*product, post_ops, post_op_args, added, *tensors)


def linear(
    input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
    output_scale, output_zero_point, output_dtype=None, post_ops="", post_op_args=(), other=None,
    other_scale=1.0, other_zero_point=0, slope=None, affine_weight=None, affine_bias=None,
):  # fmt: skip
    r = linear_real(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
        post_ops, post_op_args, other, other_scale, other_zero_point, slope, affine_weight, affine_bias,
    )  # fmt: skip
    out = to_output(r, output_dtype or input.dtype, output_scale, output_zero_point)
    return out.reshape(*input.shape[:-1], weight.shape[0])


def linear_dynamic(
    input, weight, weight_scale, weight_zero_point=None, bias=None, per_row=True, symmetric=False,
    reduce_range=False, output_dtype=None, post_ops="", post_op_args=(), other=None, *tensors,
):  # fmt: skip
    w, weight_scales = weight_side(weight, weight_scale, weight_zero_point)
    x = as_rows(input)
    lo, hi = dynamic_range(symmetric, reduce_range)
    rule = row_qparams if per_row else tensor_qparams
    groups = x if per_row else x.reshape(1, -1)
    params = [rule(g.min(initial=0), g.max(initial=0), symmetric, lo, hi) for g in groups]
    if not per_row:
        params = params * len(x)
    q = np.empty(x.shape, np.int64)
    for row, (scale, zero_point) in enumerate(params):
        q[row] = quantize(x[row], F(1) / scale, zero_point, lo, hi) - zero_point
    scales = np.array([s for s, _ in params], F)[:, None]
    added = other_values(other, 1.0, 0, weight.shape[0])
    r = real_values(q @ w.T, scales, weight_scales, to_numpy(bias), post_ops, post_op_args, added, *tensors)
    out = to_output(r, output_dtype or input.dtype)
    return out.reshape(*input.shape[:-1], weight.shape[0])


# --- quantize and dequantize --------------------------------------------------


def expand(t, axis, rank):
    shape = [1] * rank
    shape[axis] = -1
    return t.reshape(shape)


def broadcast(name, args):
    """input, scales and zero points of one shape, as torch tensors."""
    x = args[0]
    if "per_channel" in name:
        axis = args[3]
        scale = expand(args[1], axis, x.dim())
        zp = torch.zeros(1, dtype=torch.int64) if args[2] is None else expand(args[2], axis, x.dim())
        return x, scale, zp, args[4:]
    if "per_token" in name:
        return x, args[1], args[2], args[3:]
    scale, zero_point = torch.as_tensor(args[1], dtype=torch.float64), torch.as_tensor(args[2])
    return x, scale.reshape(()), zero_point.reshape(()), args[3:]


def quantized(name, args):
    x, scale, zp, (lo, hi, dtype, *_) = broadcast(name, args)  # a memory format changes no value
    inverse = (1.0 / scale.double().float().double()).float()
    if "per_tensor" in name:
        inverse = (1.0 / scale.double()).float()
    with np.errstate(invalid="ignore", over="ignore"):
        q = np.rint(to_numpy(x) * inverse.numpy()).astype(np.float64) + zp.double().numpy()
    q = np.where(np.isnan(q), lo, q)
    return torch.from_numpy(np.asarray(np.clip(q, float(lo), float(hi)), np.float64)).to(dtype)


def dequantized(name, args):
    q, scale, zp, (dtype, *_) = broadcast(name, args)
    x = (q.long() - zp.long()).float() * scale.float()
    return x.to(dtype or torch.float32)


def choose(args, rule):
    """choose_qparams of one group of values."""
    x, lo, hi, symmetric = args
    values = to_numpy(x).reshape(-1)
    return rule(values.min(initial=0), values.max(initial=0), symmetric, lo, hi)


def choose_qparams(args):
    scale, zero_point = choose(args, tensor_qparams)
    return torch.tensor([float(scale)]), torch.tensor([zero_point])


def choose_qparams_per_token(args):
    x, *rest = args
    rows = [choose((row, *rest), row_qparams) for row in x.reshape(-1, x.shape[-1])] if x.numel() else []
    if x.shape[-1] == 0:
        rows = [(1.0, rest[0] if not rest[2] else 0)] * int(np.prod(x.shape[:-1]))
    sizes = (*x.shape[:-1], 1)
    scales, points = [float(s) for s, _ in rows], [z for _, z in rows]
    return torch.tensor(scales).reshape(sizes), torch.tensor(points, dtype=torch.int64).reshape(sizes)


def split_rows(x, group, below):
    """Rows in two planes: (h, l int64, steps of h and of l of each group, which groups have two)."""
    x = np.pad(x, ((0, 0), (0, -x.shape[1] % group)))
    x = x.reshape(len(x), x.shape[1] // group, group)
    largest = np.abs(x).max(axis=2, initial=0)
    with np.errstate(under="ignore"):
        high_step, low_step = (np.maximum(largest / F(limit), FLT_MIN) for limit in (127, 32639))
    h = np.rint(x * (F(1) / high_step)[..., None]).astype(np.int64)
    q = np.rint(x * (F(1) / low_step)[..., None]).astype(np.int64)
    two = (np.square(h).sum(2) < below) & (largest > 0)
    split = (q + 128) // 256
    high, low = np.where(two[..., None], split, h), np.where(two[..., None], q - 256 * split, 0)
    return high, low, np.where(two, F(256) * low_step, high_step), low_step, two


def linear_weight_only(x, weight, scale, bias, group, input_bits):
    """csrc/engines/weight_only.h: int64 sums, groups and planes added in order."""
    k, n = x.shape[-1], weight.shape[0]
    rows = to_numpy(x).reshape(int(np.prod(x.shape[:-1])), k)
    scale, w = to_numpy(scale), weight.long()
    if group:
        w = torch.stack((w & 15, w >> 4), 2).view(n, -1)[:, :k] - 8
    of_input = group or 64
    counts = np.minimum(k - np.arange(0, k, of_input), of_input)  # the last group may have fewer values
    below = np.inf if input_bits == 16 else 0 if group else (840 * counts).astype(F)
    high, low, high_step, low_step, two = split_rows(rows, of_input, below)
    w = np.pad(w.numpy(), ((0, 0), (0, -k % of_input)))
    r = F(2) ** np.floor(np.log2(high_step.max(axis=1, keepdims=True, initial=FLT_MIN)))
    v = np.zeros((len(rows), n), F)
    for i in range(len(counts)):
        part = w[:, of_input * i : of_input * (i + 1)].T
        by = scale[:, i] if group else F(1)
        v = v + (high[:, i] @ part).astype(F) * (high_step[:, i : i + 1] / r) * by
        term = (low[:, i] @ part).astype(F) * (low_step[:, i : i + 1] / r) * by
        v = np.where(two[:, i : i + 1], v + term, v)
    y = v * (r if group else r * scale)
    if bias is not None:
        y = y + to_numpy(bias)
    return torch.from_numpy(y).to(x.dtype).reshape(*x.shape[:-1], n)


# --- by the name of the overload ----------------------------------------------

EXACT_POST_OPS = {"", "relu", "clamp", "leaky_relu", "add", "prelu", "affine"}


def static_formula(post_ops=None, value_at=None):
    """linear under one of its fused names: `post_ops` and where the name has their number."""

    def formula(args):
        args = list(args)
        for i in (1, 2, 7, 8):  # tensors under linear.tensor
            args[i] = args[i].item() if isinstance(args[i], torch.Tensor) else args[i]
        if post_ops is None:
            head, names, values, added = args[:10], args[10], args[11], args[12:]
        else:
            head, names = args[:10], post_ops
            values = [args[value_at]] if value_at else []
            added = args[10:] if "add" in post_ops else []
        if not set(names.split(",")) <= EXACT_POST_OPS:
            return None
        return linear(*head, names, values, *added)

    return formula


def dynamic_formula(post_ops=None):
    def formula(args):
        args = list(args[:9]) + ([post_ops] if post_ops else list(args[9:]))
        return linear_dynamic(*args) if set(args[9].split(",")) <= EXACT_POST_OPS else None

    return formula


def histogram(args):
    """Counts, each step of a value's bin one float32 operation."""
    x, bins, low, high = args
    x = x.numpy().reshape(-1)
    low, high = F(low), F(high)
    x = x[(x >= low) & (x <= high)]
    position = ((x - low).astype(F) * F(bins)).astype(F) / F(high - low)
    index = np.minimum(position.astype(np.int64), bins - 1)
    return torch.from_numpy(np.bincount(index, minlength=bins).astype(F))


def min_max(args):
    x, per_row = args
    low, high = torch.aminmax(x.flatten(1) if x.dim() > 1 else x[:, None], dim=1) if per_row else x.aminmax()
    return torch.stack([low, high], -1)


def fake_quantize(args):
    x, scale, point, low, high = args
    return torch.fake_quantize_per_tensor_affine(x, scale, point.int(), low, high)


# name -> the exact result for these arguments, or None where the rule has a tolerance. Values
# must be finite.
FORMULAS = {
    "linear": static_formula(),
    "linear.tensor": static_formula(),
    "linear_relu": static_formula("relu"),
    "linear_leaky_relu": static_formula("leaky_relu", 10),
    "linear_add": static_formula("add"),
    "linear_add_relu": static_formula("add,relu"),
    "linear_dynamic": dynamic_formula(),
    "linear_relu_dynamic": dynamic_formula("relu"),
    "linear_weight_only": lambda args: linear_weight_only(*args),
    "_histogram": histogram,
    "_min_max": min_max,
    "_fake_quantize": fake_quantize,
    "cat": cat,
    "choose_qparams": choose_qparams,
    "choose_qparams_per_token": choose_qparams_per_token,
    **INT8_FORMULAS,
    **NORM_FORMULAS,
    **ATTENTION_FORMULAS,
}
for _suffix in ("per_tensor", "per_tensor.tensor", "per_channel", "per_token"):
    for _verb, _rule in (("quantize", quantized), ("dequantize", dequantized)):
        _name = f"{_verb}_{_suffix}"
        FORMULAS[_name] = lambda args, name=_name, rule=_rule: rule(name, args)
