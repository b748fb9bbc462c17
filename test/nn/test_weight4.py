"""4-bit weights against an independent scalar formula."""

import math

import pytest
import torch

from torch_ao_ext.nn.quantized import _weight4


def expected(weight, group_size):
    n, k = weight.shape
    values, scales = [], []
    for row in weight.tolist():
        row_scales = []
        for begin in range(0, k, group_size):
            largest = max(abs(x) for x in row[begin : begin + group_size])
            f32 = torch.tensor(largest) / 7.5
            row_scales.append(1.0 if largest == 0 else max(float(f32), torch.finfo(torch.float32).tiny))
        scales.append(row_scales)
        steps = [torch.tensor(row_scales[i // group_size]) for i in range(k)]
        quotients = [float(torch.tensor(x) / step) for x, step in zip(row, steps, strict=True)]
        values.append([min(max(round(v), -8), 7) + 8 for v in quotients])
    rows = [[r[i] + 16 * (r[i + 1] if i + 1 < k else 8) for i in range(0, k, 2)] for r in values]
    return (
        torch.tensor(rows, dtype=torch.uint8).view(n, math.ceil(k / 2)),
        torch.tensor(scales, dtype=torch.float32).view(n, math.ceil(k / group_size)),
    )


@pytest.mark.parametrize("group_size", [1, 2, 3, 32, 128])
@pytest.mark.parametrize("n, k", [(0, 8), (1, 1), (2, 2), (3, 7), (5, 33), (4, 130), (2, 256)])
def test_layout_and_scales(n, k, group_size):
    weight = torch.randn(n, k, generator=torch.Generator().manual_seed(n * 1000 + k))
    packed, scales = _weight4.quantize_groups(weight, group_size)
    want_packed, want_scales = expected(weight, group_size)
    assert torch.equal(packed, want_packed)
    assert torch.equal(scales, want_scales)
    assert packed.is_contiguous() and scales.is_contiguous()


def test_even_k_is_the_low_nibble():
    packed, scales = _weight4.quantize_groups(torch.tensor([[-7.5, 1.0, 7.5]]), 4)
    assert packed.tolist() == [[0x90, 0x8F]]
    assert scales.tolist() == [[1.0]]


def test_unpack_returns_the_values():
    packed = torch.arange(256, dtype=torch.uint8).view(2, 128)
    got = _weight4.unpack_groups(packed, 255)
    assert got.dtype == torch.int8 and got.shape == (2, 255)
    assert got[1, :4].tolist() == [-8, 0, -7, 0]


def test_error_is_within_half_a_step():
    weight = torch.randn(16, 300, dtype=torch.bfloat16)
    packed, scales = _weight4.quantize_groups(weight, 128)
    step = scales.repeat_interleave(128, dim=1)[:, :300]
    error = (_weight4.unpack_groups(packed, 300) * step - weight.float()).abs()
    assert bool((error <= step * 0.5001).all())


def test_zero_tiny_and_empty():
    packed, scales = _weight4.quantize_groups(torch.tensor([[0.0, 0.0, 1e-45, 0.0]]), 2)
    assert scales.tolist() == [[1.0, torch.finfo(torch.float32).tiny]]
    assert packed.tolist() == [[0x88, 0x88]]
    packed, scales = _weight4.quantize_groups(torch.empty(3, 0), 128)
    assert packed.shape == (3, 0) and scales.shape == (3, 0)


def test_blocks_do_not_change_the_result():
    weight = torch.randn(700, 1024)  # three blocks
    packed, scales = _weight4.quantize_groups(weight, 128)
    for begin in (0, 255, 256, 511, 699):
        one, scale = _weight4.quantize_groups(weight[begin : begin + 1], 128)
        assert torch.equal(packed[begin : begin + 1], one)
        assert torch.equal(scales[begin : begin + 1], scale)


@pytest.mark.parametrize("bad", [0, -1, True, 2.0, None])
def test_bad_group_size(bad):
    with pytest.raises(ValueError, match="argument 'group_size' must be an integer >= 1, got"):
        _weight4.quantize_groups(torch.ones(1, 2), bad)
