"""Valid calls of every overload: name -> list of argument tuples, in schema order.

test_opcheck.py runs them under opcheck, test_arguments.py changes one argument at a time.
"""

from functools import partial

import torch
from attention_samples import attention_samples
from int8_samples import cat_calls, int8_samples
from norm_samples import norm_samples
from op_cases import random_int

import torch_ao_ext

U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16


def _linear_calls():
    w, s = random_int(S8, 5, 12), torch.rand(5) * 0.1 + 0.01
    zp, bias = torch.randint(-128, 128, (5,)), torch.randn(5)
    xu, xs = random_int(U8, 3, 12), random_int(S8, 2, 3, 12)
    other = random_int(U8, 3, 5)
    return [
        (xu, 0.1, 7, w, s, None, bias, 0.3, 9, None, "", [], None, 1.0, 0),
        (xs, 0.1, -7, w, s, zp, None, 1.0, 0, F32, "relu", [], None, 1.0, 0),
        (xu, 0.1, 0, w, s[:1], zp[:1].int(), bias, 0.2, -9, S8, "clamp", [-1.0, 1.0], None, 1.0, 0),
        (xu, 0.1, 255, w, s, None, bias, 0.3, 9, None, "add,relu", [], other, 0.5, 3),
        (xs[0].t().contiguous().t(), 0.1, 0, w, s, None, bias, 1.0, 0, BF16, "gelu", [], None, 1.0, 0),
        (xs[:, :0], 0.1, 0, w, s, None, bias, 1.0, 0, F32, "", [], None, 1.0, 0),
        (xu, 0.1, 7, w, s, None, bias, 0.3, 9, None, "prelu", [], None, 1.0, 0, torch.randn(5)),
        (xu, 0.1, 7, w, s, None, bias, 1.0, 0, F32, "add,prelu", [], other, 0.5, 3, torch.randn(1)),
    ]


def _tensor_qparams(call):
    call = list(call)
    call[1], call[7] = torch.tensor([call[1]]), torch.tensor(call[7], dtype=torch.float64)
    call[2], call[8] = torch.tensor([call[2]]), torch.tensor(call[8], dtype=torch.int32)
    return tuple(call)


def _dynamic_calls():
    w, s = random_int(S8, 5, 12), torch.rand(5) * 0.1 + 0.01
    zp, bias = torch.randint(-128, 128, (5,)), torch.randn(5)
    x, other = torch.randn(3, 12), torch.randn(3, 5)
    return [
        (x, w, s, None, bias, True, False, False, None, "", [], None),
        (x.to(BF16), w, s, zp, None, False, True, False, None, "relu", [], None),
        (x.t().contiguous().t(), w, s[:1], zp[:1].int(), bias, True, False, True, BF16, "add", [], other),
        (x[0], w, s, None, bias, True, True, True, F32, "clamp,tanh", [-1.0, 1.0], None),
        (torch.randn(0, 2, 12), w, s, None, None, True, False, False, None, "", [], None),
        (x, w, s, None, bias, True, False, False, None, "add,prelu", [], other, torch.randn(5)),
    ]


def _quantize_inputs():
    return [
        torch.randn(2, 6, 4, 5),
        torch.randn(2, 6, 4, 5).to(BF16),
        torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(5, 6, 2).permute(2, 1, 0),
        torch.randn(2, 12)[:, ::2],
        torch.randn(3, 0, 2).transpose(0, 1).reshape(2, 0, 3).transpose(1, 2)[:, :0, :].new_zeros(2, 6, 0),
    ]


def _per_tensor(quantize, tensors):
    calls = []
    for i, x in enumerate(_quantize_inputs()):
        dtype = (U8, S8)[i % 2]
        scale, zp = 0.03, (3, -3)[i % 2]
        if tensors:
            scale, zp = torch.tensor([scale]), torch.tensor([zp])
        if quantize:
            info = torch.iinfo(dtype)
            calls.append((x, scale, zp, info.min, info.max, dtype))
        else:
            calls.append((x.float().mul(50).round().to(dtype), scale, zp, (None, F32, BF16)[i % 3]))
    return calls


