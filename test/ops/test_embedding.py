"""Lookups and bags against torch's float functions on the unpacked table, bytes against
torch's own row-wise operators."""

import threading
import warnings

import pytest
import torch
from torch.nn import functional as F

ops = torch.ops.torch_ao
BITS = (8, 4, 2)
DIMS = (1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 100, 128, 129, 257, 300, 512)
EPS = 2.0**-23


def torch_op(name, bits):
    return getattr(torch.ops.quantized, name.format({8: "byte", 4: "4bit", 2: "2bit"}[bits]))


def unpacked(table, bits, dim):
    """The table in float64, read as the format is described: nothing of this library."""
    tail = 8 if bits == 8 else 4
    codes = table[:, : table.shape[1] - tail].to(torch.int64)
    shifts = torch.arange(0, 8, bits)
    codes = (codes.unsqueeze(-1) >> shifts & (2**bits - 1)).flatten(1)[:, :dim]
    stored = table[:, -tail:].clone(memory_format=torch.contiguous_format)
    stored = stored.view(torch.float32 if bits == 8 else torch.float16)
    return codes.double() * stored[:, :1].double() + stored[:, 1:].double()


def random_table(rows, dim, bits):
    return ops.embedding_prepack(torch.randn(rows, dim) * 3, bits)


def random_bags(rng, rows, dtype=torch.int64):
    """indices, offsets with empty bags and one long one."""
    lengths = [rng.choice([0, 0, 1, 2, 17, 40, 700]) for _ in range(rng.randint(1, 9))]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    indices = torch.randint(rows, (int(offsets[-1]),), dtype=dtype)
    return indices, offsets.to(rng.choice([torch.int32, torch.int64]))


def float_bag(table, indices, offsets, mode="sum", padding_idx=None, weights=None):
    return F.embedding_bag(
        indices.long(), table, offsets.long(), mode=mode, padding_idx=padding_idx,
        per_sample_weights=weights, include_last_offset=True,
    )  # fmt: skip


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", DIMS)
def test_bags(bits, dim, rng):
    for _ in range(6):
        rows = rng.choice([1, 2, 30, 1000])
        table = random_table(rows, dim, bits)
        real = unpacked(table, bits, dim)
        indices, offsets = random_bags(rng, rows, rng.choice([torch.int32, torch.int64]))
        # f32 sums of at most 700 terms, each below 40 in size: far below one step of a code.
        bound = 700 * 40 * EPS
        for mode in ("sum", "mean", "max"):
            for padding_idx in (None, 0, -1):
                got = ops.embedding_bag(
                    table, indices, offsets, bits, dim, mode, None, True, padding_idx
                )
                want = float_bag(real, indices, offsets, mode, padding_idx)
                assert got.dtype == torch.float32 and got.shape == want.shape
                assert (got - want).abs().max() <= (bound if mode == "sum" else 40 * EPS * 8)
        weights = torch.randn(indices.numel())
        got = ops.embedding_bag(table, indices, offsets, bits, dim, "sum", weights, True)
        want = float_bag(real, indices, offsets, weights=weights.double())
        assert (got - want).abs().max() <= 3 * bound
        # Without the last offset the last bag goes on to the end.
        again = ops.embedding_bag(table, indices, offsets[:-1], bits, dim, "sum", weights)
        assert torch.equal(again, got)
        halves = weights.bfloat16()
        got = ops.embedding_bag(table, indices, offsets, bits, dim, "sum", halves, True)
        assert torch.equal(
            got, ops.embedding_bag(table, indices, offsets, bits, dim, "sum", halves.float(), True)
        )


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dim", DIMS)
def test_lookup(bits, dim):
    table = random_table(50, dim, bits)
    real = unpacked(table, bits, dim)
    for shape in ((), (7,), (2, 3), (0,), (2, 0, 3), (600,)):
        indices = torch.randint(50, shape)
        got = ops.embedding(table, indices, bits, dim)
        want = F.embedding(indices, real)
        assert got.shape == want.shape
        assert torch.equal(got, want.float())  # one rounding
        assert torch.equal(ops.embedding(table, indices.int(), bits, dim), got)
        low = ops.embedding(table, indices, bits, dim, output_dtype=torch.bfloat16)
        assert torch.equal(low, got.bfloat16())
    assert torch.equal(ops.embedding_unpack(table, bits, dim), real.float())


