"""Residuals in islands: the sum lies where the residual lay, when nobody reads that any more."""

import pytest
import torch
from op_cases import random_int

ao = torch.ops.torch_ao
U8, S8 = torch.uint8, torch.int8


def program(inputs, constants, lines, *results):
    returned = " ".join(f"%{r}" for r in results)
    head = f"torch_ao.island 1 inputs={inputs} constants={constants}"
    return "\n".join([head, *lines, f"return {returned}"])


def runs(text, inputs, constants=()):
    """(results of four runs, how many results lie in the place of another)."""
    found = [ao.island(list(inputs), list(constants), text) for _ in range(4)]
    return found, ao._island_plans(text)[-1][3]


SHAPES = {
    "conv": (24, 9), "few channels": (7, 6), "depthwise": (32, 11), "linear": (64, 50), "odd linear": (35, 3)
}  # fmt: skip


@pytest.mark.parametrize("engine", ["native", "onednn", "reference"])
@pytest.mark.parametrize("dtype", [U8, S8])
@pytest.mark.parametrize("shape", SHAPES)
def test_products(engine, shape, dtype, forced):
    """A chain of clamp -> product + residual gives the bits of the operators one by one."""
    forced(engine)
    n, size = SHAPES[shape]
    linear, groups = "linear" in shape, n if shape == "depthwise" else 1
    op = ao.linear if linear else ao.conv2d
    geometry = [] if linear else [[1, 1], [1, 1], [1, 1], groups]
    w = random_int(S8, n, n // groups, *([] if linear else [3, 3]))
    scale, bias = torch.rand(n) / 100 + 0.001, torch.randn(n)
    name = str(dtype).removeprefix("torch.")
    call = f"torch_ao::{'linear' if linear else 'conv2d'}"
    numbers = "" if linear else f"I1,1 I1,1 I1,1 i{groups} "
    lines = []
    for last in range(0, 10, 2):
        lines.append(f"torch_ao::requantize %{last} f0.1 i3 f0.1 i3 d{name} sclamp F-5,5")
        lines.append(
            f"{call} %{last + 1} f0.1 i3 @0 @1 n @2 f0.1 i3 d{name} {numbers}sadd,relu F %{last} f0.1 i3"
        )
    text = program(1, 3, lines, 10)
    for batch in (1, 3):
        x = random_int(dtype, batch * size, n) if linear else random_int(dtype, batch, n, size, size)
        x = x if linear else x.contiguous(memory_format=torch.channels_last)
        given, y = x.clone(), x
        for _ in range(5):
            branch = ao.requantize(y, 0.1, 3, 0.1, 3, dtype, "clamp", [-5, 5])
            y = op(branch, 0.1, 3, w, scale, None, bias, 0.1, 3, dtype, *geometry, "add,relu", [], y, 0.1, 3)
        found, in_place = runs(text, [x], [w, scale, bias])
        assert all(torch.equal(r[0], y) for r in found)
        assert torch.equal(x, given)  # the first residual is the caller's
        assert in_place == 3  # of five sums; the last one leaves the island


def test_a_residual_that_is_the_input_stays():
    """The product reads rows of it that it would have overwritten."""
    w, scale = random_int(S8, 32, 32), torch.rand(32) / 100 + 0.001
    call = "torch_ao::linear %{} f0.1 i3 @0 @1 n n f0.1 i3 dint8 sadd F %{} f0.1 i3"
    y = x = random_int(S8, 200, 32)
    for _ in range(3):
        y = ao.linear(y, 0.1, 3, w, scale, None, None, 0.1, 3, S8, "add", [], y, 0.1, 3)
    text = program(1, 2, [call.format(i, i) for i in range(3)], 3)
    found, in_place = runs(text, [x], [w, scale])
    assert all(torch.equal(r[0], y) for r in found) and in_place == 0


@pytest.mark.parametrize("op", [ao.add, ao.mul])
def test_binary_operators(op):
    x, y = random_int(S8, 5, 999), random_int(S8, 5, 999)
    name = op._qualified_op_name

    def line(a, b):
        return f"{name} %{a} f0.1 i3 %{b} f0.2 i-3 f0.3 i1 dint8"

    def f(a, b):
        return op(a, 0.1, 3, b, 0.2, -3, 0.3, 1, S8)

    def check(lines, results, in_place, *expected):
        found, count = runs(program(2, 0, lines, *results), [x, y])
        assert all(torch.equal(a, e) for r in found for a, e in zip(r, expected, strict=True))
        assert count == in_place

    a = f(x, y)
    b = f(a, a)
    c = f(b, y)
    check([line(0, 1), line(2, 2), line(3, 1), line(0, 4)], [5], 2, f(x, c))
    check([line(0, 1), line(2, 2), line(3, 1), line(2, 4)], [5], 1, f(a, c))  # 2 lives on beside 3
    check([line(0, 1), line(2, 2), line(3, 1), line(0, 4)], [3, 5], 0, b, f(x, c))  # 3 is the caller's
    view = "aten::reshape %2 I999,5"
    check([line(0, 1), view, line(2, 2), line(3, 3)], [4, 5], 0, b, b.reshape(999, 5))
    check([line(0, 1), view, line(2, 2), line(3, 3), line(5, 5)], [6], 1, f(b, b).reshape(999, 5))


def test_another_size_or_type_has_its_own_place():
    x, row = random_int(S8, 6, 64), random_int(S8, 64)
    lines = [
        "torch_ao::requantize %1 f0.1 i0 f0.1 i0",  # a row that is added to more rows
        "torch_ao::add %2 f0.1 i0 %0 f0.1 i0 f0.2 i0",
        "torch_ao::add %3 f0.2 i0 %3 f0.2 i0",  # floats of bytes
        "torch_ao::requantize %4 f1 i0 f0.5 i0 dint8",
    ]
    total = ao.add(row, 0.1, 0, x, 0.1, 0, 0.2, 0)
    expected = ao.requantize(ao.add(total, 0.2, 0, total, 0.2, 0, 1.0, 0, torch.float32), 1.0, 0, 0.5, 0, S8)
    lines[2] += " f1 i0 dfloat32"
    found, in_place = runs(program(2, 0, lines, 5), [x, row])
    assert all(torch.equal(r[0], expected) for r in found) and in_place == 0