def _per_channel(quantize):
    calls = []
    for i, x in enumerate(_quantize_inputs()):
        dtype = (U8, S8)[i % 2]
        info = torch.iinfo(dtype)
        axis = (1, -1, 0, 1, 1, 1)[i]
        c = x.shape[axis]
        scales = torch.rand(c, dtype=(F32, torch.float64)[i % 2]) + 0.01
        zps = torch.randint(info.min, info.max + 1, (c,), dtype=(torch.int64, torch.int32)[i % 2])
        if quantize:
            calls.append((x, scales, zps, axis, info.min, info.max, dtype))
        else:
            q = x.float().mul(50).round().to(dtype)
            calls.append((q, scales, zps if i % 3 else None, axis, (None, F32, BF16)[i % 3]))
    return calls


def _per_token(quantize):
    calls = []
    for i, x in enumerate(_quantize_inputs()):
        dtype = (U8, S8)[i % 2]
        info = torch.iinfo(dtype)
        rows = (*x.shape[:-1], 1)
        scales = torch.rand(rows) + 0.01
        zps = torch.randint(info.min, info.max + 1, rows)
        if quantize:
            calls.append((x, scales, zps, info.min, info.max, dtype))
        else:
            calls.append((x.float().mul(50).round().to(dtype), scales, zps, (None, F32, BF16)[i % 3]))
    return calls


def _choose(per_token):
    ranges = [
        (0, 255, False),
        (-128, 127, False),
        (-127, 127, True),
        (0, 127, False),
        (-128, 127, True),
        (0, 15, False),
    ]
    calls = [(x, *r) for x, r in zip(_quantize_inputs(), ranges, strict=True)]
    return calls if per_token else calls[:-1]  # an empty tensor has no minimum


def _table(rows, dim, bits):
    return torch.ops.torch_ao.embedding_prepack(torch.randn(rows, dim), bits)


def _embedding_calls():
    i32 = torch.int32
    mapping = torch.tensor([3, -1, 0, 6, -1, 2, 5, 1, 4], dtype=i32)
    return [
        (_table(7, 20, 8), torch.randint(7, (2, 3)), 8, None, None, None),
        (_table(7, 33, 4), torch.randint(7, (5,), dtype=i32), 4, 33, None, BF16),
        (_table(7, 130, 2), torch.randint(7, (2, 2, 2)), 2, 130, mapping, F32),
        (_table(14, 6, 8)[::2, :], torch.randint(7, (3, 2)).t(), 8, None, None, None),
        (_table(7, 64, 4), torch.randint(7, (0, 2), dtype=i32), 4, None, mapping, BF16),
        (_table(7, 16, 8).t().contiguous().t(), torch.tensor(3), 8, 16, mapping, None),
    ]


def _bag_calls():
    i32 = torch.int32
    mapping = torch.tensor([3, -1, 0, 6, -1, 2, 5, 1, 4], dtype=i32)
    long = torch.randint(7, (1500,))
    n7 = torch.randint(7, (7,))
    offsets, last = torch.tensor([0, 3, 3, 5]), torch.tensor([0, 3, 3, 7], dtype=i32)
    weights = torch.randn(7)
    t8, t4, t2 = _table(7, 20, 8), _table(7, 33, 4), _table(7, 130, 2)
    strided = torch.randn(14).to(BF16)[::2]
    empty = torch.randint(7, (0,))
    return [
        (t8, n7, offsets, 8, None, "sum", None, False, None, None, None),
        (t4, n7.to(i32), last, 4, 33, "sum", weights, True, None, None, BF16),
        (t2, torch.randint(7, (3, 4)), None, 2, 130, "mean", None, False, 3, mapping, F32),
        (t8, torch.randint(7, (4, 3)).t(), None, 8, 20, "max", None, False, -1, mapping, None),
        (t8, long, torch.tensor([0, 2, 1400]), 8, None, "mean", None, False, 2, None, BF16),
        (t4, n7, offsets, 4, 33, "sum", strided, False, 5, None, None),
        (t2, empty, torch.tensor([0, 0]), 2, 130, "max", None, False, None, None, None),
        (t8, empty, empty, 8, None, "sum", None, False, None, None, None),
    ]


