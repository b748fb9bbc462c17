"""cat: exact results, opcheck, wrong calls and guard pages; its lists are unknown to the generated calls."""

import pytest
import torch
from int8_samples import cat, cat_calls
from op_cases import random_int
from test_guard_pages import guarded, in_child

ops = torch.ops.torch_ao
U8, S8 = torch.uint8, torch.int8


@pytest.mark.parametrize("index", range(len(cat_calls())))
def test_samples(index):
    torch.manual_seed(0)
    args = cat_calls()[index]
    y, expected = ops.cat(*args), cat(args)
    assert y.dtype == expected.dtype and torch.equal(y, expected)
    torch.library.opcheck(ops.cat.default, args)
    fake = ops.cat(*[[t.to("meta") for t in a] if i == 0 else a for i, a in enumerate(args)])
    assert (fake.shape, fake.dtype) == (y.shape, y.dtype)


@pytest.mark.parametrize("out", [(0.3, 9, U8), (0.02, -9, S8), (1.0, 0, torch.float32)])
def test_random_cases(out, rng):
    torch.manual_seed(1)
    for _ in range(60):
        rank = rng.randint(1, 4)
        sizes, dim = [rng.choice([1, 2, 3, 17]) for _ in range(rank)], rng.randrange(rank)
        tensors, scales, points = [], [], []
        for _ in range(rng.randint(1, 4)):
            sizes[dim] = rng.choice([0, 1, 3, 70])
            dtype = rng.choice([U8, S8])
            t = random_int(dtype, *sizes)
            if rank > 2 and rng.random() < 0.6:
                t = t.movedim(1, -1).contiguous().movedim(-1, 1)
            tensors.append(t)
            scales.append(rng.choice([0.3, 0.02, 1.0]))
            points.append(rng.choice([0, 9, 100]))
        args = (tensors, scales, points, rng.choice([dim, dim - rank]), *out)
        y = ops.cat(*args)
        assert torch.equal(y, cat(args)), args[1:]


def test_memory_orders():
    images = [random_int(U8, 2, 3, 4, 5).to(memory_format=torch.channels_last) for _ in range(2)]
    y = ops.cat(images, [1.0, 1.0], [0, 0], 1, 1.0, 0)
    assert torch.equal(y, torch.cat(images, 1)) and y.is_contiguous(memory_format=torch.channels_last)
    mixed = [images[0], images[1].contiguous()]
    assert ops.cat(mixed, [1.0, 1.0], [0, 0], 1, 1.0, 0).is_contiguous()


def test_stays_inside_its_tensors():
    def run():
        for args in cat_calls():
            for at_end in (True, False):
                ops.cat([guarded(t, at_end) for t in args[0]], *args[1:])

    assert in_child(run) == 0


def test_under_compile():
    a, b = random_int(U8, 3, 4), random_int(S8, 2, 4)

    def joined(a, b):
        return ops.cat([a, b], [0.1, 0.2], [3, -4], 0, 0.15, 7)

    compiled = torch.compile(joined, fullgraph=True, dynamic=True)
    assert torch.equal(compiled(a, b), joined(a, b))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: []}, ValueError, "'tensors' must have at least 1 tensor, got 0"),
        ({0: [random_int(U8)] * 2}, ValueError, "'tensors' must have at least 1 dimension, got sizes"),
        ({1: [0.1]}, ValueError, "'scales' must have 2 values, got 1"),
        ({2: [1, 2, 3]}, ValueError, "'zero_points' must have 2 values, got 3"),
        ({1: [0.1, 0.0]}, ValueError, "'scales' must be a finite, normal"),
        ({2: [0, 300]}, ValueError, r"'zero_points' must be in \[0, 255\], got 300"),
        ({3: 2}, IndexError, r"'dim' must be in \[-2, 1\], got 2"),
        ({5: 300}, ValueError, r"'output_zero_point' must be in"),
        ({0: [torch.zeros(3, 4), torch.zeros(2, 4)]}, TypeError, "'tensors' must have dtype uint8 or int8"),
        (
            {0: [random_int(U8, 3, 4), random_int(U8, 2, 5)]},
            ValueError,
            "'tensors' must have the first one's",
        ),
        ({6: torch.int32}, TypeError, "'output_dtype' must be"),
    ],
)
def test_errors(change, error, message):
    call = [[random_int(U8, 3, 4), random_int(U8, 2, 4)], [0.1, 0.2], [3, 4], 0, 0.1, 7, None]
    for i, value in change.items():
        call[i] = value
    with pytest.raises(error, match="torch_ao::cat: argument " + message):
        ops.cat(*call)


def test_every_tensor_has_its_storage():
    for dtype in (None, torch.float32):
        shrunken = random_int(U8, 3, 4)
        shrunken.untyped_storage().resize_(5)
        with pytest.raises(ValueError, match="'tensors' must have a storage of at least 12 elements"):
            ops.cat([random_int(U8, 3, 4), shrunken], [0.1, 0.2], [3, 4], 0, 1.0, 0, dtype)