@pytest.mark.parametrize("bits", BITS)
def test_two_dimensions_are_bags_of_one_length(bits):
    table = random_table(20, 24, bits)
    indices = torch.randint(20, (6, 5))
    offsets = torch.arange(0, 30, 5)
    for mode in ("sum", "mean", "max"):
        want = ops.embedding_bag(table, indices.flatten(), offsets, bits, mode=mode)
        assert torch.equal(ops.embedding_bag(table, indices, bits=bits, mode=mode), want)
        turned = indices.t().contiguous().t()
        assert torch.equal(ops.embedding_bag(table, turned, bits=bits, mode=mode), want)
    assert ops.embedding_bag(table, indices[:, :0], bits=bits).abs().max() == 0
    assert ops.embedding_bag(table, indices[:0], bits=bits).shape == (0, 24)


@pytest.mark.parametrize("bits", BITS)
def test_low_precision_output_is_rounded_once(bits, rng):
    table = random_table(100, 70, bits)
    indices, offsets = random_bags(rng, 100)
    for mode in ("sum", "mean", "max"):
        full = ops.embedding_bag(table, indices, offsets, bits, 70, mode)
        low = ops.embedding_bag(
            table, indices, offsets, bits, 70, mode, output_dtype=torch.bfloat16
        )
        assert torch.equal(low, full.bfloat16())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_pruned_rows_are_zeros(bits, mode, rng):
    """The mapping gives what a full table with rows of zeros gives."""
    kept = torch.rand(200) < 0.6
    mapping = torch.where(kept, kept.cumsum(0) - 1, -1).int()
    table = random_table(int(kept.sum()), 40, bits)
    real = torch.zeros(200, 40, dtype=torch.float64)
    real[kept] = unpacked(table, bits, 40)
    indices, offsets = random_bags(rng, 200)
    got = ops.embedding_bag(
        table, indices, offsets, bits, 40, mode, None, True, 5, mapping, torch.float32
    )
    want = float_bag(real, indices, offsets, mode, 5)
    assert (got - want).abs().max() <= 700 * 40 * EPS
    looked = ops.embedding(table, indices, bits, 40, mapping)
    assert torch.equal(looked, F.embedding(indices, real).float())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 1e-9, 100.0])
def test_prepack_gives_torchs_bytes(bits, scale):
    prepack, unpack = (
        torch_op(n, bits) for n in ("embedding_bag_{}_prepack", "embedding_bag_{}_unpack")
    )
    for dim in (4, 8, 12, 16, 20, 64, 100, 128, 300, 512):
        weight = torch.randn(37, dim) * scale
        weight[3] = 0
        weight[4] = 2.5 * scale
        weight[5].abs_()
        weight[6] = torch.arange(dim).float() * scale * 0.5
        weight[7, 0] = 40 * scale
        table = ops.embedding_prepack(weight, bits)
        assert torch.equal(table, prepack(weight))
        # And torch reads ours.
        assert (ops.embedding_unpack(table, bits) - unpack(table)).abs().max() <= 100 * scale * EPS
        low = weight.bfloat16()
        assert torch.equal(ops.embedding_prepack(low, bits), prepack(low.float()))


@pytest.mark.parametrize("bits", BITS)
def test_bags_agree_with_torchs_operators(bits, rng):
    theirs = torch_op("embedding_bag_{}_rowwise_offsets", bits)
    for dim in (4, 16, 64, 128, 300):
        table = random_table(100, dim, bits)
        indices, offsets = random_bags(rng, 100)
        offsets = offsets.long()
        weights = torch.rand(indices.numel())
        for w in (None, weights):
            want = theirs(table, indices, offsets, per_sample_weights=w, include_last_offset=True)
            got = ops.embedding_bag(
                table, indices, offsets, bits, None, "sum", w, include_last_offset=True
            )
            assert (got - want).abs().max() <= 700 * 40 * EPS


