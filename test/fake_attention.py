"""Cases of matmul, softmax and attention: (args, kwargs)."""

import torch
from fake_values import floats, s8, u8


def matmul_cases():
    yield (u8(3, 4), 0.1, 7, u8(4, 5), 0.2, 3), {"output_dtype": torch.float32}
    yield (u8(2, 3, 4), 0.1, 7, u8(2, 5, 4).transpose(1, 2), 0.2, 3, 0.5, 9), {"post_ops": "relu"}
    yield (u8(2, 1, 3, 4), 0.1, 7, u8(5, 4, 6), 0.2, 3, 0.5, 9), {}


def attention_cases():
    q, k, v = u8(2, 3, 5, 8), u8(2, 3, 7, 8), s8(2, 3, 7, 4)
    numbers = (0.1, 3)
    yield (q, *numbers, k, *numbers, v, *numbers), {"attn_mask": floats(5, 7), "scale": 0.5}
    operands = (q.transpose(1, 2), *numbers, k[:, :1].expand(2, 5, 7, 8), *numbers, s8(2, 5, 7, 4), *numbers)
    yield operands, {"attn_mask": floats(2, 1, 1, 7) > 0, "output_dtype": torch.float32}
    yield (q[0, 0], *numbers, k[0, 0], *numbers, v[0, 0], *numbers, 0.1, 3, torch.uint8), {"is_causal": True}


def softmax_cases():
    yield (floats(3, 5), -1, 1.0, 0, 1 / 256, 0, torch.uint8), {}
    yield (u8(2, 3, 5), 1, 0.1, 7), {"output_dtype": torch.float32}
    yield (u8(2, 3, 5), 2, 0.1, 7, 1 / 256, 0), {"attn_mask": floats(3, 5)}


def scaled_dot_product_attention_cases():
    x = floats(2, 3, 5, 4)
    yield (x, x, x), {}
    yield (x[0], floats(3, 7, 4), floats(3, 7, 6), floats(5, 7)), {"scale": 0.3}
    yield (x, x.transpose(1, 2).contiguous().transpose(1, 2), x, None, True), {}
