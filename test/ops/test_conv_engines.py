"""Convolutions of each engine by name: the random cases of test_conv.py, and what packing promises."""

import json
import math
import mmap
import random
import resource
from pathlib import Path

import pytest
import torch
from op_cases import random_int
from test_conv import CASES, OPS, accumulators, op_name, ops, quantized, random_case, run_case
from test_guard_pages import guarded, in_child

# What an engine may refuse, as its reasons say it.
LACKS = {
    "onednn": ("asymmetric weights", "depthwise multiplier", "oneDNN chose"),
    "xnnpack": (
        "asymmetric weights", "output dtype f32", "post-op other",
        "transposed, dilation", "bias ", "accumulator / output scale",
    ),
}  # fmt: skip
ENGINES = ("native", "onednn", "xnnpack")
S_X, Z_X, S_Y, Z_Y = 0.1, 7, 0.5, 9
S_W = torch.tensor([0.01])  # one tensor: another would be another packing


def run(op, x, w, **numbers):
    return getattr(ops, op)(x, S_X, Z_X, w, S_W, None, None, S_Y, Z_Y, **numbers)


def expected(op, x, w, groups=1, **numbers):
    acc = accumulators(2, "transpose" in op, x, Z_X, w, None, groups, **numbers)
    return quantized(acc, S_X, S_W, None, S_Y, Z_Y, x.dtype, False)


def engines_of(w):
    return [state["engine"] for state in json.loads(ops._explain(w))["states"]]


def inside_the_bound(y, expected, acc, s_x, s_w, bias, s_y):
    """XNNPACK adds the bias to the accumulator: one step off near a rounding boundary (order.cpp)."""
    column = (-1, *[1] * (acc.dim() - 2))
    scale = (s_x * s_w.double()).expand(acc.shape[1]).reshape(column)
    v = (acc * scale + (0 if bias is None else bias.double().reshape(column))) / s_y
    off = (y.int() - expected.int()).abs()
    to_boundary = (v - v.floor() - 0.5).abs()
    return bool(((off == 0) | ((off == 1) & (to_boundary <= 0.5 * scale / s_y + 2**-20 * v.abs()))).all())


# XNNPACK has two spatial dimensions.
PAIRS = [(engine, *op) for engine in LACKS for op in OPS if engine != "xnnpack" or op[0] < 3]


@pytest.mark.parametrize(("engine", "rank", "transposed"), PAIRS)
def test_random_cases_of_the_engine(engine, rank, transposed, forced):
    torch.manual_seed(rank)
    rng = random.Random(f"{engine} {rank} {transposed}")
    done = 0
    forced(engine)
    for _ in range(8 * CASES):
        try:
            run_case(rng, rank, transposed, inside_the_bound if engine == "xnnpack" else None)
            done += 1
        except NotImplementedError as error:
            reason = str(error).splitlines()[-1].strip()
            if not any(reason.startswith(f"{engine}: {lack}") for lack in LACKS[engine]):
                raise
        if done == CASES:
            return
    pytest.fail(f"{engine} took {done} of {8 * CASES} cases")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("op", "shape", "groups"),
    [("conv2d", (48, 32, 3, 3), 1), ("conv2d", (32, 1, 3, 3), 32), ("conv_transpose2d", (32, 24, 3, 3), 1)],
)
def test_what_every_network_has(engine, op, shape, groups, forced):
    x, w = random_int(torch.uint8, 1, 32, 20, 20), random_int(torch.int8, *shape)
    numbers = {"stride": [2, 2], "padding": [1, 1], "groups": groups}
    forced(engine)
    y = run(op, x, w, **numbers)
    off = (y.int() - expected(op, x, w, **numbers).int()).abs()
    assert off.max() == 0 or (engine == "xnnpack" and off.max() == 1)
    assert engines_of(w) == [engine]


