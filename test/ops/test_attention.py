"""attention against float64 on every engine: the rounding of its weights bounds how far a result may be."""

import random

import pytest
import torch
from attention_samples import attention_calls
from op_cases import random_int

import torch_ao_ext

ops = torch.ops.torch_ao
U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16


@pytest.fixture(params=["native", "reference"])
def engine(request):
    torch_ao_ext.set_engine(request.param)
    yield request.param
    torch_ao_ext.set_engine("")


def exact(call):
    """(result in float64, how far the op's may be apart), [*, L, V] each."""
    q, s_q, z_q, k, s_k, z_k, v, s_v, z_v, s_y, z_y, dtype, mask, causal, scale = call
    scale = max(q.shape[-1], 1) ** -0.5 if scale is None else scale
    scores = (q.double() - z_q) @ (k.double() - z_k).transpose(-1, -2) * (s_q * s_k * scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.double()
    if causal:
        unseen = torch.ones(scores.shape[-2:]).triu(1) > 0
        scores = scores.masked_fill(unseen, -torch.inf)
    if k.shape[-2] == 0:
        zeros = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=torch.float64)
        return zeros, zeros
    e = torch.exp(scores - scores.amax(-1, keepdim=True)).nan_to_num(0.0)  # a row of -inf sees nothing
    values, total = (v.double() - z_v) * s_v, e.sum(-1, keepdim=True)
    y = (e @ values) / total.clamp(min=1.0)
    # A weight of 255 * e is off by half a step, and by the rounding of float32 scores.
    seen = scores.masked_fill(scores == -torch.inf, 0.0).abs().amax(-1, keepdim=True)
    off = 0.5 * (e > 0) + 255 * e * (1e-6 + 2.0**-22 * seen) + 1e-4
    apart = (values.unsqueeze(-3) - y.unsqueeze(-2)).abs()  # [*, L, S, V]
    weights = (255 * e - off).clamp(min=0).sum(-1, keepdim=True).clamp(min=254.0)
    return y, (off.unsqueeze(-1) * apart).sum(-2) / weights + 1e-6 * y.abs()


def check(call):
    y = ops.attention(*call)
    q, v, (s_y, z_y, dtype) = call[0], call[6], call[9:12]
    assert y.dtype == (dtype or q.dtype) and y.is_contiguous()
    assert y.shape == (*q.shape[:-1], v.shape[-1])
    if y.numel() == 0:
        return
    wanted, most = exact(call)
    if y.dtype in (F32, BF16):
        assert (
            (y.double() - wanted).abs() <= most + (2.0**-8 * wanted.abs() if y.dtype == BF16 else 0)
        ).all()
        return
    info = torch.iinfo(y.dtype)
    wanted = wanted.clamp((info.min - z_y) * s_y, (info.max - z_y) * s_y)
    assert (((y.double() - z_y) * s_y - wanted).abs() <= most + 0.5001 * s_y).all()


@pytest.mark.parametrize("call", attention_calls(), ids=range(len(attention_calls())))
def test_samples(call, engine):
    check(call)


def _operand(rng, *sizes):
    dtype = rng.choice([U8, S8])
    return (
        random_int(dtype, *sizes),
        rng.choice([0.004, 0.03]),
        rng.choice([0, 100, 255]) - (dtype == S8) * 128,
    )


def test_random_cases(engine):
    rng = random.Random(8)
    torch.manual_seed(8)
    for _ in range(200 if engine == "native" else 20):
        batch = [rng.randint(1, 3) for _ in range(rng.randint(0, 2))]
        queries, keys = rng.choice([1, 2, 13, 70, 130]), rng.choice([1, 3, 16, 63, 64, 65, 200, 530])
        width, value_width = rng.choice([1, 3, 8, 64, 100]), rng.choice([1, 5, 64, 70])
        operands = [
            _operand(rng, *batch, queries, width),
            _operand(rng, *batch, keys, width),
            _operand(rng, *batch, keys, value_width),
        ]
        mask = None
        if rng.random() < 0.6:
            sizes = [n if rng.random() < 0.7 else 1 for n in [*batch, queries, keys]]
            mask = torch.rand(sizes) < 0.7 if rng.random() < 0.5 else torch.randn(sizes) * 3
        out = rng.choice([(1.0, 0, F32), (0.01, 120, U8), (0.02, -9, S8), (1.0, 0, BF16)])
        scale = rng.choice([None, 0.01, 0.1, 1.0])
        check((*(x for o in operands for x in o), *out, mask, rng.random() < 0.3, scale))