def test_error_of_a_code_is_at_most_half_a_step():
    for bits in BITS:
        weight = torch.randn(200, 64)
        table = ops.embedding_prepack(weight, bits)
        step = (weight.amax(1) - weight.amin(1)) / (2**bits - 1)
        error = (ops.embedding_unpack(table, bits) - weight).abs().amax(1)
        # float16 holds scale and bias to 2^-11; over the codes that is a fraction of a step.
        slack = 1e-5 if bits == 8 else (2**bits - 1) * 2**-11 + 4 * 2**-11 / step
        assert (error <= step * (0.5 + slack)).all()


@pytest.mark.parametrize("bits", BITS)
def test_threads_do_not_change_a_bit(bits, rng):
    table = random_table(5000, 96, bits)
    cases = [random_bags(rng, 5000) for _ in range(20)]
    cases.append((torch.randint(5000, (20000,)), torch.tensor([0, 20000])))  # one bag
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results.append(
                [
                    ops.embedding_bag(t, i, o, bits, 96, m, include_last_offset=True)
                    for t in (table,)
                    for i, o in cases
                    for m in ("sum", "mean", "max")
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_row_stride_and_views():
    """A table may be a slice of a wider tensor: rows padded to a cache line, for example."""
    for bits in BITS:
        table = random_table(40, 48, bits)
        wide = torch.full((40, 128), 255, dtype=torch.uint8)
        wide[:, : table.shape[1]] = table
        indices = torch.randint(40, (9, 4))
        want = ops.embedding_bag(table, indices, bits=bits)
        padded = wide[:, : table.shape[1]]
        assert torch.equal(ops.embedding_bag(padded, indices, bits=bits), want)
        turned = table.t().contiguous().t()
        assert torch.equal(ops.embedding_bag(turned, indices, bits=bits), want)
        every_other = torch.stack([indices, indices], -1)[..., 0]
        assert torch.equal(ops.embedding_bag(table, every_other, bits=bits), want)
        assert torch.equal(
            ops.embedding_bag(table.repeat_interleave(2, 0)[::2], indices, bits=bits), want
        )


def bag(table, indices, offsets=(0,), **kwargs):
    return ops.embedding_bag(
        table,
        torch.tensor(indices, dtype=torch.int64),
        torch.tensor(offsets, dtype=torch.int64),
        **kwargs,
    )


@pytest.mark.parametrize("bad", [-1, 10, 2**40, -(2**63), 2**63 - 1, 2**31])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_bad_indices(bad, dtype):
    if dtype == torch.int32 and not -(2**31) <= bad < 2**31:
        bad = 2**31 - 1 if bad > 0 else -(2**31)
    table = random_table(10, 16, 8)
    text = rf"argument 'indices' must hold numbers in \[0, 10\), got {bad} at position 1300$"
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        indices = torch.randint(10, (3000,), dtype=dtype)
        indices[1300] = bad
        indices[2500] = bad
        with pytest.raises(IndexError, match="torch_ao::embedding: " + text):
            ops.embedding(table, indices)
        for offsets in (torch.tensor([0]), torch.arange(0, 3000, 7)):
            for mode in ("sum", "mean", "max"):
                with pytest.raises(IndexError, match="torch_ao::embedding_bag: " + text):
                    ops.embedding_bag(table, indices, offsets, mode=mode, padding_idx=3)
                with pytest.raises(IndexError, match="torch_ao::embedding_bag: " + text):
                    ops.embedding_bag(table, indices, offsets, mode=mode)
    torch.set_num_threads(2)
    empty = table[:0]
    with pytest.raises(IndexError, match=r"must hold numbers in \[0, 0\), got 0 at position 0"):
        ops.embedding(empty, torch.tensor([0]))
    assert ops.embedding(empty, torch.empty(0, dtype=torch.int64)).shape == (0, 16)


@pytest.mark.parametrize(
    ("offsets", "last", "value", "position"),
    [
        ([1], False, 1, 0),
        ([-1], False, -1, 0),
        ([0, 3, 2], False, 2, 2),
        ([0, 2, 6], False, 6, 2),
        ([0, 2**62], True, 2**62, 1),
        ([0, -(2**63)], True, -(2**63), 1),
    ],
)
def test_bad_offsets(offsets, last, value, position):
    table = random_table(10, 16, 8)
    with pytest.raises(IndexError, match=rf"'offsets' must begin with 0, ascend and not exceed the "
                       rf"number of indices \(5\), got {value} at position {position}$"):
        bag(table, [1, 2, 3, 4, 5], offsets, include_last_offset=last)


@pytest.mark.parametrize("bad", [10, -2, 2**31 - 1, -(2**31)])
def test_bad_mapping(bad):
    table = random_table(10, 16, 8)
    mapping = torch.tensor([0, -1, bad, 9], dtype=torch.int32)
    rule = rf"argument 'mapping' must hold -1 or rows of weight in \[0, 10\), got {bad} at position 2"
    with pytest.raises(IndexError, match="torch_ao::embedding: " + rule):
        ops.embedding(table, torch.tensor([0, 3, 2]), 8, None, mapping)
    with pytest.raises(IndexError, match="torch_ao::embedding_bag: " + rule):
        bag(table, [0, 1, 2], mapping=mapping)
    assert ops.embedding(table, torch.tensor([0, 1, 3]), 8, None, mapping).shape == (3, 16)
    # The map decides which indices there are, not the table.
    with pytest.raises(IndexError, match=r"'indices' must hold numbers in \[0, 4\), got 4 at pos"):
        bag(table, [4], mapping=mapping)
    with pytest.raises(IndexError, match=r"'indices' must hold numbers in \[0, 1\), got 3 at pos"):
        bag(table, [0, 3], mapping=mapping[:1])


def test_bad_sizes_and_combinations():
    table = random_table(10, 16, 8)
    cases = [
        (lambda: bag(table, [1, 2], per_sample_weights=torch.ones(1)), "per_sample_weights"),
        (lambda: bag(table, [1, 2], mode="mean", per_sample_weights=torch.ones(2)), "per_sample_weights"),
        (lambda: bag(table, [1, 2], mode="min"), "mode"),
        (lambda: bag(table, [1], bits=3), "bits"),
        (lambda: bag(table, [1], padding_idx=10), "padding_idx"),
        (lambda: bag(table, [1], padding_idx=-11), "padding_idx"),
        (lambda: bag(table, [1], embedding_dim=15), "embedding_dim"),
        (lambda: bag(table, [1], embedding_dim=17), "embedding_dim"),
        (lambda: bag(table, [[1]]), "offsets"),
        (lambda: bag(table, [[[1]]]), "indices"),
        (lambda: bag(table, [], [], include_last_offset=True), "offsets"),
        (lambda: ops.embedding_bag(table, torch.tensor([1])), "offsets"),
        (lambda: bag(table[:, :7], [1]), "weight"),
        (lambda: bag(table[0], [1]), "weight"),
        (lambda: ops.embedding_prepack(torch.tensor([[1.0, float("nan")]])), "weight"),
        (lambda: ops.embedding_prepack(torch.tensor([[1.0], [float("inf")]])), "weight"),
        (lambda: ops.embedding_prepack(torch.tensor([[-3e38, 3e38]])), "weight"),
        (lambda: ops.embedding_prepack(torch.tensor([[1e6, 2e6]]), 4), "weight"),
    ]
    for call, argument in cases:
        with pytest.raises(ValueError, match=f"torch_ao::embedding_.*argument '{argument}' must .*, got "):
            call()
    with pytest.raises(ValueError, match="in row 1$"):
        ops.embedding_prepack(torch.tensor([[1.0], [float("nan")]]))


def test_indices_changed_by_another_thread_never_leave_the_table():
    """A race gives a result or an IndexError, not a read outside."""
    table = random_table(100, 64, 8)
    indices = torch.randint(100, (4000,))
    offsets = torch.arange(0, 4000, 40)
    stop = threading.Event()

    def change():
        while not stop.is_set():
            indices[7::11] = 2**50
            indices[7::11] = 3

    thread = threading.Thread(target=change)
    thread.start()
    outcomes = set()
    try:
        for _ in range(300):
            try:
                ops.embedding_bag(table, indices, offsets)
                outcomes.add("result")
            except IndexError:
                outcomes.add("error")
    finally:
        stop.set()
        thread.join()
    assert outcomes


def test_large_tables_keep_their_values_under_huge_pages():
    weight = torch.randn(60000, 160)
    table = ops.embedding_prepack(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy = torch.ops.quantized.embedding_bag_byte_prepack(weight)
    assert torch.equal(table, copy)
    ops._prepack_embedding(copy)
    assert torch.equal(table, copy)
