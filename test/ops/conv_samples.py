"""Valid calls of the convolutions, and of products with a batch norm; see op_samples.py."""

import torch
from op_cases import random_int

U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16


def _conv_calls(rank, transposed):
    size, ones, zeros = (5, 6, 4)[-rank:], [1] * rank, [0] * rank
    w, grouped = random_int(S8, 4, 4, *[3] * rank), random_int(S8, 4, 2, *[2] * rank)
    s, bias, zp = torch.rand(4) * 0.1 + 0.01, torch.randn(4), torch.randint(-128, 128, (4,))
    xu, xs = random_int(U8, 2, 4, *size), random_int(S8, 1, 4, *size)

    def call(x, weight, scale, point, bias, out, numbers, post=("", []), other=(None, 1.0, 0), tensors=()):
        stride, padding, dilation, groups = numbers
        order = (stride, padding, zeros, groups, dilation) if transposed else numbers
        return (x, 0.1, 7, weight, scale, point, bias, *out, *order, *post, *other, *tensors)

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
             tensors=(torch.randn(4),)),
        call(xu, grouped, scale2, None, bias, (0.2, -9, S8), ([1] * rank, zeros, ones, 2),
             ("relu,affine", []), tensors=(None, torch.randn(4), torch.randn(4))),
    ]  # fmt: skip


def _conv_dynamic_calls(rank, transposed):
    """The static calls with float inputs."""
    rules = [(True, False, False), (False, True, False), (True, True, True), (False, False, False)]
    calls = []
    for i, call in enumerate(_conv_calls(rank, transposed)):
        count = 20 if transposed else 19
        call, tensors = call[:count], call[count:]
        x, weight, scale, point, bias, dtype = call[0], *call[3:7], call[9]
        numbers, post, other = call[10 : 15 if transposed else 14], call[-5:-3], call[-3]
        x = torch.empty_like(x, dtype=(F32, BF16)[i % 2]).copy_(x.float() * 0.1 - 3)
        other = None if other is None else torch.empty_like(other, dtype=F32).copy_(other)
        dtype = dtype if dtype in (F32, BF16) else None
        calls.append((x, weight, scale, point, bias, *rules[i % 4], dtype, *numbers, *post, other, *tensors))
    return calls


def _batch_norm(i, n):
    """running_mean, running_var, bn_weight, bn_bias, eps: gamma of both signs, with a 0; absent ones."""
    gamma = torch.randn(n)
    gamma[0] = 0
    mean, var, beta = torch.randn(n), torch.rand(n) + 0.1, torch.randn(n)
    return mean, var, None if i % 4 == 1 else gamma, None if i % 4 == 2 else beta, (1e-5, 1e-3)[i % 2]


def with_bn(calls, n):
    """Static calls without post-ops, a batch normalization of n columns behind the bias."""
    return [(*call[:7], *_batch_norm(i, n), *call[7:]) for i, call in enumerate(calls)]


def _conv_bn_calls(rank, transposed):
    return with_bn([call[: 15 if transposed else 14] for call in _conv_calls(rank, transposed)], 4)


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


def conv_samples():
    """name -> calls."""
    return {
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
    }
