"""Valid calls of every overload: name -> list of argument tuples, in schema order.

test_opcheck.py runs them under opcheck, test_arguments.py changes one argument at a time.
"""

import torch
from attention_samples import attention_samples
from conv_samples import conv_samples, with_bn
from int8_samples import cat_calls, int8_samples
from norm_samples import norm_samples
from op_cases import random_int
from rnn_samples import SIZED_RNN, rnn_samples

import torch_ao_ext

U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16


def _linear_calls():
    w, s = random_int(S8, 5, 12), torch.rand(5) * 0.1 + 0.01
    zp, bias = torch.randint(-128, 128, (5,)), torch.randn(5)
    xu, xs = random_int(U8, 3, 12), random_int(S8, 2, 3, 12)
    other, affine = random_int(U8, 3, 5), (torch.randn(5), torch.randn(5))
    return [
        (xu, 0.1, 7, w, s, None, bias, 0.3, 9, None, "", [], None, 1.0, 0),
        (xs, 0.1, -7, w, s, zp, None, 1.0, 0, F32, "relu", [], None, 1.0, 0),
        (xu, 0.1, 0, w, s[:1], zp[:1].int(), bias, 0.2, -9, S8, "clamp", [-1.0, 1.0], None, 1.0, 0),
        (xu, 0.1, 255, w, s, None, bias, 0.3, 9, None, "add,relu", [], other, 0.5, 3),
        (xs[0].t().contiguous().t(), 0.1, 0, w, s, None, bias, 1.0, 0, BF16, "gelu", [], None, 1.0, 0),
        (xs[:, :0], 0.1, 0, w, s, None, bias, 1.0, 0, F32, "", [], None, 1.0, 0),
        (xu, 0.1, 7, w, s, None, bias, 0.3, 9, None, "prelu", [], None, 1.0, 0, torch.randn(5)),
        (xu, 0.1, 7, w, s, None, bias, 1.0, 0, F32, "add,prelu", [], other, 0.5, 3, torch.randn(1)),
        (xu, 0.1, 7, w, s, None, bias, 0.3, 9, None, "relu,affine", [], None, 1.0, 0, None, *affine),
    ]


def _tensor_qparams(call):
    call = list(call)
    call[1], call[7] = torch.tensor([call[1]]), torch.tensor(call[7], dtype=torch.float64)
    call[2], call[8] = torch.tensor([call[2]]), torch.tensor(call[8], dtype=torch.int32)
    return tuple(call)


def _dynamic_calls():
    w, s = random_int(S8, 5, 12), torch.rand(5) * 0.1 + 0.01
    zp, bias = torch.randint(-128, 128, (5,)), torch.randn(5)
    x, other, affine = torch.randn(3, 12), torch.randn(3, 5), (torch.randn(5), torch.randn(5))
    return [
        (x, w, s, None, bias, True, False, False, None, "", [], None),
        (x.to(BF16), w, s, zp, None, False, True, False, None, "relu", [], None),
        (x.t().contiguous().t(), w, s[:1], zp[:1].int(), bias, True, False, True, BF16, "add", [], other),
        (x[0], w, s, None, bias, True, True, True, F32, "clamp,tanh", [-1.0, 1.0], None),
        (torch.randn(0, 2, 12), w, s, None, None, True, False, False, None, "", [], None),
        (x, w, s, None, bias, True, False, False, None, "add,prelu", [], other, torch.randn(5)),
        (x, w, s, None, bias, True, False, False, None, "relu,affine", [], None, None, *affine),
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


def _prepack_sparse(calls):
    return [(*c[3:9], c[0].dtype, *c[1:3], *c[9:14]) for c in calls]


def _prepack_sparse_dynamic(calls):
    return [(*c[1:7], c[0].dtype, *c[7:13]) for c in calls]


def _weight_only_calls(n=5, k=70):
    x, w, bias = torch.randn(3, k), random_int(S8, n, k), torch.randn(n)
    s, nibbles = torch.rand(n) * 0.1 + 0.01, random_int(U8, n, (k + 1) // 2)
    s32, s64, s128 = (torch.rand(n, -(-k // group)) * 0.1 + 0.01 for group in (32, 64, 128))
    return [
        (x * (1 + 50 * (x > 2)), w, s, bias, 0, 8),
        (x.to(BF16), w, s[:1], None, 0, 16),
        (torch.randn(k, 21).t(), nibbles, s128, bias, 128, 16),
        (torch.randn(2, 2, k), nibbles, s32.to(BF16), bias, 32, 8),
        (torch.randn(k).to(BF16), nibbles, s64, None, 64, 8),
        (torch.randn(0, k), w, s, bias, 0, 8),
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


def _with_tensors(name, call):
    """The call with the last arguments of products, None where no post-op reads them."""
    arguments = overload(name)._schema.arguments
    missing = len(arguments) - len(call) if arguments[-1].name == "affine_bias" else 0
    return (*call, *[None] * missing)


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
        "linear_bn": with_bn(plain, 5),
        "linear_bn_relu": with_bn(plain, 5),
        "_prepack_linear": [(*c[3:7], c[0].dtype, *c[1:3], *c[7:12], *c[15:]) for c in static],
        **conv_samples(),
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
    return {name: [_with_tensors(name, call) for call in calls] for name, calls in result.items()}


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
RECURRENT = set(SIZED_RNN)
SIZED.update(SIZED_RNN)

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
