"""HistogramObserver against torch.ao's: the same state, the same qparams."""

import copy
import resource
import warnings

import pytest
import torch
from torch_ao_peer import peer

from torch_ao_ext.quantization import HistogramObserver

ops = torch.ops.torch_ao


def theirs_of(**arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of reduce_range
        return peer().HistogramObserver(**arguments)


def streams():
    g = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=g)

    yield "one", [randn(4000)]
    yield "growing", [randn(1000) * s for s in (1, 1.5, 3, 0.5, 10)]
    yield "shifted", [randn(64, 9) + s for s in (0, 5, -5)]
    yield "positive", [randn(3000).relu(), randn(3000).relu() * 2]
    yield "outlier", [torch.cat([randn(5000), torch.tensor([90.0])]), randn(5000)]
    yield "first constant", [torch.full((50,), 2.0), randn(2000)]
    yield "later constant", [randn(2000), torch.full((50,), 2.0)]
    yield "zeros", [torch.zeros(10), torch.zeros(7)]
    yield "constants", [torch.full((10,), 3.0), torch.full((10,), -1.0)]
    yield "tiny", [randn(500) * 1e-30, randn(500) * 1e-30]
    yield "tiny then large", [randn(500) * 1e-30, randn(500) * 1e4]
    yield "strided", [randn(40, 50).t(), randn(40, 50)[::2, 1:]]
    yield "empty", [randn(0, 3), randn(300), randn(0)]


STREAMS = dict(streams())
OPTIONS = [
    {},
    {"qscheme": torch.per_tensor_symmetric, "dtype": torch.qint8},
    {"quant_min": 0, "quant_max": 127},
    {"bins": 256, "reduce_range": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", list(STREAMS))
def test_state_and_qparams_equal_torch_aos(name, options):
    mine, theirs = HistogramObserver(**options), theirs_of(**options)
    for x in STREAMS[name]:
        assert mine(x) is x
        theirs(x)
        assert torch.equal(mine.min_val, theirs.min_val)
        assert torch.equal(mine.max_val, theirs.max_val)
        # Parts of a widened bin may fall one bin beside torch's, whose linspace has FMA.
        assert mine.histogram.sum() == pytest.approx(theirs.histogram.sum().item())
        moved = (mine.histogram - theirs.histogram).abs().sum() / theirs.histogram.sum().clamp(min=1)
        assert moved < 2e-3
    scale, point = mine.calculate_qparams()
    expected_scale, expected_point = theirs.calculate_qparams()
    assert scale.item() == pytest.approx(expected_scale.item(), rel=1e-6)
    assert point.item() == expected_point.item()


@pytest.mark.parametrize("seed", range(20))
def test_search_equals_torch_aos_on_random_histograms(seed):
    torch.manual_seed(seed)
    mine, theirs = HistogramObserver(bins=512), theirs_of(bins=512)
    x = torch.randn(3000) ** (1 + seed % 3) * 10.0 ** (seed % 7 - 3)
    mine(x)
    theirs(x)
    assert torch.equal(mine.histogram, theirs.histogram)
    for a, b in zip(mine.calculate_qparams(), theirs.calculate_qparams(), strict=True):
        assert torch.equal(a.double(), b.double())


def test_threads_count_the_same():
    x = torch.randn(500_000)
    before, counts = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        counts.append(ops._histogram(x, 2048, -3.0, 3.0))
    torch.set_num_threads(before)
    assert torch.equal(counts[0], counts[1]) and torch.equal(counts[0], counts[2])
    assert counts[0].sum() == ((x >= -3) & (x <= 3)).sum()


def test_values_at_an_odd_address():
    x = torch.randn(300)
    moved = torch.frombuffer(bytearray(b"." + x.numpy().tobytes()), dtype=torch.float32, offset=1)
    assert moved.data_ptr() % 4 == 1 and torch.equal(moved, x)
    assert torch.equal(ops._histogram(moved, 64, -3.0, 3.0), ops._histogram(x, 64, -3.0, 3.0))


def test_infinities_are_left_out_with_a_warning():
    observer, finite = HistogramObserver(), torch.randn(100)
    with pytest.warns(UserWarning, match="ignored 2 infinite of 102 values"):
        observer(torch.cat([finite, torch.tensor([float("inf"), float("-inf")])]))
    assert observer.max_val == finite.max() and observer.histogram.sum() == 100
    with pytest.warns(UserWarning, match="ignored 1 infinite of 1 values"):
        observer(torch.tensor([float("inf")]))
    assert observer.histogram.sum() == 100


@pytest.mark.parametrize("bad", [float("nan"), 3e38])
def test_what_has_no_range_raises_and_changes_nothing(bad):
    observer = HistogramObserver()
    observer(torch.randn(100))
    before = copy.deepcopy(observer.state_dict())
    with pytest.raises(ValueError, match="hold no NaN" if bad != bad else "'high' must give a range"):
        observer(torch.tensor([1.0, bad]))
    for name, value in observer.state_dict().items():
        assert torch.equal(value, before[name])


def test_memory_does_not_grow_with_the_range():
    observer = HistogramObserver()
    observer(torch.randn(1000) * 1e-30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    observer(torch.randn(1000) * 1e4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_state_dict_round_trip_and_old_files():
    observer = HistogramObserver()
    observer(torch.randn(1000))
    fresh = HistogramObserver()
    fresh.load_state_dict(observer.state_dict())
    assert torch.equal(fresh.calculate_qparams()[0], observer.calculate_qparams()[0])
    theirs = theirs_of()
    theirs(torch.randn(1000))
    fresh.load_state_dict(theirs.state_dict())
    assert torch.equal(fresh.calculate_qparams()[0], theirs.calculate_qparams()[0])
    state = HistogramObserver().state_dict()
    state["min_val"] = state["max_val"] = torch.tensor([])  # version 2, nothing seen
    fresh.load_state_dict(state)
    with pytest.warns(UserWarning, match="must run observer"):
        fresh.calculate_qparams()


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: ops._histogram(torch.ones(3).double(), 4, 0.0, 1.0), "input"),
        (lambda: ops._histogram(torch.ones(3), 0, 0.0, 1.0), "bins"),
        (lambda: ops._histogram(torch.ones(3), 4, float("nan"), 1.0), "low"),
        (lambda: ops._histogram(torch.ones(3), 4, 1.0, 1.0), "high"),
        (lambda: ops._histogram_widen(torch.ones(3, 3), 0.0, 1.0, 0.0, 2.0), "histogram"),
        (lambda: ops._histogram_widen(torch.ones(3), 0.0, 1.0, 0.5, 2.0), "new_low"),
        (lambda: ops._histogram_widen(torch.ones(3), 0.0, 1.0, 0.0, 0.5), "new_high"),
        (lambda: ops._histogram_search(-torch.ones(3), 0.0, 1.0, 256), "histogram"),
        (lambda: ops._histogram_search(torch.ones(3), 0.0, 1.0, 1), "levels"),
        (lambda: ops._histogram_search(torch.ones(3), 2.0, 1.0, 256), "high"),
    ],
)
def test_bad_arguments_are_named(call, argument):
    with pytest.raises((TypeError, ValueError), match=f"argument '{argument}' must"):
        call()


@pytest.mark.parametrize("high", [-2.5, float("nan"), float("inf"), -float("inf")])
def test_a_histogram_has_a_range(high):
    with pytest.raises(ValueError, match=f"torch_ao::_histogram: argument 'high' must .*, got {high:g}"):
        torch.ops.torch_ao._histogram(torch.randn(5), 8, -2.0, high)