def test_near_attention_of_floats():
    torch.manual_seed(0)
    q, k, v = (torch.randn(8, 12, 128, 64) for _ in range(3))

    def quantized(x):
        scale = float(x.abs().max()) / 127
        return torch.round(x / scale).to(S8), scale, 0

    y = ops.attention(*quantized(q), *quantized(k), *quantized(v), 1.0, 0, F32)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert 20 * torch.log10(wanted.norm() / (y - wanted).norm()) >= 30


def test_engines_give_the_same_bits(forced):
    rng = random.Random(9)
    torch.manual_seed(9)
    for case in range(60):
        queries, keys, width = rng.choice([1, 5, 50]), rng.choice([1, 31, 64, 200]), rng.choice([1, 9, 64])
        operands = [_operand(rng, 2, rows, width) for rows in (queries, keys, keys)]
        mask = rng.choice([None, torch.randn(keys) * 2, torch.rand(2, queries, keys) < 0.5])
        out = rng.choice([(1.0, 0, F32), (0.013, 120, U8), (0.02, -9, S8), (1.0, 0, BF16)])
        call = (*(x for o in operands for x in o), *out, mask, rng.random() < 0.3, rng.choice([None, 0.3]))
        results = []
        for engine in ("native", "reference"):
            forced(engine)
            results.append(ops.attention(*call))
        assert torch.equal(*results), case


@pytest.mark.parametrize("engine", ["onednn", "xnnpack"])
def test_engines_without_attention(engine, forced):
    forced(engine)
    x = torch.zeros(2, 4, dtype=U8)
    with pytest.raises(NotImplementedError, match=f"{engine}: has no attention of 8-bit tensors"):
        ops.attention(x, 0.1, 3, x, 0.1, 3, x, 0.1, 3)


def test_masks_at_odd_addresses(engine):
    torch.manual_seed(10)
    mask = torch.randn(7, 50) * 3
    moved = torch.frombuffer(bytearray(b"." + mask.numpy().tobytes()), dtype=F32, offset=1).view(7, 50)
    assert moved.data_ptr() % 4 != 0
    operands = [random_int(U8, 2, rows, 24) for rows in (7, 50, 50)]
    for used in (moved, moved[2], moved[:, :1]):
        check((*(x for t in operands for x in (t, 0.03, 100)), 1.0, 0, F32, used, False, None))


def test_queries_that_see_no_number(engine):
    q, k, v = random_int(U8, 4, 8), random_int(U8, 20, 8), random_int(S8, 20, 5)
    mask = torch.zeros(4, 20)
    mask[0], mask[1, 3], mask[2, 18] = -torch.inf, torch.inf, torch.nan
    call = (q, 0.1, 3, k, 0.1, 3, v, 0.1, 3)
    y = ops.attention(*call, 1.0, 0, F32, mask)
    assert y[0].eq(0).all() and y[1:3].isnan().all() and y[3].isfinite().all()
    assert ops.attention(*call, 0.1, 7, S8, mask)[:3].tolist() == [[7] * 5, [-128] * 5, [-128] * 5]
    assert torch.equal(ops.attention(*call, 0.1, 7, S8, mask > -1)[0], torch.full((5,), 7, dtype=S8))


