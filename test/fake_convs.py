"""Cases of convolutions, and of their forms with arguments of a batch norm: (args, kwargs)."""

import torch
from fake_values import floats, s8, u8

ops = torch.ops.torch_ao


def conv_cases(rank, transposed=False):
    def case(x, o, groups=1, output=(0.2, 4, None), zero_point=False, **kwargs):
        c = x.shape[1]
        w = s8(*((c, o // groups) if transposed else (o, c // groups)), *(2,) * rank)
        scale, points = torch.rand(o) * 0.01 + 0.001, torch.randint(-5, 5, (o,)) if zero_point else None
        point = 3 if x.dtype == torch.uint8 else -3
        return (x, 0.1, point, w, scale, points, torch.randn(o), *output), {"groups": groups, **kwargs}

    spatial = (5, 4, 3)[:rank]
    yield case(u8(2, 4, *spatial), 6)
    yield case(s8(1, 4, *spatial), 4, groups=4, padding=[1] * rank, stride=[2] * rank)
    yield case(u8(1, 4, *spatial), 6, groups=2, dilation=[2] * rank, output=(1.0, 0, torch.bfloat16))
    yield case(s8(0, 4, *spatial), 6, zero_point=True, output=(1.0, 0, torch.float32))
    x = u8(2, *spatial, 4).movedim(-1, 1)
    out = tuple(n + 1 if transposed else n - 1 for n in spatial)
    extra = {"post_ops": "add,relu", "other": u8(2, 6, *out), "other_scale": 0.1, "other_zero_point": 2}
    yield case(x, 6, zero_point=True, **extra)
    if transposed:
        yield case(u8(1, 4, *spatial), 6, stride=[2] * rank, output_padding=[1] * rank)


def conv_dynamic_cases(rank, transposed=False):
    for i, (args, kwargs) in enumerate(conv_cases(rank, transposed)):
        dtype = (torch.float32, torch.bfloat16)[i % 2]
        x = torch.empty_like(args[0], dtype=dtype).copy_(args[0])
        kwargs = {k: v for k, v in kwargs.items() if not k.startswith("other_")}
        if "other" in kwargs:
            kwargs |= {"other": kwargs["other"].float(), "post_ops": "add,prelu,affine", "slope": floats(6)}
            kwargs |= {"affine_weight": floats(6), "affine_bias": floats(6)}
        yield (x, *args[3:7]), {"per_sample": i % 3 > 0, "symmetric": i % 3 == 2, **kwargs}


def without_post_ops(cases):
    for args, kwargs in cases:
        yield args, {k: v for k, v in kwargs.items() if "post" not in k and "other" not in k}


def batch_norm_cases(cases):
    for i, (args, kwargs) in enumerate(without_post_ops(cases)):
        n = 5 if args[6] is None else args[6].numel()
        affine = (floats(n), None) if i % 2 else (None, floats(n))
        yield (*args[:7], floats(n), torch.rand(n), *affine, 1e-5, *args[7:]), kwargs


def conv_add_cases():
    for args, kwargs in without_post_ops(conv_cases(2)):
        yield (*args, u8(*ops.conv2d(*args, **kwargs).shape), 0.1, 2), kwargs
