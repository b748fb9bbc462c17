"""Cases of linear layers of each kind: (args, kwargs)."""

import torch
from fake_values import INPUTS, floats, s8, u8, weights

import torch_ao_ext


def dynamic_cases():
    for shape in INPUTS:
        x = floats(*shape)
        yield (x, *weights(5, 8)), {}
        yield (x.bfloat16(), *weights(5, 8, bias=False, zero_point=True)), {"per_row": False}
        extra = {"post_ops": "add,clamp", "post_op_args": [-1.0, 1.0], "other": floats(*shape[:-1], 5)}
        yield (x, *weights(5, 8, per_tensor=True)), {"output_dtype": torch.bfloat16, **extra}


def static_cases(*extra):
    for shape in INPUTS:
        yield (u8(*shape), 0.1, 3, *weights(5, 8), 0.2, 4, None, *extra), {}
        yield (s8(*shape), 0.1, -3, *weights(5, 8, zero_point=True), 1.0, 0, torch.float32, *extra), {}


def add_cases():
    for shape in INPUTS:
        out = (*shape[:-1], 5)
        yield (u8(*shape), 0.1, 3, *weights(5, 8), 0.2, 4, None, u8(*out), 0.1, 2), {}
        yield (s8(*shape), 0.1, 3, *weights(5, 8), 1.0, 0, torch.bfloat16, floats(*out)), {}


def tensor_cases():
    def scalar(v, dtype=torch.float32):
        return torch.tensor(v, dtype=dtype)

    for shape in INPUTS:
        yield (u8(*shape), scalar(0.1), scalar([3], torch.int32), *weights(5, 8), scalar([0.2]),
               scalar(4, torch.int64), torch.int8), {}  # fmt: skip


def weight_only_cases():
    for n, k, group in ((5, 8, 0), (8, 3, 0), (4, 70, 32), (3, 33, 64), (2, 256, 128)):
        weight = u8(n, -(-k // 2)) if group else s8(n, k)
        scale = torch.rand(n, -(-k // group)) + 0.1 if group else torch.rand(n) + 0.1
        for rows in ((4,), (0,), (2, 3), ()):
            yield (floats(*rows, k), weight, scale, torch.randn(n), group), {}
            yield (floats(*rows, k).bfloat16(), weight, scale), {"group_size": group, "input_bits": 8}


def sparse_cases(dynamic):
    for block in ((1, 4), (8, 1)):
        for n, k in ((5, 8), (8, 3), (16, 20)):
            kept = (torch.rand(n, k) < 0.2).to(torch.int8)
            table = torch_ao_ext.ops.to_block_sparse(s8(n, k) * kept, block)
            scale, bias = torch.rand(n) * 0.01 + 0.001, torch.randn(n)
            for rows in ((4,), (0,), (2, 3)):
                x = floats(*rows, k) if dynamic else u8(*rows, k)
                if dynamic:
                    yield (x, *table, scale, bias), {}
                else:
                    yield (x, 0.1, 3, *table, scale, bias, 0.3, 9), {}