def test_layouts_and_masks_that_repeat(engine):
    torch.manual_seed(1)
    q, k, v = (random_int(U8, 2, 70, 3, 16).transpose(1, 2) for _ in range(3))
    numbers, out = (0.05, 120), (0.01, 128)
    mask = torch.randn(70, 70).t()
    y = ops.attention(q, *numbers, k, *numbers, v, *numbers, *out, None, mask)
    dense = [x.contiguous() for x in (q, k, v)]
    full = mask.expand(2, 3, 70, 70).contiguous()
    assert torch.equal(y, ops.attention(*(x for t in dense for x in (t, *numbers)), *out, None, full))
    flipped = [x.flip(-1).movedim(-1, 0).contiguous().movedim(0, -1) for x in (q, k)]
    assert torch.equal(
        y, ops.attention(flipped[0], *numbers, flipped[1], *numbers, v, *numbers, *out, None, mask)
    )
    seen = torch.rand(3, 1, 70) < 0.5
    added = torch.zeros(3, 1, 70).masked_fill(~seen, -torch.inf)
    call = (q, *numbers, k, *numbers, v, *numbers, *out, None)
    assert torch.equal(ops.attention(*call, seen), ops.attention(*call, added))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_share_few_matrices(threads):
    torch.manual_seed(2)
    q, k, v = random_int(U8, 500, 32), random_int(S8, 300, 32), random_int(U8, 300, 64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check((q, 0.02, 120, k, 0.02, 3, v, 0.02, 120, 0.01, 128, None, None, True, None))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"query": torch.zeros(2, 4, 8)}, TypeError, "'query' must have dtype uint8 or int8"),
        ({"key": torch.zeros(3, 5, 8, dtype=U8)}, ValueError, "'key' must have query's leading sizes"),
        ({"key": torch.zeros(2, 5, 7, dtype=U8)}, ValueError, r"'key' must have size\(2\) equal to"),
        ({"value": torch.zeros(2, 4, 3, dtype=U8)}, ValueError, r"'value' must have size\(1\) equal to"),
        ({"value": torch.zeros(5, 3, dtype=U8)}, ValueError, "'value' must have query's leading sizes"),
        ({"query_scale": 0.0}, ValueError, "'query_scale' must"),
        ({"key_zero_point": 256}, ValueError, "'key_zero_point' must"),
        ({"output_scale": -1.0}, ValueError, "'output_scale' must"),
        (
            {"attn_mask": torch.zeros(3, 5)},
            ValueError,
            r"'attn_mask' must have sizes that expand to those of the scores",
        ),
        ({"attn_mask": torch.zeros(4, 5).double()}, TypeError, "'attn_mask' must have dtype float32 or bool"),
        ({"scale": float("nan")}, ValueError, "'scale' must"),
        ({"scale": 0.0}, ValueError, "'scale' must"),
        ({"scale": 1e38, "key_scale": 1e38}, ValueError, "'scale' must have a finite float32 product"),
        (
            {"key": torch.zeros(2, 33026, 8, dtype=U8)},
            ValueError,
            r"'key' must have size\(-2\) of at most 33025",
        ),
        (
            {"query": torch.zeros(2, 4, 33026, dtype=U8), "key": torch.zeros(2, 5, 33026, dtype=U8)},
            ValueError,
            r"'query' must have size\(-1\) of at most 33025",
        ),
    ],
)
def test_errors(change, error, text):
    good = {
        "query": torch.zeros(2, 4, 8, dtype=U8), "query_scale": 0.1, "query_zero_point": 3,
        "key": torch.zeros(2, 5, 8, dtype=U8), "key_scale": 0.1, "key_zero_point": 3,
        "value": torch.zeros(2, 5, 3, dtype=U8), "value_scale": 0.1, "value_zero_point": 3,
    }  # fmt: skip
    if change.get("key") is not None and change["key"].shape[-2] > 5:
        good["value"] = torch.zeros(2, change["key"].shape[-2], 3, dtype=U8)
    with pytest.raises(error, match=text):
        ops.attention(**(good | change))
