"""Fake kernels of the private ops behind HistogramObserver (csrc/ops/histogram.cpp)."""

import torch

from torch_ao_ext.ops import _fake

_MOST_BINS = 1 << 20


def _check_histogram(op, histogram):
    _fake.check_tensor(op, "histogram", histogram, (torch.float32,))
    _fake.check_rank(op, "histogram", histogram, 1)


@torch.library.register_fake("torch_ao::_histogram")
def _(input, bins, low, high):
    _fake.check_tensor("_histogram", "input", input, (torch.float32,))
    rule = f"be in [1, {_MOST_BINS}]"
    _fake.check_value(1 <= bins <= _MOST_BINS, "_histogram", "bins", rule, bins)
    return input.new_empty([bins])


@torch.library.register_fake("torch_ao::_histogram_widen")
def _(histogram, low, high, new_low, new_high):
    _check_histogram("_histogram_widen", histogram)
    return histogram.new_empty(histogram.shape)


@torch.library.register_fake("torch_ao::_histogram_search")
def _(histogram, low, high, levels):
    _check_histogram("_histogram_search", histogram)
    return histogram.new_empty([2], dtype=torch.int64)