def _prepack_tables():
    shapes = ((5, 12), (3, 33), (0, 4), (2, 0), (4, 300))
    return [torch.randn(s).to((F32, BF16)[i % 2]) for i, s in enumerate(shapes)] + [torch.randn(6, 5).t()]


def _unpack_calls():
    rows = [(t, bits) for i, t in enumerate(_prepack_tables()) for bits in [(8, 4, 2)[i % 3]]]
    packed = [(torch.ops.torch_ao.embedding_prepack(t, bits), bits, t.shape[1]) for t, bits in rows]
    return [(t, bits, dim, (None, F32, BF16)[i % 3]) for i, (t, bits, dim) in enumerate(packed)]


def _sparse(block, rows=13, columns=18):
    dense = random_int(S8, rows, columns)
    dense[torch.rand(rows, columns) < 0.7] = 0
    return torch_ao_ext.ops.to_block_sparse(dense, block)


def _sparse_calls(n=13, k=18):
    quads, columns = _sparse((1, 4), n, k), _sparse((8, 1), n, k)
    wide = (*columns[:2], columns[2].int(), columns[3])
    s, bias = torch.rand(n) * 0.1 + 0.01, torch.randn(n)
    xu, xs = random_int(U8, 3, k), random_int(S8, 2, 3, k)
    other = random_int(U8, 3, n)
    return [
        (xu, 0.1, 7, *quads, s, bias, 0.3, 9, None, "", [], None, 1.0, 0),
        (xs, 0.1, -7, *wide, s, None, 1.0, 0, F32, "relu", [], None, 1.0, 0),
        (xu, 0.1, 255, *columns, s[:1], bias, 0.2, -9, S8, "clamp,add", [-1.0, 1.0], other, 0.5, 3),
        (xs[:, :0], 0.1, 0, *quads, s, bias, 1.0, 0, BF16, "", [], None, 1.0, 0),
        (xs[0].t().contiguous().t(), 0.1, 0, *columns, s, bias, 1.0, 0, F32, "gelu", [], None, 1.0, 0),
    ]


def _sparse_dynamic_calls(n=13, k=18):
    quads, columns = _sparse((1, 4), n, k), _sparse((8, 1), n, k)
    s, bias, x, other = torch.rand(n) * 0.1 + 0.01, torch.randn(n), torch.randn(3, k), torch.randn(3, n)
    return [
        (x, *quads, s, bias, True, False, False, None, "", [], None),
        (x.to(BF16), *columns, s[:1], None, False, True, False, None, "add", [], other.to(BF16)),
        (x[0], *columns, s, bias, True, True, True, F32, "clamp", [-1.0, 1.0], None),
        (torch.randn(0, k), *quads, s, None, True, False, False, None, "", [], None),
        (x.t().contiguous().t(), *quads, s, bias, False, False, True, BF16, "tanh", [], None),
    ]


def _rnn_side(gates, layers=1, both=False, k=5, h=6, projection=None):
    """weights, scales, biases of an int8 recurrent layer."""
    weights, scales, biases = [], [], []
    width = projection or h
    for i in range(layers):
        for _ in range(1 + both):
            sizes = [(gates * h, k if i == 0 else width * (1 + both)), (gates * h, width)]
            sizes += [(projection, h)] if projection else []
            for j, size in enumerate(sizes):
                weights.append(random_int(S8, *size))
                scales.append(torch.rand(size[0] if j % 2 else 1) * 0.01 + 0.001)
            biases += [torch.randn(gates * h), torch.randn(gates * h)]
    return weights, scales, biases


