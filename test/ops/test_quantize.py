"""quantize_* and dequantize_* against numpy and against torch.ops.quantized_decomposed's formula."""

import re

import op_reference as reference
import pytest
import torch
from op_cases import random_int
from op_samples import overload, samples
from quantize_cases import choose_call, quantize_or_dequantize_call

ops = torch.ops.torch_ao
U8, S8 = torch.uint8, torch.int8
CASES = 500


NAMES = [n for n in samples() if "quantize_per" in n]


@pytest.mark.parametrize("name", NAMES)
def test_exact(name):
    for args in samples()[name]:
        result = overload(name)(*args)
        expected = reference.FORMULAS[name](args)
        assert torch.equal(result, expected)
        if "per_token" in name:
            assert result.is_contiguous()
        else:
            assert result.stride() == torch.empty_like(args[0]).stride()


@pytest.mark.parametrize("name", NAMES)
def test_random_exact(name, rng):
    for case in range(CASES):
        args = quantize_or_dequantize_call(rng, name)
        result = overload(name)(*args)
        expected = reference.FORMULAS[name](args)
        assert result.dtype == expected.dtype
        assert torch.equal(result, expected), (case, args[0].shape, args[0].stride(), args[1:])


@pytest.mark.parametrize("dtype", [U8, S8])
@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16])
def test_full_range_and_specials(dtype, input_dtype):
    info = torch.iinfo(dtype)
    x = torch.cat(
        [
            torch.linspace(-400, 400, 20001),
            torch.tensor([float("nan"), float("inf"), -float("inf"), 3.4e38, -3.4e38, 1e-45, -0.0]),
        ]
    ).to(input_dtype)
    for scale in (1.0, 0.5, 0.1, 3.3, 1.2e-38, 3e38):
        for zp in (info.min, 0, 5, info.max):
            for lo, hi in ((info.min, info.max), (0, 127), (3, 3)):
                args = (x, scale, zp, lo, hi, dtype)
                expected = reference.quantized("quantize_per_tensor", args)
                assert torch.equal(ops.quantize_per_tensor(*args), expected)


@pytest.mark.parametrize("dtype", [U8, S8])
def test_dequantize_all_values(dtype):
    q = torch.arange(torch.iinfo(dtype).min, torch.iinfo(dtype).max + 1).to(dtype)
    for scale in (0.1, 1.5, 1.2e-38, 1e36):
        for zp in (torch.iinfo(dtype).min, 0, 77, torch.iinfo(dtype).max):
            for out in (None, torch.float32, torch.bfloat16):
                args = (q, scale, zp, out)
                expected = reference.dequantized("dequantize_per_tensor", args)
                assert torch.equal(ops.dequantize_per_tensor(*args), expected)


IMAGES = [(2, 3, 7, 40), (1, 21, 5, 5), (3, 70, 9), (1, 144, 56, 56), (2, 19, 2, 3, 50)]


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("from_last", [False, True])
@pytest.mark.parametrize("to_last", [False, True])
def test_memory_formats(shape, from_last, to_last):
    """The values of the same call without a format, in the order that it names; other inputs are copied."""
    x = torch.randn(shape)
    named = {"memory_format": torch.channels_last if to_last else torch.contiguous_format}
    lies = [torch.randn(shape[0], *shape[2:], shape[1]).movedim(-1, 1).copy_(x)] if from_last else [x]
    lies.append(torch.randn(*shape, 2)[..., 0].copy_(x))
    for given in (*lies, lies[0].to(torch.bfloat16)):
        q = ops.quantize_per_tensor(given, 0.02, 130, 5, 250, U8, **named)
        assert torch.equal(q, ops.quantize_per_tensor(given, 0.02, 130, 5, 250, U8))
        memory = q.movedim(1, -1) if to_last else q
        assert memory.is_contiguous()
    for q in (ops.quantize_per_tensor(x, 0.02, -3, -128, 127, S8) for x in lies):
        for dtype in (torch.float32, torch.bfloat16):
            y = ops.dequantize_per_tensor(q, 0.02, -3, dtype, **named)
            assert torch.equal(y, ops.dequantize_per_tensor(q, 0.02, -3, dtype))
            assert (y.movedim(1, -1) if to_last else y).is_contiguous()