@pytest.mark.parametrize("channels", [16, 24, 48, 96, 320, 336])
def test_depthwise_of_stride_2(channels, forced):
    """Even and odd columns: every width of a few, with and without padding, two kernels and a dilated one."""
    forced("native")
    for width in (1, 2, 3, 4, 5, 8, 31, 64, 113):
        x = random_int(torch.uint8, 1, channels, 6, width)
        for kernel, dilation in ((3, 1), (5, 1), (4, 1), (3, 3)):
            w = random_int(torch.int8, channels, 1, kernel, kernel)
            for padding in (0, kernel // 2 * dilation):
                if min(6, width) + 2 * padding < dilation * (kernel - 1) + 1:
                    continue
                numbers = {"stride": [2, 2], "padding": [padding] * 2, "dilation": [dilation] * 2}
                y = run("conv2d", x, w, groups=channels, **numbers)
                assert torch.equal(y, expected("conv2d", x, w, groups=channels, **numbers))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("channels", [64, 68, 260])
def test_dilations_that_reach_past_the_image(channels, dtype, forced):
    """Taps that are outside for some pixels of a line, for whole lines, and for all."""
    forced("native")
    rng = random.Random(channels)
    for case in range(40):
        rank = case % 3 + 1
        kernel = [rng.choice([1, 2, 3]) for _ in range(rank - 1)] + [rng.choice([2, 3])]
        dilation = [rng.choice([1, 2, 5]) for _ in range(rank - 1)] + [rng.choice([2, 3, 12, 30])]
        padding = [rng.randint(0, k * d) for k, d in zip(kernel, dilation, strict=True)]
        numbers = {"stride": [rng.choice([1, 1, 2, 3]) for _ in kernel], "padding": padding}
        numbers["dilation"] = dilation
        size = [
            max(rng.randint(1, 9), (k - 1) * d + 1 - 2 * p)
            for k, d, p in zip(kernel, dilation, padding, strict=True)
        ]
        size[-1] += rng.choice([0, 0, 7, 30])
        x = random_int(dtype, 2, channels, *size)
        w = random_int(torch.int8, rng.choice([1, 16, 24, 70]), channels, *kernel)
        info = torch.iinfo(dtype)
        zero_point = rng.choice([info.min, 0, info.max, rng.randint(info.min, info.max)])
        acc = accumulators(rank, False, x, zero_point, w, None, 1, **numbers)
        y = getattr(ops, f"conv{rank}d")(
            x, 1.0, zero_point, w, S_W, None, None, 1.0, 0, torch.float32, **numbers
        )
        assert torch.equal(y, acc.float() * S_W), (x.shape, w.shape, numbers)
    assert channels != 64 or any(way in ops._explain(w) for way in ("dilated", " amx "))


def large_image(channels, height, width):
    """int8, channels last."""
    words = torch.empty(height * width * channels // 8, dtype=torch.int64).random_()
    return words.view(torch.int8).view(1, height, width, channels).permute(0, 3, 1, 2)


@pytest.mark.parametrize("output", [(S_Y, Z_Y, torch.int8), (1.0, 0, torch.float32)])
def test_a_stride_on_more_pixels_than_are_copied_at_once(output, forced):
    """More than 64 MB (conv_pixels.h), cut inside a line, with a sum."""
    forced("native")
    x, w = large_image(72, 1050, 2046), random_int(torch.int8, 3, 72, 1, 1)
    numbers = {"post_ops": "add", "other": random_int(torch.uint8, 1, 3, 1050, 1023), "other_scale": 0.1}
    y = ops.conv2d(x, S_X, Z_X, w, S_W, None, None, *output, stride=[1, 2], **numbers)
    plain = x[..., ::2].contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, ops.conv2d(plain, S_X, Z_X, w.clone(), S_W, None, None, *output, **numbers))


def test_dilations_on_more_bytes_than_are_copied(forced):
    forced("native")
    x, w = large_image(64, 1030, 1024), random_int(torch.int8, 4, 64, 1, 3)
    rest = (S_W, None, None, 1.0, 0, torch.float32, 1, [0, 12], [1, 12])
    shifted = x.view(torch.uint8) ^ 128  # the same values, of the zero point Z_X + 128
    same = ops.conv2d(shifted, S_X, Z_X + 128, w.clone(), *rest)
    assert torch.equal(ops.conv2d(x, S_X, Z_X, w, *rest), same)


LARGE_DEPTHWISE = {
    "2d": ("conv2d", (4, 1100, 2048), {"stride": [2, 2], "padding": [1, 1]}),
    "2d, taps far outside": (
        "conv2d", (3, 4, 800, 1024), {"stride": [1, 2], "padding": [5, 1], "dilation": [3, 2]}
    ),
    "3d": ("conv3d", (4, 20, 160, 700), {"stride": [2, 1, 2], "padding": [1, 1, 1]}),
    "3d, large planes": ("conv3d", (4, 3, 760, 1000), {"stride": [2, 2, 2], "padding": [3, 1, 1]}),
    "1d": ("conv1d", (2, 4, 1_200_000), {"stride": [2]}),
    "transposed": ("conv_transpose2d", (4, 1100, 2048), {"stride": [1, 2], "padding": [1, 1]}),
}  # fmt: skip


@pytest.mark.parametrize("case", LARGE_DEPTHWISE)
def test_several_outputs_of_each_channel_of_a_large_input(case, forced):
    """More than 64 MB with each byte 8 times (conv_pixels.h): some lines at a time."""
    op, shape, numbers = LARGE_DEPTHWISE[case]
    forced("native")
    rank = len(numbers["stride"])
    batch, channels, *sizes = shape if len(shape) == rank + 2 else (1, *shape)
    words = torch.empty(batch * channels * math.prod(sizes) // 8, dtype=torch.int64).random_()
    x = words.view(torch.int8).view(batch, *sizes, channels)
    w = random_int(torch.int8, 8 * channels, 1, *[3] * rank)
    multiple = w.view(channels, 8, *[3] * rank) if "transpose" in op else w
    y = run(op, x.movedim(-1, 1), multiple, groups=channels, **numbers)
    repeated = x.repeat_interleave(8, -1).movedim(-1, 1)  # one output of each channel: nothing is copied
    assert torch.equal(y, run(op, repeated, w.clone(), groups=8 * channels, **numbers))


def test_several_outputs_of_each_channel_in_little_memory(forced):
    forced("native")
    x = torch.ones(1, 8, 2000, 4000, dtype=torch.int8).contiguous(memory_format=torch.channels_last)
    w = random_int(torch.int8, 64, 1, 3, 3)
    numbers = {"groups": 8, "stride": [4, 4]}

    def call():
        run("conv2d", x[:, :, :3, :3], w, **numbers)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * mmap.PAGESIZE + (160 << 20)  # the output has 32 MB, the repeated input 512
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        run("conv2d", x, w, **numbers)

    assert in_child(call) == 0


@pytest.mark.parametrize("engine", ["native", "onednn"])
@pytest.mark.parametrize("channels", [16, 512])
def test_a_new_size_does_not_pack_again(engine, channels, forced):
    w = random_int(torch.int8, 512, channels, 3, 3)
    forced(engine)
    for size in (14, 7, 30, 14, 1, 65, 2, 3, 4, 5):
        x = random_int(torch.uint8, 1, channels, size, 3)
        assert torch.equal(run("conv2d", x, w, padding=[1, 1]), expected("conv2d", x, w, padding=[1, 1]))
    assert engines_of(w) == [engine]


def test_deterministic_mode_leaves_xnnpack_out(forced):
    x, w = random_int(torch.uint8, 1, 8, 5, 5), random_int(torch.int8, 8, 8, 3, 3)
    forced("xnnpack")
    ops._set_deterministic(True)
    with pytest.raises(NotImplementedError, match="xnnpack: may round differently"):
        run("conv2d", x, w)


def test_xnnpack_has_two_dimensions(forced):
    x, w = random_int(torch.uint8, 1, 8, 5, 5, 5), random_int(torch.int8, 8, 8, 3, 3, 3)
    forced("xnnpack")
    with pytest.raises(NotImplementedError, match="three spatial dimensions; needs at most 2"):
        run("conv3d", x, w)


def test_weights_for_one_size_meet_another(forced):
    """Sizes for which oneDNN wants another layout, and would take a kernel that saturates instead."""
    w = random_int(torch.int8, 68, 29, 2, 3, 2)
    scale = torch.tensor([1.0])
    forced("onednn")
    for size in ((6, 7, 81), (2, 9, 82), (12, 5, 40)):
        x = random_int(torch.uint8, 1, 29, *size)
        numbers = {"stride": [2, 2, 3], "dilation": [1, 2, 2]}
        y = ops.conv3d(x, 1.0, 185, w, scale, None, None, 1.0, 0, torch.float32, **numbers)
        assert torch.equal(
            y.double(), accumulators(3, False, x, 185, w, None, 1, padding=[0, 0, 0], **numbers)
        )


@pytest.mark.parametrize(
    ("shape", "size", "numbers"),
    [
        ((16, 7, 3, 5), (4, 6), {"stride": [1, 3], "padding": [1, 0], "output_padding": [0, 2]}),
        ((33, 45, 3, 5), (8, 2), {"stride": [1, 3], "padding": [1, 1], "output_padding": [0, 2]}),
        ((8, 16, 4, 4), (1, 1), {"stride": [3, 1], "padding": [0, 1], "output_padding": [2, 0]}),
        ((33, 7, 3, 3), (7, 2), {"stride": [1, 3], "padding": [2, 0], "output_padding": [0, 2]}),
    ],
)
@pytest.mark.parametrize("zero_point", [0, 255])
def test_transposed_outputs_that_end_behind_the_input(shape, size, numbers, zero_point, forced):
    """oneDNN gets positions wrong that lie behind the reach of its last input."""
    x, w = random_int(torch.uint8, 2, shape[0], *size), random_int(torch.int8, *shape)
    numbers = {"dilation": [1, 1], **numbers}
    forced("onednn")
    y = ops.conv_transpose2d(x, 1.0, zero_point, w, S_W, None, None, 1.0, 0, torch.float32, **numbers)
    acc = accumulators(2, True, x, zero_point, w, None, 1, **numbers)
    assert torch.equal(y, acc.float() * S_W)


@pytest.mark.parametrize("engine", ["native", "onednn"])
@pytest.mark.parametrize(("shape", "groups"), [((70, 64, 3, 3), 1), ((64, 1, 3, 3), 64)])
def test_threads_share_a_weight(engine, shape, groups, forced):
    x, w = random_int(torch.int8, 2, 64, 20, 20), random_int(torch.int8, *shape)
    before = torch.get_num_threads()
    want = expected("conv2d", x, w, groups)
    try:
        forced(engine)
        for threads in (2, 1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(run("conv2d", x, w, groups=groups), want)
    finally:
        torch.set_num_threads(before)
    assert engines_of(w) == [engine]


def run_guarded(engine):
    """Channels last inputs, which the engine reads where they lie, beside an unreadable page."""
    torch.manual_seed(0)
    rng, ran = random.Random(engine), 0
    while ran < 200:
        rank, transposed = rng.choice(OPS)
        x, w, groups, _, numbers = random_case(rng, rank, transposed)
        if rng.random() < 0.7:
            numbers["padding"] = [0] * rank
        for at_end in (True, False):
            last = guarded(x.movedim(1, -1), at_end).movedim(-1, 1)
            try:
                run(op_name(rank, transposed), last, w, groups=groups, **numbers)
            except (NotImplementedError, ValueError):  # the engine lacks it; smaller than its kernel
                continue
            ran += 1


@pytest.mark.parametrize("engine", ENGINES)
def test_reads_end_with_the_input(engine, forced):
    forced(engine)
    assert in_child(run_guarded, engine) == 0


# Size, weight and numbers of images whose lines have one output: the step along them is never taken.
ONE_COLUMN = [
    ((2, 1, 4, 6), (2, 1, 1, 5), {"stride": [1, 2]}),
    ((1, 1, 9, 3), (17, 1, 1, 3), {"stride": [1, 3], "padding": [2, 0]}),
    ((3, 1, 12, 4), (64, 1, 2, 2), {"stride": [1, 3], "padding": [1, 0], "dilation": [2, 1]}),
    ((2, 1, 5, 1), (8, 1, 3, 5), {"stride": [1, 4], "padding": [0, 2]}),
    ((1, 32, 9, 4), (16, 32, 3, 3), {"stride": [1, 2]}),
    ((1, 8, 9, 4), (8, 1, 3, 3), {"stride": [2, 2], "groups": 8}),
]


@pytest.mark.parametrize("case", ONE_COLUMN)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("engine", ["", "native", "onednn"])
def test_one_output_on_each_line(engine, dtype, case, forced):
    torch.manual_seed(7)
    x_shape, w_shape, numbers = case
    x, w = random_int(dtype, *x_shape), random_int(torch.int8, *w_shape)
    forced(engine)
    assert torch.equal(run("conv2d", x, w, **numbers), expected("conv2d", x, w, **numbers))


@pytest.mark.parametrize("engine", ["", "native", "xnnpack"])
@pytest.mark.parametrize("step", [1 << 16, (1 << 31) - 1])
def test_a_stride_beyond_the_input(engine, step, forced):
    """One output pixel."""
    x, w = random_int(torch.uint8, 2, 4, 6, 4), random_int(torch.int8, 4, 4, 3, 3)
    forced("reference")
    want = run("conv2d", x, w, stride=[step, step], padding=[1, 1])
    forced(engine)
    assert torch.equal(run("conv2d", x, w.clone(), stride=[step, step], padding=[1, 1]), want)


def test_onednn_refuses_a_stride_beyond_its_numbers(forced):
    x, w = random_int(torch.uint8, 2, 4, 6, 4), random_int(torch.int8, 4, 4, 3, 3)
    forced("onednn")
    with pytest.raises(NotImplementedError, match="onednn: stride or dilation 2147483647"):
        run("conv2d", x, w, stride=[(1 << 31) - 1] * 2)