def _rnn_calls(gates, h=6, k=5):
    two = gates == 4
    r = max(1, h // 2)  # the projected state

    def state(*sizes):
        return (torch.randn(sizes), torch.randn(sizes)) if two else (torch.randn(sizes),)

    none = (None, None) if two else (None,)
    w, s, b = _rnn_side(gates, 2, True, k, h)
    calls = [
        (torch.randn(4, 3, k), None, *none, *_rnn_side(gates, k=k, h=h), 1, False),
        (torch.randn(3, 2, k).to(BF16), None, *state(4, 2, h), w, s, [], 2, True),
        (torch.randn(6, k), torch.tensor([3, 2, 1]), *state(4, 3, h), w, s, b, 2, True),
        (torch.randn(3, 2, k).transpose(0, 1), None, *state(1, 3, h), *_rnn_side(gates, k=k, h=h), 1, False),
        (torch.randn(2, 0, k), None, *none, *_rnn_side(gates, k=k, h=h), 1, False),
    ]
    if two:
        side = _rnn_side(4, k=k, h=h, projection=r)
        states = (torch.randn(1, 2, r), torch.randn(1, 2, h))
        calls.append((torch.randn(4, 2, k), None, *states, *side, 1, False))
    if gates == 1:
        calls = [(*call, ("tanh", "relu")[i % 2]) for i, call in enumerate(calls)]
    return calls


def _cell_calls(gates, h=6, k=5):
    calls = []
    for i, n in enumerate((3, 1, 0)):
        (w_ih, w_hh), (s_ih, s_hh), biases = _rnn_side(gates, k=k, h=h)
        states = [torch.randn(n, h) if i != 1 else None for _ in range(2 if gates == 4 else 1)]
        biases = biases if i != 2 else [None, None]
        x = torch.randn(n, k).to((F32, BF16)[i % 2])
        calls.append((x, *states, w_ih, s_ih, w_hh, s_hh, *biases))
    return [(*call, ("tanh", "relu")[i % 2]) for i, call in enumerate(calls)] if gates == 1 else calls


def _prepack_rnn(h=6, k=5):
    sides = [(kind, *c[len(c) - 5 :], c[0].dtype) for kind, gates in (("lstm", 4), ("gru", 3))
             for c in _rnn_calls(gates, h, k)]  # fmt: skip
    return sides + [(c[-1], *c[-6:-1], c[0].dtype) for c in _rnn_calls(1, h, k)]


RNN_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _prepack_sparse(calls):
    return [(*c[3:9], c[0].dtype, *c[1:3], *c[9:14]) for c in calls]


def _prepack_sparse_dynamic(calls):
    return [(*c[1:7], c[0].dtype, *c[7:13]) for c in calls]


def _weight_only_calls(n=5, k=70):
    x, w, bias = torch.randn(3, k), random_int(S8, n, k), torch.randn(n)
    s, nibbles = torch.rand(n) * 0.1 + 0.01, random_int(U8, n, (k + 1) // 2)
    s32, s64, s128 = (torch.rand(n, -(-k // group)) * 0.1 + 0.01 for group in (32, 64, 128))
    return [
        (x, w, s, bias, 0, 16),
        (x.to(BF16), w, s[:1], None, 0, 8),
        (torch.randn(k, 21).t(), nibbles, s128, bias, 128, 16),
        (torch.randn(2, 2, k), nibbles, s32.to(BF16), bias, 32, 16),
        (torch.randn(k).to(BF16), nibbles, s64, None, 64, 8),
        (torch.randn(0, k), w, s, bias, 0, 16),
    ]


def _prepack_weight_only(calls):
    return [(*c[1:4], c[0].shape[-1], *c[4:6], c[0].dtype) for c in calls]


# Ops whose tensors fit one weight only: calls made for outputs n and inputs k, where
# replacing sizes (op_shapes.py) would give invalid ones.
SIZED = {
    "linear_weight_only": _weight_only_calls,
    "_prepack_linear_weight_only": lambda n, k: _prepack_weight_only(_weight_only_calls(n, k)),
    "sparse_linear": _sparse_calls,
    "_prepack_sparse_linear": lambda n, k: _prepack_sparse(_sparse_calls(n, k)),
    "sparse_linear_dynamic": _sparse_dynamic_calls,
    "_prepack_sparse_linear_dynamic": lambda n, k: _prepack_sparse_dynamic(_sparse_dynamic_calls(n, k)),
}


def _conv_calls(rank, transposed):
    size, ones, zeros = (5, 6, 4)[-rank:], [1] * rank, [0] * rank
    w, grouped = random_int(S8, 4, 4, *[3] * rank), random_int(S8, 4, 2, *[2] * rank)
    s, bias, zp = torch.rand(4) * 0.1 + 0.01, torch.randn(4), torch.randint(-128, 128, (4,))
    xu, xs = random_int(U8, 2, 4, *size), random_int(S8, 1, 4, *size)

    def call(x, weight, scale, point, bias, out, numbers, post=("", []), other=(None, 1.0, 0), slope=()):
        stride, padding, dilation, groups = numbers
        order = (stride, padding, zeros, groups, dilation) if transposed else numbers
        return (x, 0.1, 7, weight, scale, point, bias, *out, *order, *post, *other, *slope)

    same = (ones, ones, ones, 1)
    residual = (random_int(U8, 2, 4, *size), 0.5, 3)
    scale2 = torch.rand(4) * 0.1 + 0.01
    return [
        call(xu, w, s, None, bias, (0.3, 9, None), same),
        call(xs, w, s, zp, None, (1.0, 0, F32), ([2] * rank, ones, ones, 1), ("relu", [])),
        call(xu, grouped, scale2, None, bias, (0.2, -9, S8), ([1] * rank, zeros, ones, 2),
             ("clamp", [-1.0, 1.0])),
        call(xu, w, s[:1], zp[:1].int(), bias, (0.3, 9, None), same, ("add,relu", []), residual),
        call(xs.transpose(1, -1).contiguous().transpose(1, -1), w, s, None, bias, (1.0, 0, BF16),
             (ones, [2] * rank, [2] * rank, 1), ("gelu", [])),
        call(xu[:0], w, s, None, bias, (1.0, 0, F32), same),
        # a line long enough to be read as it lies, nothing behind it
        call(random_int(U8, 1, 4, *size[:-1], 30), w, s, None, bias, (0.3, 9, None), (ones, zeros, ones, 1)),
        call(xu, grouped, scale2, None, bias, (0.2, -9, S8), ([1] * rank, zeros, ones, 2), ("prelu", []),
             slope=(torch.randn(4),)),
    ]  # fmt: skip


def _conv_dynamic_calls(rank, transposed):
    """The static calls with float inputs."""
    rules = [(True, False, False), (False, True, False), (True, True, True), (False, False, False)]
    calls = []
    for i, call in enumerate(_conv_calls(rank, transposed)):
        count = 20 if transposed else 19
        call, slope = call[:count], call[count:]
        x, weight, scale, point, bias, dtype = call[0], *call[3:7], call[9]
        numbers, post, other = call[10 : 15 if transposed else 14], call[-5:-3], call[-3]
        x = torch.empty_like(x, dtype=(F32, BF16)[i % 2]).copy_(x.float() * 0.1 - 3)
        other = None if other is None else torch.empty_like(other, dtype=F32).copy_(other)
        dtype = dtype if dtype in (F32, BF16) else None
        calls.append((x, weight, scale, point, bias, *rules[i % 4], dtype, *numbers, *post, other, *slope))
    return calls


def _batch_norm(i, n):
    """running_mean, running_var, bn_weight, bn_bias, eps: gamma of both signs, with a 0; absent ones."""
    gamma = torch.randn(n)
    gamma[0] = 0
    mean, var, beta = torch.randn(n), torch.rand(n) + 0.1, torch.randn(n)
    return mean, var, None if i % 4 == 1 else gamma, None if i % 4 == 2 else beta, (1e-5, 1e-3)[i % 2]


def _with_bn(calls, n):
    """Static calls without post-ops, a batch normalization of n columns behind the bias."""
    return [(*call[:7], *_batch_norm(i, n), *call[7:]) for i, call in enumerate(calls)]


def _conv_bn_calls(rank, transposed):
    return _with_bn([call[: 15 if transposed else 14] for call in _conv_calls(rank, transposed)], 4)


def _conv_relu_calls(rank):
    return [call[:14] for call in _conv_calls(rank, False)]


def _conv_add_calls():
    calls = []
    for i, call in enumerate(_conv_relu_calls(2)):
        x, weight = call[0].float(), call[3].float()
        size = torch.nn.functional.conv2d(x, weight, None, *call[10:14]).shape
        other = (random_int((U8, S8)[i % 2], *size), 0.2, 3) if i < 5 else (torch.randn(size), 1.0, 0)
        calls.append((*call[:10], *other, *call[10:]))
    return calls


def _histogram_calls():
    shapes = ((40,), (3, 7), (0,), (), (2, 3, 4))
    return [(torch.randn(shape), 1 + 9 * i, -2.0, 2.0 + i) for i, shape in enumerate(shapes)]


def _histograms():
    return [torch.randint(0, 50, (n,)).float() for n in (1, 2, 17, 256, 300)]


def _fake_quantize_calls():
    """(values, scale, zero point, bounds)."""
    shapes = ((40,), (3, 7), (0,), (), (2, 3, 4))
    calls = [
        (torch.randn(shape), torch.tensor([0.02]), torch.tensor([3], dtype=torch.int32), 0, 255)
        for shape in shapes
    ]
    images = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last)
    return [*calls, (images, torch.tensor([0.03]), torch.tensor([0]), -127, 127)]


def _weight_fake_quantize_calls():
    calls = []
    for i, shape in enumerate(((6, 4, 3, 3), (5, 12), (3,), (4, 0), (0, 3))):
        n = shape[0]
        scale, point = torch.rand(n) * 0.02 + 0.01, torch.randint(-3, 4, (n,), dtype=torch.int32)
        if i == 1:
            scale, point = scale[:1], point[:1].long()
        factor = torch.rand(n) + 0.5
        calls.append((torch.randn(shape), -factor if i == 0 else factor, scale, point, -127, 127))
    return calls


def _with_slope(name, call):
    """The call with the last argument of products, None where it has no prelu."""
    arguments = overload(name)._schema.arguments
    return (*call, None) if arguments[-1].name == "slope" and len(call) < len(arguments) else call


def samples():
    static = _linear_calls()
    plain = [c[:10] for c in static]
    adds = [(*c[:10], random_int(U8, *c[0].shape[:-1], 5), 0.1, 3) for c in plain]
    dynamic = _dynamic_calls()
    result = {
        "linear": static,
        "linear.tensor": [_tensor_qparams(c) for c in static],
        "linear_relu": plain,
        "linear_leaky_relu": [(*c, 0.2) for c in plain],
        "linear_tanh": plain,
        "linear_add": adds,
        "linear_add_relu": adds,
        "linear_bn": _with_bn(plain, 5),
        "linear_bn_relu": _with_bn(plain, 5),
        "_prepack_linear": [(*c[3:7], c[0].dtype, *c[1:3], *c[7:12], *c[15:]) for c in static],
        "conv1d": _conv_calls(1, False),
        "conv2d": _conv_calls(2, False),
        "conv3d": _conv_calls(3, False),
        "conv_transpose1d": _conv_calls(1, True),
        "conv_transpose2d": _conv_calls(2, True),
        "conv_transpose3d": _conv_calls(3, True),
        "conv1d_relu": _conv_relu_calls(1),
        "conv2d_relu": _conv_relu_calls(2),
        "conv3d_relu": _conv_relu_calls(3),
        "conv2d_add": _conv_add_calls(),
        "conv2d_add_relu": _conv_add_calls(),
        "conv1d_bn": _conv_bn_calls(1, False),
        "conv2d_bn": _conv_bn_calls(2, False),
        "conv3d_bn": _conv_bn_calls(3, False),
        "conv1d_bn_relu": _conv_bn_calls(1, False),
        "conv2d_bn_relu": _conv_bn_calls(2, False),
        "conv3d_bn_relu": _conv_bn_calls(3, False),
        "conv_transpose1d_bn": _conv_bn_calls(1, True),
        "conv_transpose2d_bn": _conv_bn_calls(2, True),
        "conv_transpose3d_bn": _conv_bn_calls(3, True),
        "conv1d_dynamic": _conv_dynamic_calls(1, False),
        "conv2d_dynamic": _conv_dynamic_calls(2, False),
        "conv3d_dynamic": _conv_dynamic_calls(3, False),
        "conv_transpose1d_dynamic": _conv_dynamic_calls(1, True),
        "conv_transpose2d_dynamic": _conv_dynamic_calls(2, True),
        "conv_transpose3d_dynamic": _conv_dynamic_calls(3, True),
        "linear_dynamic": dynamic,
        "linear_relu_dynamic": [c[:9] for c in dynamic],
        "_prepack_linear_dynamic": [(*c[1:5], c[0].dtype, *c[5:11], *c[12:]) for c in dynamic],
        "linear_weight_only": _weight_only_calls(),
        "_prepack_linear_weight_only": _prepack_weight_only(_weight_only_calls()),
        "sparse_linear": _sparse_calls(),
        "_prepack_sparse_linear": _prepack_sparse(_sparse_calls()),
        "sparse_linear_dynamic": _sparse_dynamic_calls(),
        "_prepack_sparse_linear_dynamic": _prepack_sparse_dynamic(_sparse_dynamic_calls()),
        "quantize_per_tensor": _per_tensor(True, False),
        "quantize_per_tensor.tensor": _per_tensor(True, True),
        "dequantize_per_tensor": _per_tensor(False, False),
        "dequantize_per_tensor.tensor": _per_tensor(False, True),
        "quantize_per_channel": _per_channel(True),
        "dequantize_per_channel": _per_channel(False),
        "quantize_per_token": _per_token(True),
        "dequantize_per_token": _per_token(False),
        "embedding": _embedding_calls(),
        "embedding_bag": _bag_calls(),
        "embedding_prepack": [(t, (8, 4, 2)[i % 3]) for i, t in enumerate(_prepack_tables())],
        "embedding_unpack": _unpack_calls(),
        "_prepack_embedding": [(call[0],) for call in _embedding_calls()],
        "_histogram": _histogram_calls(),
        "_histogram_widen": [(h, -2.0, 2.0, -2.0 - i, 3.0) for i, h in enumerate(_histograms())],
        "_histogram_search": [(h, -2.0, 2.0, 256 >> i) for i, h in enumerate(_histograms())],
        "_min_max": [(x, False) for x, *_ in _fake_quantize_calls() if x.numel()]
        + [(w, True) for w, *_ in _weight_fake_quantize_calls() if w.numel()],
        "_fake_quantize": _fake_quantize_calls(),
        "_fake_quantize_backward": [(torch.randn(c[0].shape), *c) for c in _fake_quantize_calls()],
        "_weight_fake_quantize": _weight_fake_quantize_calls(),
        "_weight_fake_quantize_backward": [
            (torch.randn(c[0].shape), *c) for c in _weight_fake_quantize_calls()
        ],
        "choose_qparams": _choose(False),
        "choose_qparams_per_token": _choose(True),
        **int8_samples(),
        **norm_samples(),
        **attention_samples(),
    }
    return {name: [_with_slope(name, call) for call in calls] for name, calls in result.items()}


# Ops that take lists of tensors, which some tables of the tests cannot change: calls for sizes h and k.
_RNN = {
    **{name: partial(_rnn_calls, gates) for name, gates in RNN_GATES.items()},
    **{f"{name}_cell": partial(_cell_calls, gates) for name, gates in RNN_GATES.items()},
    "_prepack_rnn": _prepack_rnn,
}


def rnn_samples(**sizes):
    """Of the recurrent ops."""
    return {name: calls(**sizes) for name, calls in _RNN.items()}


ISLAND = """torch_ao.island 1 inputs=1 constants=3
torch_ao::quantize_per_tensor %0 f0.05 i128 i0 i255 duint8 # stem
torch_ao::linear %1 f0.05 i128 @0 @1 n @2 f0.1 i3 duint8 srelu F n f1.0 i0 # stem.fc
torch_ao::requantize %2 f0.1 i3 f0.02 i0 dint8 sclamp F-1.5,inf # act
aten::cat T%2,%2 i1
return %3 %4"""
_VIEWS = "torch_ao.island 1 inputs=2 constants=0\naten::transpose.int %0 i0 i1\nreturn %2 %1 %2"


def _island_calls(n=6, k=10):
    weights = [random_int(S8, n, k), torch.rand(n) * 0.1 + 0.01, torch.randn(n)]
    dynamic = "torch_ao.island 1 inputs=1 constants=3\ntorch_ao::linear_dynamic %0 @0 @1 n @2\nreturn %1"
    return [
        ([torch.randn(4, k)], weights, ISLAND),
        ([torch.randn(0, k)], weights, ISLAND),
        ([torch.randn(2, 3, k)], weights, dynamic),
        ([random_int(U8, 2, 3, 5), torch.randn(3)], [], _VIEWS),
    ]


def list_samples(n=6, k=10):
    """Of the ops whose lists hold any number of tensors, and of the text of an island."""
    programs = [(len(inputs), len(constants), text) for inputs, constants, text in _island_calls()]
    return {
        "cat": cat_calls(n, k),
        "island": _island_calls(n, k),
        "_check_island": programs,
        "_island_plans": [(text,) for *_, text in programs],
    }


def all_samples():
    return {**samples(), **rnn_samples(), **list_samples()}


# test_rnn.py runs opcheck on rnn_samples().
RECURRENT = set(_RNN)
SIZED.update(_RNN)

# Ops that give no tensor: settings, reports and a digest.
SETTINGS = {
    "_crc32", "_init_error", "_info", "_explain", "_repack", "_set_engine", "_set_deterministic",
    "_set_dispatch_log", "_pack_count", "_island_operators",
}  # fmt: skip
# test_cat.py and test_island.py run opcheck on them.
LISTS = set(list_samples())
SIZED.update({name: lambda n, k, name=name: list_samples(n, k)[name] for name in LISTS})
SERVICE = RECURRENT | LISTS | SETTINGS


def packs(name):
    """Whether the op has engine state on a weight, so that engines can be forced."""
    names = [a.name for a in overload(name)._schema.arguments]
    return any(n.startswith("weight") and "scale" in n for n in names)


def overload(name):
    packet, _, overload_name = name.partition(".")
    return getattr(getattr(torch.ops.torch_ao, packet), overload_name or "default")


def registered():
    """Every overload of the library, as 'linear' or 'linear.tensor'."""
    names = torch._C._dispatch_get_registrations_for_dispatch_key("")
    schemas = torch._C._jit_get_all_schemas()
    del names
    return {
        s.name.removeprefix("torch_ao::") + (f".{s.overload_name}" if s.overload_name else "")
        for s in schemas
        if s.name.startswith("torch_ao::")
    }