@pytest.mark.parametrize("number", [-1, 4, 99])
def test_memory_format_by_a_number(number):
    rule = "'memory_format' must be contiguous_format, preserve_format, channels_last or channels_last_3d"
    with pytest.raises(ValueError, match=f"^torch_ao::quantize_per_tensor: argument {rule}, got {number}"):
        ops.quantize_per_tensor(torch.ones(1, 2, 3), 0.1, 0, 0, 255, U8, number)
    with pytest.raises(ValueError, match=f"^torch_ao::dequantize_per_tensor: argument {rule}, got {number}"):
        ops.dequantize_per_tensor(torch.ones(1, 2, 3, dtype=U8), 0.1, 0, None, number)


def test_memory_format_of_other_ranks():
    x, q = torch.randn(3, 4), torch.zeros(3, 4, dtype=U8)
    rule = "must have 3 to 5 dimensions with memory_format=torch.channels_last, got sizes [3, 4]"
    with pytest.raises(ValueError, match=re.escape(f"quantize_per_tensor: argument 'input' {rule}")):
        ops.quantize_per_tensor(x, 0.1, 0, 0, 255, U8, memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="5 dimensions with memory_format=torch.channels_last_3d"):
        ops.dequantize_per_tensor(q.view(1, 3, 2, 2), 0.1, 0, memory_format=torch.channels_last_3d)


def test_round_trip_is_within_half_a_step():
    x = torch.rand(1000) * 2 - 1
    q = ops.quantize_per_tensor(x, 2 / 255, 128, 0, 255, U8)
    assert (ops.dequantize_per_tensor(q, 2 / 255, 128) - x).abs().max() <= 1 / 255 * (1 + 1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -4])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "permuted", "strided", "expanded"])
def test_per_channel_axes_and_layouts(axis, layout):
    x = torch.randn(3, 5, 4, 7)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif layout == "permuted":
        x = torch.randn(4, 7, 3, 5).permute(2, 3, 0, 1)
    elif layout == "strided":
        x = torch.randn(3, 5, 4, 14)[..., ::2]
    elif layout == "expanded":
        x = torch.randn(3, 1, 4, 7).expand(3, 5, 4, 7)
    c = x.shape[axis]
    args = (x, torch.rand(c) + 0.01, torch.randint(-128, 128, (c,)), axis, -128, 127, S8)
    q = ops.quantize_per_channel(*args)
    assert torch.equal(q, reference.quantized("quantize_per_channel", args))
    assert q.stride() == torch.empty_like(x).stride()
    back = (q, *args[1:4], None)
    expected = reference.dequantized("dequantize_per_channel", back)
    assert torch.equal(ops.dequantize_per_channel(*back), expected)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1,), (1, 1, 1)])
def test_small_shapes(shape):
    x = torch.randn(shape)
    q = ops.quantize_per_tensor(x, 0.1, 0, -128, 127, S8)
    assert q.shape == shape and q.dtype == S8
    assert ops.dequantize_per_tensor(q, 0.1, 0).shape == shape


def test_negative_bit_and_zero_tensor_inputs():
    z = torch.complex(torch.randn(6), torch.randn(6)).conj().imag
    assert z.is_neg()
    assert torch.equal(
        ops.quantize_per_tensor(z, 0.1, 0, -128, 127, S8),
        ops.quantize_per_tensor(z.clone(), 0.1, 0, -128, 127, S8),
    )
    zeros = torch._efficientzerotensor(4)
    assert torch.equal(ops.quantize_per_tensor(zeros, 0.1, 3, 0, 255, U8), torch.full((4,), 3, dtype=U8))


def tensor_and_row_qparams(x, lo, hi, symmetric):
    """(scale, zero point) of the tensor and of its rows by the two rules."""
    values = reference.as_rows(x)
    whole = reference.tensor_qparams(values.min(), values.max(), symmetric, lo, hi)
    rows = [reference.row_qparams(r.min(), r.max(), symmetric, lo, hi) for r in values]
    return whole, rows


@pytest.mark.parametrize("symmetric", [False, True])
def test_random_choose_qparams(symmetric, rng):
    for case in range(CASES):
        call = choose_call(rng, symmetric)
        x, lo, hi, _ = call
        whole, rows = tensor_and_row_qparams(*call)
        scale, zp = ops.choose_qparams(*call)
        assert (scale.item(), zp.item()) == (float(whole[0]), whole[1]), (case, x.shape, lo, hi)
        assert (scale.shape, scale.dtype, zp.shape, zp.dtype) == ((1,), torch.float32, (1,), torch.int64)
        check_properties(scale, zp, lo, hi)
        scale, zp = ops.choose_qparams_per_token(*call)
        assert scale.shape == zp.shape == (*x.shape[:-1], 1)
        got = list(zip(scale.flatten().tolist(), zp.flatten().tolist(), strict=True))
        assert got == [(float(s), z) for s, z in rows], (case, x.shape, lo, hi)
        check_properties(scale, zp, lo, hi)


