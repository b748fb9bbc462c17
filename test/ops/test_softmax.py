"""softmax against float64: a quantized result within one step, a float one within its rounding."""

import random

import pytest
import torch
from attention_samples import softmax_calls
from op_cases import SIZES, random_int

ops = torch.ops.torch_ao
U8, S8, F32, BF16 = torch.uint8, torch.int8, torch.float32, torch.bfloat16


def exact(call):
    """(softmax in float64, result of the op as a real number, how far they may be apart)."""
    x, dim, s_x, z_x, s_y, z_y, dtype, mask = call
    scores = (x.double() - z_x) * s_x
    masked = scores if mask is None else scores + mask.double()
    expected = torch.softmax(masked, dim)
    actual = ops.softmax(*call)
    assert actual.dtype == (dtype or x.dtype) and actual.shape == x.shape and actual.is_contiguous()
    # Scores are float32: their rounding is a relative error of the result.
    error = 1e-6 + 2.0**-22 * float(masked.clamp(-1e4).abs().max()) if x.numel() else 0.0
    if actual.dtype in (F32, BF16):
        return expected, actual.double(), error + (2.0**-8 if actual.dtype == BF16 else 0)
    info = torch.iinfo(actual.dtype)
    expected = expected.clamp((info.min - z_y) * s_y, (info.max - z_y) * s_y)
    return expected, (actual.double() - z_y) * s_y, 0.5 * s_y + error


@pytest.mark.parametrize("call", softmax_calls(), ids=range(len(softmax_calls())))
def test_samples(call):
    expected, actual, most = exact(call)
    assert actual.numel() == 0 or (actual - expected).abs().max() <= most


def test_random_cases():
    rng = random.Random(5)
    torch.manual_seed(5)
    for case in range(300):
        sizes = [rng.choice([1, 2, 5]), rng.choice([1, 3, 4]), rng.choice([*SIZES, 700])]
        rng.shuffle(sizes)
        dim = rng.choice([-3, -1, -1, 0, 1, 2])
        if rng.random() < 0.5:
            x, s_x, z_x = torch.randn(sizes) * rng.choice([0.1, 3, 40]), rng.choice([0.125, 1.0]), 0
        else:
            dtype = rng.choice([U8, S8])
            x, s_x, z_x = random_int(dtype, *sizes), rng.choice([0.01, 0.1, 2.0]), 7
        mask = None
        if rng.random() < 0.5:
            mask = torch.randn([s if rng.random() < 0.6 else 1 for s in sizes[rng.randint(0, 2) :]]) * 3
        out = rng.choice([(1.0, 0, F32), (1 / 255, 0, U8), (1 / 256, -128, S8), (0.003, 20, U8)])
        expected, actual, most = exact((x, dim, s_x, z_x, *out, mask))
        assert (actual - expected).abs().max() <= most, (case, sizes, dim, out)


def test_rows_without_a_number():
    x = torch.zeros(4, 20)
    x[0], x[1, 3], x[2, 3] = -torch.inf, torch.inf, torch.nan
    y = ops.softmax(x, -1)
    assert y[:3].isnan().all() and y[3].eq(0.05).all()
    q = ops.softmax(x, -1, 1.0, 0, 1 / 255, 0, U8)
    assert q[:3].eq(0).all() and q[3].eq(13).all()


def test_a_masked_value_is_zero_and_changes_nothing():
    x = torch.randn(3, 40)
    mask = torch.zeros(40)
    mask[25:] = -torch.inf
    y = ops.softmax(x, 1, 1.0, 0, 1 / 255, 3, U8, mask)
    assert y[:, 25:].eq(3).all()
    assert torch.equal(y[:, :25], ops.softmax(x[:, :25], 1, 1.0, 0, 1 / 255, 3, U8))


def test_a_mask_of_any_strides():
    x = torch.randn(2, 3, 4, 20)
    full = torch.randn(2, 3, 4, 20)
    moved = full.movedim(-1, 0).contiguous().movedim(0, -1)
    swapped = full.transpose(1, 2).contiguous().transpose(1, 2)
    for mask in (full, full[:, :1], full[:1, :, :, :1], full[0, 0, 0], moved, swapped, full[:, :, :1]):
        spread = mask.expand(2, 3, 4, 20).contiguous()
        assert torch.equal(ops.softmax(x, -1, attn_mask=mask), ops.softmax(x, -1, attn_mask=spread))


def test_threads_give_the_same():
    x = torch.randn(400, 130)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(ops.softmax(x, -1, attn_mask=x[:1]))
    torch.set_num_threads(threads)
    assert all(torch.equal(r, results[0]) for r in results)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.softmax(x, 2), r"'dim' must be in \[-2, 1\]"),
        (lambda x: ops.softmax(x[0, 0], 0), "'input' must have at least 1 dimension"),
        (lambda x: ops.softmax(x, 0, 0.0), "'input_scale' must"),
        (lambda x: ops.softmax(x, 0, 1.0, 1), "'input_zero_point' must be 0 for a float input"),
        (lambda x: ops.softmax(x, 0, 1.0, 0, 0.1), "'output_scale' must be 1.0"),
        (
            lambda x: ops.softmax(x, 0, attn_mask=x[:2]),
            r"'attn_mask' must have sizes that expand to input's \[3, 5\]",
        ),
        (lambda x: ops.softmax(x, 0, attn_mask=x[None]), "'attn_mask' must have sizes that expand"),
        (lambda x: ops.softmax(x, 0, attn_mask=x > 0), "'attn_mask' must have dtype float32"),
        (lambda x: ops.softmax(x.double(), 0), "'input' must have dtype"),
    ],
)  # fmt: skip
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        call(torch.randn(3, 5))
