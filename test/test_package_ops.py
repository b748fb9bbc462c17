"""Fake kernels: opcheck of every overload, the kernels' own errors, symbolic sizes."""

import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

import torch_ao_ext

ops = torch.ops.torch_ao


def floats(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


def u8(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def s8(*shape):
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def weights(n, k, bias=True, zero_point=False, per_tensor=False):
    count = 1 if per_tensor else n
    points = torch.randint(-5, 5, (count,), dtype=torch.int32) if zero_point else None
    return s8(n, k), torch.rand(count) * 0.01 + 0.001, points, torch.randn(n) if bias else None


INPUTS = [(4, 8), (8,), (2, 3, 8), (0, 8), (1, 8)]
LAYOUTS = [(4, 8), (2, 3, 8), (0, 8), (5,)]


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


def quantize_tensor_cases():
    for shape in LAYOUTS:
        yield (floats(*shape), 0.1, 3, 0, 255, torch.uint8), {}
        x = floats(*shape).bfloat16()
        yield (x.t() if len(shape) == 2 else x, 0.1, 0, -127, 127, torch.int8), {}
    yield (floats(2, 3, 4, 5).to(memory_format=torch.channels_last), 0.1, 3, 0, 255, torch.uint8), {}
    yield (floats(6, 8)[::2, 1:], 0.1, 3, 0, 255, torch.uint8), {}


def qparam_tensors(cases):
    for (x, scale, point, *rest), kwargs in cases:
        yield (x, torch.tensor([scale]), torch.tensor(point), *rest), kwargs


def dequantize_tensor_cases():
    for shape in LAYOUTS:
        yield (u8(*shape), 0.1, 3), {}
        yield (s8(*shape), 0.1, 3, torch.bfloat16), {}
    yield (s8(0, 8).t(), 0.1, 3), {}
    yield (s8(2, 3, 4, 5).to(memory_format=torch.channels_last), 0.1, 3), {}


def channel_cases(dequantize=False):
    for axis in (0, 1, -1, -3):
        x = floats(3, 4, 5).transpose(0, 1) if axis == 1 else floats(3, 4, 5)
        count = x.shape[axis]
        scales, points = torch.rand(count) + 0.1, torch.randint(-9, 9, (count,))
        if dequantize:
            yield (s8(*x.shape), scales, None if axis == 0 else points, axis), {}
        else:
            yield (x, scales.double(), points, axis, -128, 127, torch.int8), {}


def token_cases(dequantize=False):
    for shape in LAYOUTS:
        rows = (*shape[:-1], 1)
        scales, points = torch.rand(rows) + 0.1, torch.randint(0, 9, rows)
        if dequantize:
            yield (u8(*shape), scales, points), {"output_dtype": torch.bfloat16}
        else:
            yield (floats(*shape), scales, points, 0, 255, torch.uint8), {}
    x = floats(8, 6).t()
    yield (u8(8, 6).t() if dequantize else x, torch.ones(6, 1), torch.zeros(6, 1, dtype=torch.int32),
           *(() if dequantize else (0, 255, torch.uint8))), {}  # fmt: skip


def choose_cases(per_token=False):
    for shape in [(4, 8), (2, 3, 8), (7,)] + ([(0, 8)] if per_token else []):
        yield (floats(*shape), 0, 255), {}
        yield (floats(*shape).bfloat16(), -127, 127), {"symmetric": True}


def tables(rows, dim):
    for bits in (8, 4, 2):
        yield ops.embedding_prepack(floats(rows, dim), bits), bits


def embedding_cases():
    mapping = torch.tensor([2, -1, 0, 5], dtype=torch.int32)
    for table, bits in tables(6, 9):
        yield (table, torch.randint(6, (2, 3)), bits, 9), {}
        yield (table, torch.randint(4, (0,)), bits), {"mapping": mapping, "output_dtype": torch.bfloat16}
        yield (table, torch.tensor(3, dtype=torch.int32), bits), {"embedding_dim": 9}


def bag_cases():
    indices, offsets = torch.randint(6, (7,)), torch.tensor([0, 3, 3, 7])
    for table, bits in tables(6, 9):
        yield (table, indices, offsets, bits, 9), {"per_sample_weights": torch.rand(7)}
        options = {"include_last_offset": True, "padding_idx": -1}
        yield (table, indices, offsets.int(), bits, 9, "mean"), options
        yield (table, torch.randint(6, (3, 2)), None, bits), {"mode": "max", "output_dtype": torch.bfloat16}


def unpack_cases():
    for table, bits in tables(6, 9):
        yield (table, bits), {}
        yield (table, bits, 9, torch.bfloat16), {}


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
            kwargs |= {"other": kwargs["other"].float(), "post_ops": "add,prelu", "slope": floats(6)}
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


def binary_cases():
    for out in ((0.2, 4, None), (1.0, 0, torch.bfloat16)):
        yield (u8(2, 3, 4, 5), 0.1, 3, s8(2, 3, 4, 5), 0.1, -3, *out), {"post_ops": "relu"}
        yield (u8(4, 1, 3), 0.1, 3, s8(5, 1), 0.1, -3, *out), {}
        nhwc = u8(2, 3, 4, 5).to(memory_format=torch.channels_last)
        yield (nhwc, 0.1, 3, u8(1), 0.1, 3, *out), {}
        yield (s8(0, 4), 0.1, 3, s8(0, 4)[:, :1], 0.1, 3, *out), {}


def pool_cases(rank, kind):
    size = (5, 6, 7)[:rank]
    out = () if kind == "max" else (0.1, 3, 0.2, 4, None)
    real = () if kind == "max" else (0.1, 3, 1.0, 0, torch.bfloat16)
    inputs = (u8(2, 3, *size), s8(1, *size, 17).movedim(-1, 1), u8(0, 3, *size))
    for x in inputs:
        if kind == "adaptive":
            yield (x, *out, [2] * rank), {}
            yield (x, *real, [1] * rank), {}
        else:
            yield (x, *out, [2] * rank), {}
            yield (x, *real, [3] * rank), {"stride": [2] * rank, "padding": [1] * rank, "ceil_mode": True}


def row_norm_cases(name):
    """layer_norm, rms_norm and those with a sum, which has one operand more."""
    for x, point in ((u8(2, 3, 8), 3), (s8(4, 8).t().contiguous().t(), -3), (floats(5, 8), 0), (u8(0, 8), 3)):
        scale = 1.0 if x.is_floating_point() else 0.1
        other = (floats(*x.shape), 1.0, 0) if "add" in name else ()
        tensors = (floats(8),) if name == "rms_norm" else (floats(8), None)
        yield (x, scale, point, *other, *tensors, 0.2, 4, torch.uint8, [8]), {}
        none = (None,) * len(tensors)
        yield (x, scale, point, *other, *none, 1.0, 0, torch.bfloat16, [8], 1e-3), {"post_ops": "relu"}


def channel_norm_cases(name):
    nhwc = u8(2, 4, 5, 6).to(memory_format=torch.channels_last)
    for x in (u8(2, 4, 5, 6), nhwc, s8(2, 4, 9)[:, :, ::2], u8(0, 4, 3)):
        statistics = (floats(4), torch.rand(4)) if name == "batch_norm" else ()
        groups = (2,) if name == "group_norm" else ()
        yield (x, 0.1, 3, *statistics, floats(4), None, 0.2, 4, None, *groups), {}
        yield (x, 0.1, 3, *statistics, None, floats(4), 1.0, 0, torch.bfloat16, *groups, 1e-3), {}
    if name == "batch_norm":
        yield (floats(2, 4, 3), 1.0, 0, *statistics, None, None, 0.2, 4, torch.int8), {"post_ops": "relu"}


def lookup_cases():
    for x in (u8(2, 4, 5), s8(4, 6).t(), u8(0, 4), s8()):
        yield (x, u8(256)), {}
        yield (x, floats(256).bfloat16()), {}
    yield (u8(2, 4, 5), s8(4, 256)), {}
    yield (s8(2, 3, 4).transpose(1, 2), floats(3, 256)), {"axis": -1}


def interpolate_cases():
    nhwc = u8(2, 4, 5, 6).to(memory_format=torch.channels_last)
    for x in (u8(2, 4, 5, 6), nhwc, s8(0, 4, 3, 3)):
        yield (x, 0.1, 3, 0.2, 4, None, [3, 7], "bilinear"), {"align_corners": True}
        yield (x, 0.1, 3, 1.0, 0, torch.bfloat16, [3, 7]), {"scale_factors": [0.6, 1.2]}
    yield (u8(2, 4, 5), 0.1, 3, 0.1, 3, None, [10]), {}
    yield (s8(1, 2, 3, 4, 5), 0.1, 3, 0.1, 3, None, [3, 8, 2]), {}


def matmul_cases():
    yield (u8(3, 4), 0.1, 7, u8(4, 5), 0.2, 3), {"output_dtype": torch.float32}
    yield (u8(2, 3, 4), 0.1, 7, u8(2, 5, 4).transpose(1, 2), 0.2, 3, 0.5, 9), {"post_ops": "relu"}
    yield (u8(2, 1, 3, 4), 0.1, 7, u8(5, 4, 6), 0.2, 3, 0.5, 9), {}


def softmax_cases():
    yield (floats(3, 5), -1, 1.0, 0, 1 / 256, 0, torch.uint8), {}
    yield (u8(2, 3, 5), 1, 0.1, 7), {"output_dtype": torch.float32}
    yield (u8(2, 3, 5), 2, 0.1, 7, 1 / 256, 0), {"mask": floats(3, 5)}


CASES = {
    "matmul": matmul_cases,
    "softmax": softmax_cases,
    "lookup": lookup_cases,
    "interpolate": interpolate_cases,
    **{
        name: lambda name=name: row_norm_cases(name)
        for name in ("layer_norm", "rms_norm", "add_layer_norm", "add_layer_norm_sum")
    },
    **{
        name: lambda name=name: channel_norm_cases(name)
        for name in ("group_norm", "instance_norm", "batch_norm")
    },
    "add": binary_cases,
    "mul": binary_cases,
    "requantize": lambda: (((*a[:3], *a[6:]), kw) for a, kw in binary_cases()),
    "max_pool1d": lambda: pool_cases(1, "max"),
    "max_pool2d": lambda: pool_cases(2, "max"),
    "max_pool3d": lambda: pool_cases(3, "max"),
    "avg_pool1d": lambda: pool_cases(1, "avg"),
    "avg_pool2d": lambda: pool_cases(2, "avg"),
    "avg_pool3d": lambda: pool_cases(3, "avg"),
    "adaptive_avg_pool1d": lambda: pool_cases(1, "adaptive"),
    "adaptive_avg_pool2d": lambda: pool_cases(2, "adaptive"),
    "adaptive_avg_pool3d": lambda: pool_cases(3, "adaptive"),
    "conv1d": lambda: conv_cases(1),
    "conv2d": lambda: conv_cases(2),
    "conv3d": lambda: conv_cases(3),
    "conv_transpose1d": lambda: conv_cases(1, transposed=True),
    "conv_transpose2d": lambda: conv_cases(2, transposed=True),
    "conv_transpose3d": lambda: conv_cases(3, transposed=True),
    "conv1d_dynamic": lambda: conv_dynamic_cases(1),
    "conv2d_dynamic": lambda: conv_dynamic_cases(2),
    "conv3d_dynamic": lambda: conv_dynamic_cases(3),
    "conv_transpose1d_dynamic": lambda: conv_dynamic_cases(1, transposed=True),
    "conv_transpose2d_dynamic": lambda: conv_dynamic_cases(2, transposed=True),
    "conv_transpose3d_dynamic": lambda: conv_dynamic_cases(3, transposed=True),
    "conv1d_relu": lambda: without_post_ops(conv_cases(1)),
    "conv2d_relu": lambda: without_post_ops(conv_cases(2)),
    "conv3d_relu": lambda: without_post_ops(conv_cases(3)),
    "conv2d_add": conv_add_cases,
    "conv2d_add_relu": conv_add_cases,
    "conv1d_bn": lambda: batch_norm_cases(conv_cases(1)),
    "conv2d_bn": lambda: batch_norm_cases(conv_cases(2)),
    "conv3d_bn": lambda: batch_norm_cases(conv_cases(3)),
    "conv1d_bn_relu": lambda: batch_norm_cases(conv_cases(1)),
    "conv2d_bn_relu": lambda: batch_norm_cases(conv_cases(2)),
    "conv3d_bn_relu": lambda: batch_norm_cases(conv_cases(3)),
    "conv_transpose1d_bn": lambda: batch_norm_cases(conv_cases(1, transposed=True)),
    "conv_transpose2d_bn": lambda: batch_norm_cases(conv_cases(2, transposed=True)),
    "conv_transpose3d_bn": lambda: batch_norm_cases(conv_cases(3, transposed=True)),
    "linear_bn": lambda: batch_norm_cases(static_cases()),
    "linear_bn_relu": lambda: batch_norm_cases(static_cases()),
    "embedding": embedding_cases,
    "embedding_bag": bag_cases,
    "embedding_prepack": lambda: (
        ((floats(n, k, dtype=dtype), bits), {})
        for n, k in ((4, 9), (0, 3), (3, 0))
        for bits in (8, 4, 2)
        for dtype in (torch.float32, torch.bfloat16)
    ),
    "embedding_unpack": unpack_cases,
    "linear_dynamic": dynamic_cases,
    "linear_relu_dynamic": lambda: (
        (a, {k: v for k, v in kw.items() if "post" not in k and k != "other"}) for a, kw in dynamic_cases()
    ),
    "linear": static_cases,
    "linear.tensor": tensor_cases,
    "linear_relu": static_cases,
    "linear_leaky_relu": lambda: static_cases(0.2),
    "linear_tanh": static_cases,
    "linear_add": add_cases,
    "linear_add_relu": add_cases,
    "linear_weight_only": weight_only_cases,
    "sparse_linear": lambda: sparse_cases(dynamic=False),
    "sparse_linear_dynamic": lambda: sparse_cases(dynamic=True),
    "quantize_per_tensor": quantize_tensor_cases,
    "quantize_per_tensor.tensor": lambda: qparam_tensors(quantize_tensor_cases()),
    "dequantize_per_tensor": dequantize_tensor_cases,
    "dequantize_per_tensor.tensor": lambda: qparam_tensors(dequantize_tensor_cases()),
    "quantize_per_channel": channel_cases,
    "dequantize_per_channel": lambda: channel_cases(dequantize=True),
    "quantize_per_token": token_cases,
    "dequantize_per_token": lambda: token_cases(dequantize=True),
    "choose_qparams": choose_cases,
    "choose_qparams_per_token": lambda: choose_cases(per_token=True),
}


def overload(name):
    packet, _, kind = name.partition(".")
    return getattr(getattr(ops, packet), kind or "default")


# Their cases are in test/ops/test_rnn.py, test_cat.py and test_island.py.
LISTS = {"lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell", "cat", "island"}


def test_every_public_overload_has_cases():
    assert sorted({*CASES, *LISTS}) == torch_ao_ext.info._operators()


@pytest.mark.parametrize("name", list(CASES))
def test_opcheck(name):
    """All of opcheck for one case; for the others all but the AOT trace, which takes a second."""
    quick = ("test_schema", "test_autograd_registration", "test_faketensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # opcheck's own tools warn
        for i, (args, kwargs) in enumerate(CASES[name]()):
            options = {} if i == 0 else {"test_utils": quick}
            torch.library.opcheck(overload(name), args, kwargs, **options)


@pytest.mark.parametrize("name", list(CASES))
def test_fake_gives_the_same_shape_strides_and_dtype(name):
    op = overload(name)
    for args, kwargs in CASES[name]():
        real = op(*args, **kwargs)
        with FakeTensorMode() as mode:

            def fake(value, mode=mode):
                return mode.from_tensor(value) if isinstance(value, torch.Tensor) else value

            shadow = op(*map(fake, args), **{k: fake(v) for k, v in kwargs.items()})
        pairs = zip(real, shadow, strict=True) if isinstance(real, tuple) else [(real, shadow)]
        for a, b in pairs:
            assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)


W, S8, _, BIAS = weights(5, 8)
X, XQ = floats(4, 8), u8(4, 8)
STATIC = (XQ, 0.1, 3, W, S8, None, BIAS, 0.2, 4)
Z4 = torch.zeros(4, 1, dtype=torch.int32)

TABLE, FIVE = torch.zeros(6, 12, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)
NO_OFFSETS = torch.zeros(0, dtype=torch.int64)

CONV_W = s8(6, 4, 2, 2)
CONV = (u8(1, 4, 5, 5), 0.1, 3, CONV_W, S8[:1], None, None, 0.2, 4)
BACK = (u8(1, 6, 5, 5), *CONV[1:])  # transposed: 6 channels to 4

POOL = u8(1, 4, 5, 5)
SUM = (XQ, 0.1, 3, XQ, 0.1, 3)

BAD = {
    "add input dtype": ("add", (X, *SUM[1:]), {}),
    "add other dtype": ("add", (*SUM[:3], X, 0.1, 3), {}),
    "add sizes": ("add", (*SUM[:3], XQ[:, :3], 0.1, 3), {}),
    "mul output dtype": ("mul", (*SUM, 1.0, 0, torch.int32), {}),
    "mul post op": ("mul", SUM, {"post_ops": "add"}),
    "requantize post op": ("requantize", SUM[:3], {"post_ops": "nothing"}),
    "requantize dtype": ("requantize", (X.int(), 0.1, 3), {}),
    "pool dtype": ("max_pool2d", (POOL.float(), [2, 2]), {}),
    "pool rank": ("max_pool2d", (POOL[0], [2, 2]), {}),
    "pool channels": ("max_pool2d", (POOL[:, :0], [2, 2]), {}),
    "pool kernel": ("max_pool2d", (POOL, [6, 2]), {}),
    "pool kernel count": ("max_pool2d", (POOL, [2, 2, 2]), {}),
    "pool kernel size": ("avg_pool2d", (POOL, 0.1, 3, 0.1, 3, None, [0, 2]), {}),
    "pool stride": ("max_pool2d", (POOL, [2, 2]), {"stride": [0, 1]}),
    "pool padding": ("max_pool2d", (POOL, [2, 2]), {"padding": [2, 0]}),
    "pool dilation": ("max_pool2d", (POOL, [2, 2]), {"dilation": [0, 1]}),
    "pool output dtype": ("avg_pool2d", (POOL, 0.1, 3, 0.1, 3, torch.int32, [2, 2]), {}),
    "pool output size": ("adaptive_avg_pool2d", (POOL, 0.1, 3, 0.1, 3, None, [0, 1]), {}),
    "conv input dtype": ("conv2d", (X, *CONV[1:]), {}),
    "conv input rank": ("conv2d", (CONV[0][0], *CONV[1:]), {}),
    "conv channels": ("conv2d", (CONV[0][:, :3], *CONV[1:]), {}),
    "conv spatial": ("conv2d", (CONV[0][..., :1], *CONV[1:]), {}),
    "conv no spatial": ("conv2d", (CONV[0][..., :0], *CONV[1:]), {"padding": 3}),
    "conv output dtype": ("conv2d", (*CONV, torch.int32), {}),
    "conv weight dtype": ("conv2d", (*CONV[:3], CONV_W.int(), *CONV[4:]), {}),
    "conv weight rank": ("conv2d", (*CONV[:3], CONV_W[0], *CONV[4:]), {}),
    "conv weight empty": ("conv2d", (*CONV[:3], CONV_W[:0], *CONV[4:]), {}),
    "conv stride": ("conv2d", CONV, {"stride": [0, 1]}),
    "conv stride count": ("conv2d", CONV, {"stride": [1, 1, 1]}),
    "conv padding": ("conv2d", CONV, {"padding": [-1, 0]}),
    "conv dilation": ("conv2d", CONV, {"dilation": [1, 1 << 31]}),
    "conv groups": ("conv2d", CONV, {"groups": 0}),
    "conv groups divide": ("conv2d", CONV, {"groups": 4}),
    "conv scales": ("conv2d", (*CONV[:4], S8[:3], *CONV[5:]), {}),
    "conv bias": ("conv2d", (*CONV[:6], BIAS, *CONV[7:]), {}),
    "conv post op": ("conv2d", CONV, {"post_ops": "swish"}),
    "conv other": ("conv2d", CONV, {"post_ops": "add", "other": u8(1, 6, 4, 3)}),
    "conv slope": ("conv2d", CONV, {"post_ops": "prelu", "slope": floats(5)}),
    "conv slope missing": ("conv2d", CONV, {"post_ops": "prelu"}),
    "conv slope unasked": ("conv2d", CONV, {"slope": floats(6)}),
    "conv dynamic input": ("conv2d_dynamic", (CONV[0], CONV_W, S8[:1]), {}),
    "conv dynamic other": ("conv2d_dynamic", (floats(1, 4, 5, 5), CONV_W, S8[:1]), {"other": u8(1, 6, 4, 4)}),
    "conv bn": ("conv2d_bn", (*CONV[:7], floats(6), floats(5), None, None, 1e-5, 0.2, 4), {}),
    "linear bn": ("linear_bn", (XQ, 0.1, 3, W, S8, None, None, S8, S8, S8.double(), None, 1e-5, 0.2, 4), {}),
    "transposed channels": ("conv_transpose2d", CONV, {}),
    "transposed output": ("conv_transpose2d", BACK, {"padding": 9}),
    "transposed output padding": ("conv_transpose2d", BACK, {"output_padding": 1}),
    "transposed groups": ("conv_transpose2d", BACK, {"groups": 4}),
    "table dtype": ("embedding", (TABLE.int(), FIVE), {}),
    "table rank": ("embedding", (TABLE[0], FIVE), {}),
    "table row": ("embedding", (TABLE[:, :7], FIVE), {}),
    "table bits": ("embedding", (TABLE, FIVE, 6), {}),
    "table dim few": ("embedding", (TABLE, FIVE, 4, 14), {}),
    "table dim many": ("embedding_unpack", (TABLE, 2, 33), {}),
    "table dim negative": ("embedding_unpack", (TABLE[:, :8], 8, -1), {}),
    "index dtype": ("embedding", (TABLE, X), {}),
    "map dtype": ("embedding", (TABLE, FIVE), {"mapping": FIVE}),
    "map rank": ("embedding_bag", (TABLE, FIVE, FIVE), {"mapping": Z4}),
    "embedding dtype": ("embedding", (TABLE, FIVE), {"output_dtype": torch.float16}),
    "bag rank": ("embedding_bag", (TABLE, FIVE[0]), {}),
    "bag mode": ("embedding_bag", (TABLE, FIVE, FIVE), {"mode": "min"}),
    "bag no offsets": ("embedding_bag", (TABLE, FIVE), {}),
    "bag offsets": ("embedding_bag", (TABLE, FIVE[None], FIVE), {}),
    "bag offsets dtype": ("embedding_bag", (TABLE, FIVE, X), {}),
    "bag offsets rank": ("embedding_bag", (TABLE, FIVE, Z4), {}),
    "bag no last offset": ("embedding_bag", (TABLE, FIVE, NO_OFFSETS), {"include_last_offset": True}),
    "bag weights dtype": ("embedding_bag", (TABLE, FIVE, FIVE), {"per_sample_weights": FIVE}),
    "bag weights size": ("embedding_bag", (TABLE, FIVE, FIVE), {"per_sample_weights": S8[:4]}),
    "bag weights mode": ("embedding_bag", (TABLE, FIVE, FIVE), {"per_sample_weights": S8, "mode": "max"}),
    "prepack dtype": ("embedding_prepack", (TABLE,), {}),
    "prepack rank": ("embedding_prepack", (X[0],), {}),
    "prepack bits": ("embedding_prepack", (X, 16), {}),
    "dynamic input dtype": ("linear_dynamic", (X.double(), W, S8), {}),
    "dynamic input rank": ("linear_dynamic", (torch.tensor(1.0), W, S8), {}),
    "dynamic input size": ("linear_dynamic", (X[:, :7], W, S8), {}),
    "weight dtype": ("linear_dynamic", (X, W.int(), S8), {}),
    "weight rank": ("linear_dynamic", (X, W[0], S8), {}),
    "scale dtype": ("linear_dynamic", (X, W, S8.double()), {}),
    "scale size": ("linear_dynamic", (X, W, S8[:3]), {}),
    "zero point dtype": ("linear_dynamic", (X, W, S8, S8), {}),
    "zero point size": ("linear_dynamic", (X, W, S8, torch.zeros(3, dtype=torch.int32)), {}),
    "bias dtype": ("linear_dynamic", (X, W, S8, None, BIAS.bfloat16()), {}),
    "bias rank": ("linear_dynamic", (X, W, S8, None, BIAS[None]), {}),
    "bias size": ("linear_dynamic", (X, W, S8, None, BIAS[:2]), {}),
    "output dtype": ("linear_dynamic", (X, W, S8), {"output_dtype": torch.float16}),
    "post op name": ("linear_dynamic", (X, W, S8), {"post_ops": "relu,swish"}),
    "post op count": ("linear_dynamic", (X, W, S8), {"post_ops": ",".join(["relu"] * 9)}),
    "post op args few": ("linear_dynamic", (X, W, S8), {"post_ops": "clamp", "post_op_args": [1.0]}),
    "post op args many": ("linear_dynamic", (X, W, S8), {"post_op_args": [1.0]}),
    "two adds": ("linear_dynamic", (X, W, S8), {"post_ops": "add,add", "other": floats(4, 5)}),
    "other missing": ("linear_dynamic", (X, W, S8), {"post_ops": "add"}),
    "other unasked": ("linear_dynamic", (X, W, S8), {"other": floats(4, 5)}),
    "other dtype": ("linear_dynamic", (X, W, S8), {"post_ops": "add", "other": u8(4, 5)}),
    "other size": ("linear_dynamic", (X, W, S8), {"post_ops": "add", "other": floats(4, 4)}),
    "other rank": ("linear_dynamic", (X, W, S8), {"post_ops": "add", "other": floats(1, 4, 5)}),
    "relu op name in text": ("linear_relu_dynamic", (X[:, :7], W, S8), {}),
    "static input dtype": ("linear", (X, *STATIC[1:]), {}),
    "static output dtype": ("linear", STATIC, {"output_dtype": torch.int32}),
    "static input size": ("linear_relu", (XQ[:, :3], *STATIC[1:]), {}),
    "static other dtype": ("linear_add", (*STATIC, None, floats(4, 5).double()), {}),
    "static other size": ("linear_add_relu", (*STATIC, None, u8(4, 4)), {}),
    "tensor scale dtype": ("linear.tensor", (XQ, Z4[:1], Z4[:1], W, S8, None, None, S8[:1], Z4[:1]), {}),
    "tensor scale size": ("linear.tensor", (XQ, S8, Z4[:1], W, S8, None, None, S8[:1], Z4[:1]), {}),
    "tensor point dtype": ("linear.tensor", (XQ, S8[:1], S8[:1], W, S8, None, None, S8[:1], Z4[:1]), {}),
    "quantize input": ("quantize_per_tensor", (XQ, 0.1, 0, 0, 255, torch.uint8), {}),
    "quantize dtype": ("quantize_per_tensor", (X, 0.1, 0, 0, 255, torch.int32), {}),
    "quantize tensor scale": ("quantize_per_tensor.tensor", (X, S8, Z4[:1], 0, 255, torch.uint8), {}),
    "dequantize input": ("dequantize_per_tensor", (X, 0.1, 0), {}),
    "dequantize dtype": ("dequantize_per_tensor", (XQ, 0.1, 0, torch.float64), {}),
    "dequantize tensor point": ("dequantize_per_tensor.tensor", (XQ, S8[:1], Z4), {}),
    "channel axis": ("quantize_per_channel", (X, S8, Z4, 2, 0, 255, torch.uint8), {}),
    "channel scales": ("quantize_per_channel", (X, S8, Z4[:, 0], 0, 0, 255, torch.uint8), {}),
    "channel points": ("quantize_per_channel", (X, S8[:4], Z4, 0, 0, 255, torch.uint8), {}),
    "channel rank": ("quantize_per_channel", (X[0, 0], S8, Z4, 0, 0, 255, torch.uint8), {}),
    "channel dequantize": ("dequantize_per_channel", (XQ, S8[:4], Z4[:2, 0], 0), {}),
    "token scales": ("quantize_per_token", (X, S8[:4], Z4, 0, 255, torch.uint8), {}),
    "token points": ("dequantize_per_token", (XQ, torch.ones(4, 1), Z4[:2]), {}),
    "choose dtype": ("choose_qparams", (XQ, 0, 255), {}),
    "choose empty": ("choose_qparams", (X[:0], 0, 255), {}),
    "choose rank": ("choose_qparams_per_token", (X[0, 0], 0, 255), {}),
}


@pytest.mark.parametrize("case", list(BAD))
def test_fake_raises_what_the_kernel_raises(case):
    name, args, kwargs = BAD[case]
    op = overload(name)
    with pytest.raises((TypeError, ValueError, IndexError)) as real:
        op(*args, **kwargs)
    with FakeTensorMode() as mode, pytest.raises((TypeError, ValueError, IndexError)) as fake:

        def as_fake(value):
            return mode.from_tensor(value) if isinstance(value, torch.Tensor) else value

        op(*map(as_fake, args), **{k: as_fake(v) for k, v in kwargs.items()})
    assert type(real.value) is type(fake.value)
    assert str(real.value).splitlines()[0] == str(fake.value).splitlines()[0]


def test_symbolic_sizes_add_no_guard():
    """One graph serves every batch and every length: no size of it is specialised."""
    torch._dynamo.reset()
    w, s, _, bias = weights(16, 8)

    def f(x):
        y = ops.linear_dynamic(x, w, s, None, bias)
        scales, points = ops.choose_qparams_per_token(y, 0, 255)
        q = ops.quantize_per_token(y, scales, points, 0, 255, torch.uint8)
        return ops.dequantize_per_token(q, scales, points)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend=counter)
    for shape in ((3, 4, 8), (2, 7, 8), (9, 5, 8)):
        x = floats(*shape)
        assert torch.equal(compiled(x), f(x))
    assert counter.frame_count == 1


def test_meta_device():
    y = ops.linear_dynamic(X.to("meta"), W.to("meta"), S8.to("meta"))
    assert y.device.type == "meta" and y.shape == (4, 5)


def test_python_functions_are_the_ops():
    public = {name.partition(".")[0] for name in CASES}
    helpers = {"BlockSparse", "from_block_sparse", "to_block_sparse"}
    assert public | LISTS | helpers == set(torch_ao_ext.ops.__all__)
    assert torch.equal(torch_ao_ext.ops.linear_dynamic(X, W, S8), ops.linear_dynamic(X, W, S8))
    scale, point = torch.tensor(0.1), torch.tensor(3)
    a = torch_ao_ext.ops.linear(XQ, 0.1, 3, W, S8, None, BIAS, 0.2, 4)
    b = torch_ao_ext.ops.linear(XQ, scale, point, W, S8, None, BIAS, torch.tensor(0.2), torch.tensor(4))
    assert torch.equal(a, b)