def check_properties(scale, zp, lo, hi):
    assert (scale >= reference.FLT_MIN).all() and scale.isfinite().all()
    assert ((zp >= lo) & (zp <= hi)).all()


def test_tensor_rule_is_the_wheels(rng):
    """What torch's own dynamic linear chooses."""
    for _ in range(300):
        x = torch.randn(50) * 10 ** rng.uniform(-8, 8) + rng.choice([0.0, 5.0, -5.0])
        scale, zp = torch._choose_qparams_per_tensor(x, False)
        ours = ops.choose_qparams(x, 0, 255)
        assert (ours[0].item(), ours[1].item()) == (torch.tensor(scale).float().item(), zp)


def test_choose_per_token_rows_and_dynamic_linear_agree():
    x = torch.randn(2, 5, 33)
    scale, zp = ops.choose_qparams_per_token(x, 0, 255)
    assert scale.shape == zp.shape == (2, 5, 1)
    q = ops.quantize_per_token(x, scale, zp, 0, 255, U8)
    weight, weight_scale = random_int(S8, 9, 33), torch.rand(9) + 0.01
    acc = (q.long() - zp) @ weight.long().t()
    y = acc.float() * (scale * weight_scale)
    assert torch.equal(ops.linear_dynamic(x, weight, weight_scale), y)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_choose_raises_on_bad_values(bad):
    x = torch.randn(3, 70000)
    x[2, 69999] = bad
    with pytest.raises(ValueError, match="torch_ao::choose_qparams: argument 'input' must hold finite"):
        ops.choose_qparams(x, 0, 255)
    with pytest.raises(ValueError, match="'input' must hold finite values.*in row 2"):
        ops.choose_qparams_per_token(x, 0, 255)
    with pytest.raises(ValueError, match="'input' must have at least 1 element, got sizes \\[0\\]"):
        ops.choose_qparams(torch.empty(0), 0, 255)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 126), (-126, 127), (-128, 0), (-1, 128)])
@pytest.mark.parametrize("op", [ops.choose_qparams, ops.choose_qparams_per_token])
def test_a_symmetric_range_is_named(op, low, high):
    rule = f"be -quant_max or -quant_max - 1 when symmetric .quant_max is {high}., got {low}"
    with pytest.raises(ValueError, match=f"argument 'quant_min' must {rule}"):
        op(torch.randn(3, 4), low, high, True)
    op(torch.randn(3, 4), low, high, False)
    op(torch.randn(3, 4), -127, 127, True)
    op(torch.randn(3, 4), -128, 127, True)


@pytest.mark.parametrize("count", [2, 1 << 20])
def test_choose_qparams_refuses_a_span_beyond_float32(count):
    """Between two values, and between values that different threads see."""
    x = torch.zeros(count)
    x[0], x[-1] = -3e38, 3e38
    text = "'input' must span less than the largest float32, got values from -3e"
    with pytest.raises(ValueError, match=f"choose_qparams: argument {text}"):
        ops.choose_qparams(x, 0, 255)
    with pytest.raises(ValueError, match=f"choose_qparams_per_token: argument {text}"):
        ops.choose_qparams_per_token(x, 0, 255)


@pytest.fixture
def tiny():
    """A row of denormals, made before the thread flushes them."""
    row = torch.full((1, 8), 1e-39)
    if not torch.set_flush_denormal(True):
        pytest.skip("the CPU cannot flush denormals")
    yield row
    torch.set_flush_denormal(False)


def test_parameters_do_not_depend_on_flush_to_zero(tiny):
    scale, _ = ops.choose_qparams_per_token(tiny, 0, 255)
    assert scale.item() == torch.finfo(torch.float32).tiny  # 1.0 when 1e-39 counts as 0


def test_factor_does_not_depend_on_flush_to_zero(tiny):
    """1 / 2e38 is itself denormal."""
    q = ops.quantize_per_tensor(torch.full((3,), 3.4e38), 2e38, 0, 0, 255, U8)
    assert q.tolist() == [2, 2, 2]


def test_rows_without_columns():
    scale, zp = ops.choose_qparams_per_token(torch.empty(3, 0), -128, 127)
    assert torch.equal(scale, torch.ones(3, 1)) and torch.equal(zp, torch.full((3, 1), -128))
    assert ops.choose_qparams_per_token(torch.empty(0, 5), 0, 255)[0].shape == (0, 1)
