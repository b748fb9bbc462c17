"""Valid calls of the ops of attention, and their exact results (op_samples.py)."""

import numpy as np
import torch
from int8_samples import finish
from op_cases import random_int

U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16
F = np.float32


def matmul_calls():
    heads = random_int(U8, 2, 5, 3, 8).transpose(1, 2)  # [B, S, H, D] seen as [B, H, S, D]
    keys = random_int(U8, 2, 6, 3, 8).transpose(1, 2)
    weights, values = random_int(S8, 2, 3, 5, 70), random_int(U8, 2, 3, 70, 66)
    return [
        (heads, 0.1, 120, keys.transpose(-1, -2), 0.05, 130, 1.0, 0, F32, "", []),
        (weights, 0.004, -128, values, 0.05, 3, 0.02, -9, None, "", []),
        (random_int(S8, 4, 12), 0.1, -7, random_int(S8, 12, 5), 0.05, 7, 0.3, 9, U8, "relu", []),
        (random_int(U8, 3, 1, 2, 9), 0.1, 0, random_int(S8, 4, 9, 1), 0.05, 0, 1.0, 0, BF16, "clamp",
         [-1.0, 1.0]),
        (random_int(U8, 2, 0), 0.1, 0, random_int(U8, 0, 3), 0.05, 9, 0.3, 9, None, "", []),
        (random_int(U8, 2, 0, 4), 0.1, 0, random_int(U8, 4, 3), 0.05, 9, 0.3, 9, None, "gelu", []),
        (random_int(S8, 14, 6).t()[::2, ::2], 0.1, 0, random_int(S8, 21, 7)[::3, ::2], 0.05, 9, 0.3, 9, S8,
         "leaky_relu", [0.1]),
    ]  # fmt: skip


def softmax_calls():
    x = torch.randn(2, 3, 5, 70) * 4
    mask = torch.zeros(2, 1, 1, 70)
    mask[1, ..., 50:] = -torch.inf
    return [
        (x, -1, 0.125, 0, 1 / 255, 0, U8, mask),
        (random_int(U8, 3, 70), 1, 0.05, 120, 1 / 256, -128, S8, None),
        (x.transpose(1, 3), 1, 1.0, 0, 1.0, 0, None, torch.randn(5, 1)),
        (x.to(BF16)[..., ::2], 3, 1.0, 0, 1.0, 0, BF16, None),
        (random_int(S8, 9), 0, 0.1, -3, 1.0, 0, F32, torch.randn(1)),
        (torch.randn(2, 0, 3), 1, 1.0, 0, 1 / 255, 0, U8, None),
    ]


def scaled_dot_product_attention_calls():
    heads = torch.randn(3, 2, 5, 3, 8)  # query, key, value: [B, S, H, D] seen as [B, H, S, D]
    q, k, v = heads.transpose(2, 3)
    padded = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    padded[1, ..., 2:] = False
    return [
        (q, k, v, None, False, None),
        (q, k, v, padded, False, 0.3),
        (q[0], k[0, :, :4], torch.randn(3, 4, 11), torch.randn(5, 4), False, None),
        (torch.randn(70, 9), torch.randn(40, 9), torch.randn(40, 1), None, True, 2.0),
        (q.to(BF16), k, v.to(BF16), torch.randn(1, 3, 5, 1), False, None),
        (q.to(BF16), k.to(BF16), v.to(BF16), torch.randn(5).to(BF16), False, 0.01),
        (torch.randn(4, 6)[:, ::2], torch.randn(3, 8).t()[:5], torch.randn(5, 2), None, False, 1.0),
        (q[:, :, :0], k, v, None, False, None),
        (q, k[:, :, :0], v[:, :, :0], None, False, None),
        (q[..., :0], k[..., :0], v, None, False, None),
    ]


def attention_calls():
    def heads(dtype, length, width):  # [B, S, H, D] seen as [B, H, S, D]
        return random_int(dtype, 2, length, 3, width).transpose(1, 2)

    def operands(sizes, *dtypes):  # L, S, E, V behind the leading sizes
        *batch, queries, keys, width, value_width = sizes
        shapes = (queries, width), (keys, width), (keys, value_width)
        return [
            x
            for dtype, shape in zip(dtypes, shapes, strict=True)
            for x in (random_int(dtype, *batch, *shape), 0.05, 3)
        ]

    seen = torch.rand(2, 1, 1, 70) < 0.6
    mask = torch.randn(5, 70).masked_fill(torch.rand(5, 70) < 0.3, -torch.inf)
    wide = (heads(U8, 5, 64), 0.02, 120, heads(U8, 70, 64), 0.02, 130, heads(U8, 70, 32), 0.02, 120)
    odd = (heads(S8, 5, 9), 0.05, -7, heads(S8, 70, 9), 0.05, 9, heads(U8, 70, 66), 0.03, 3)
    apart = random_int(U8, 21, 30).t()[::2], 0.05, 0, random_int(S8, 33, 21), 0.05, -128
    return [
        (*wide, 0.01, 128, None, seen, False, None),
        (*odd, 0.02, -9, S8, mask, False, 0.3),
        (*apart, random_int(S8, 33, 5), 0.05, 127, 1.0, 0, F32, None, True, 0.2),
        (*operands((1, 4, 1, 1, 1), U8, U8, S8), 1.0, 0, BF16, None, False, 1.0),
        (*operands((2, 3, 0, 8, 5), U8, U8, S8), 0.1, 7, U8, None, False, None),
        (*operands((2, 3, 6, 0, 5), U8, U8, S8), 0.1, 7, U8, torch.randn(3, 1), False, None),
        (*operands((0, 3, 4, 8, 5), U8, U8, S8), 0.1, 7, U8, None, True, None),
    ]


def attention_samples():
    """name -> calls, as op_samples.samples()."""
    return {
        "matmul": matmul_calls(),
        "softmax": softmax_calls(),
        "attention": attention_calls(),
        "scaled_dot_product_attention": scaled_dot_product_attention_calls(),
    }


def matmul(args):
    a, s_a, z_a, b, s_b, z_b, s_y, z_y, dtype, post_ops, numbers = args
    acc = torch.matmul(a.double() - z_a, b.double() - z_b)  # below 2^53: exact
    r = (acc.numpy().astype(F) * (F(s_a) * F(s_b))).astype(F)
    dtype = dtype or a.dtype
    # The division by the scale is exact here, not a product with its inverse.
    return finish(r, a.dtype, s_y, z_y, dtype, post_ops, numbers, divide=True)


ATTENTION_FORMULAS = {"matmul": matmul}
