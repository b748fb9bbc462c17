"""scaled_dot_product_attention against torch's in float64."""

import random

import pytest
import torch
from attention_samples import scaled_dot_product_attention_calls
from op_cases import SIZES
from torch.nn import functional

op = torch.ops.torch_ao.scaled_dot_product_attention
F32, BF16 = torch.float32, torch.bfloat16


def exact(query, key, value, attn_mask=None, is_causal=False, scale=None):
    """In float64, by the formula; a query without a key is 0."""
    scores = query.double() @ key.double().transpose(-1, -2)
    scores = scores * (query.size(-1) ** -0.5 if scale is None else scale)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask.double()
    if is_causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:]).tril().bool(), -torch.inf)
    without_key = (scores == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(scores, -1).masked_fill(without_key, 0.0) @ value.double()


def check(call):
    want, have = exact(*call), op(*call)
    assert have.dtype == call[0].dtype and have.shape == want.shape
    if have.dim() > 3:
        assert have.transpose(-3, -2).is_contiguous()
    if not want.numel():
        return
    largest = float(call[2].abs().max()) if call[2].numel() else 0.0
    most = largest * (2e-5 + (2.0**-8 if have.dtype == BF16 else 0))
    assert (have.double() - want).abs().max() <= most


@pytest.mark.parametrize("call", scaled_dot_product_attention_calls())
def test_samples(call):
    usual = call[0].size(-1) > 0 or call[5] is not None
    check(call if usual else (*call[:5], 1.0))


def test_random_cases():
    rng = random.Random(3)
    torch.manual_seed(3)
    for _ in range(500):
        heads = rng.choice([(), (3,), (2, 3), (1, 2, 2)])
        queries, keys = rng.choice([*SIZES, 130]), rng.choice([*SIZES, 130, 600])
        depth, value_depth = rng.choice([1, 3, 8, 32, 65]), rng.choice([1, 2, 7, 16, 33])
        dtype = rng.choice([F32, F32, BF16])
        q, k, v = (
            torch.randn(*heads, rows, columns).to(dtype) * rng.choice([0.3, 2.0])
            for rows, columns in ((queries, depth), (keys, depth), (keys, value_depth))
        )
        is_causal, mask = rng.random() < 0.2, None
        if not is_causal and rng.random() < 0.6:
            sizes = [s if rng.random() < 0.6 else 1 for s in (*heads, queries, keys)]
            mask = torch.randn(sizes[rng.randint(0, len(heads)) :])
            mask = rng.choice([mask > -0.5, mask * 3, mask.masked_fill(mask > 0.5, -torch.inf).to(dtype)])
        check((q, k, v, mask, is_causal, rng.choice([None, 0.1])))


def test_weights_that_are_all_the_same_do_not_drift():
    """One key beside many of a lower score, whose weights would be rounded alike in one long sum."""
    keys = 100_000
    k, v = torch.zeros(keys, 1), torch.zeros(keys, 2)
    v[::2, 0] = v[::7, 1] = 1.0
    for score in (0.37, 1.2, 2.1, 3.3):
        k[0] = score
        check((torch.ones(1, 1), k, v, None, False, 1.0))


@pytest.mark.parametrize("keys", [1, 512, 513, 1500])
def test_many_keys_and_rising_scores(keys):
    q, k, v = torch.randn(2, 40, 8), torch.randn(2, keys, 8), torch.randn(2, keys, 24)
    k = k * torch.linspace(0.01, 4, keys)[:, None]  # the largest score comes late
    check((q, k, v))
    check((q, k, v, None, True))
    check((q, k.flip(1), v))


def test_queries_without_a_key():
    q, k, v = (torch.randn(1, 2, 6, 8) for _ in range(3))
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[2] = False
    for m in (mask, torch.zeros(6, 6).masked_fill(~mask, -torch.inf)):
        y = op(q, k, v, m)
        assert y[:, :, 2].eq(0).all()
        torch.testing.assert_close(y, functional.scaled_dot_product_attention(q, k, v, m))
    lowest = torch.zeros(6, 6).masked_fill(~mask, torch.finfo(F32).min)  # all alike: a mean
    torch.testing.assert_close(op(q, k, v, lowest)[:, :, 2], v.mean(-2))


def test_values_that_are_no_numbers():
    q, k, v = (torch.randn(5, 8) for _ in range(3))
    q[1, 3], q[3] = torch.nan, torch.inf
    y = op(q, k, v)
    assert y[1].isnan().all() and y[3].isnan().all() and y[[0, 2, 4]].isfinite().all()
    v[2, 4] = torch.nan
    y = op(q, k, v)
    assert y[:, 4].isnan().all() and y[0, :4].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, F32])
def test_a_mask_that_leaves_all_in(dtype):
    q, k, v = (torch.randn(2, 3, 5, 8) for _ in range(3))
    mask = torch.full((2, 1, 5, 5), dtype == torch.bool, dtype=dtype)
    assert torch.equal(op(q, k, v, mask), op(q, k, v))
    mask[0, 0, 2, 3] = -torch.inf if dtype == F32 else False
    assert not torch.equal(op(q, k, v, mask)[0], op(q, k, v)[0])
    assert torch.equal(op(q, k, v, mask)[1], op(q, k, v)[1])


def test_threads_give_the_same():
    q, k, v = (torch.randn(2, 3, 100, 16) for _ in range(3))
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(op(q, k, v))
    torch.set_num_threads(threads)
    assert all(torch.equal(r, results[0]) for r in results)


X = torch.randn(2, 3, 5, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((X[0, 0, 0], X, X), "'query' must have at least 2 dimensions"),
        ((X.double(), X, X), "'query' must have dtype float32 or bfloat16, got float64"),
        ((X, X.half(), X), "'key' must have dtype float32 or bfloat16, got float16"),
        ((X, X[0], X), "'key' must have 4 dimensions"),
        ((X, X, X[:, :1]), r"'value' must have size\(1\) equal to query's \(3\), got 1"),
        ((X, X[..., :4], X), r"'key' must have size\(3\) equal to query.size\(-1\) \(8\), got 4"),
        ((X, X, X[:, :, :4]), r"'value' must have size\(2\) equal to key.size\(-2\) \(5\), got 4"),
        ((X, X, X, torch.zeros(4, 5)), r"'attn_mask' must have sizes that expand to \[2, 3, 5, 5\]"),
        ((X, X, X, torch.zeros(1, 2, 3, 5, 5)), "'attn_mask' must have sizes that expand"),
        ((X, X, X, torch.zeros(5, 5).half()), "'attn_mask' must have dtype bool, float32 or bfloat16"),
        ((X, X, X, torch.zeros(5, 5), True), "'attn_mask' must be None when is_causal"),
        ((X, X, X, None, False, float("nan")), "'scale' must"),
        ((X, X, X, None, False, 0.0), "'scale' must"),
    ],
)
def test_errors(call, message):
    with pytest.raises((ValueError, TypeError), match=f"scaled_dot_product_attention: argument {message}"):
        op(*call)
