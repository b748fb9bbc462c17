"""torch_ao::island: programs of several operators, and programs that are no programs."""

import concurrent.futures
import random
import warnings

import pytest
import torch
from op_cases import random_int
from op_samples import ISLAND as PROGRAM

import torch_ao_ext
from torch_ao_ext.ops.island import read_program

ao = torch.ops.torch_ao
U8, S8, F32 = torch.uint8, torch.int8, torch.float32



def tensors():
    torch.manual_seed(0)
    weight, scale, bias = random_int(S8, 6, 10), torch.rand(6) * 0.1 + 0.01, torch.randn(6)
    return [torch.randn(4, 10)], [weight, scale, bias]


def by_hand(x, weight, scale, bias):
    q = ao.quantize_per_tensor(x, 0.05, 128, 0, 255, U8)
    y = ao.linear(q, 0.05, 128, weight, scale, None, bias, 0.1, 3, U8, "relu")
    return ao.requantize(y, 0.1, 3, 0.02, 0, S8, "clamp", [-1.5, float("inf")]), torch.cat([y, y], 1)


def test_equals_the_operators():
    inputs, constants = tensors()
    expected = by_hand(*inputs, *constants)
    actual = torch_ao_ext.ops.island(inputs, constants, PROGRAM)
    assert len(actual) == 2
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype and torch.equal(a, e)


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_opcheck(rows):
    inputs, constants = tensors()
    torch.library.opcheck(ao.island.default, ([inputs[0][:rows]], constants, PROGRAM))


def test_packed_weight_stays_with_the_constant():
    inputs, constants = tensors()
    for _ in range(3):
        ao.island(inputs, constants, PROGRAM)
    assert ao._pack_count(constants[0]) == 1


def test_results_share_no_memory():
    x = torch.randn(3, 4)
    program = "torch_ao.island 1 inputs=1 constants=0\naten::t %0\naten::relu %0\nreturn %1 %0 %2 %2"
    given = ao.island([x], [], program)
    assert torch.equal(given[0], x.t()) and torch.equal(given[1], x) and torch.equal(given[3], x.relu())
    storages = [t.untyped_storage().data_ptr() for t in [x, *given]]
    assert len(set(storages)) == len(storages)


def test_results_with_gaps_become_contiguous():
    x = torch.randn(3, 8)
    program = "torch_ao.island 1 inputs=1 constants=0\naten::relu %0\n"
    program += "aten::slice.Tensor %1 i1 i0 i3 i1\nreturn %2"
    for given in (x, x[:1].expand(3, 8)):
        y = ao.island([given], [], program)[0]
        assert torch.equal(y, given.relu()[:, :3]) and y.is_contiguous()
        assert ao.island([given.to("meta")], [], program)[0].stride() == y.stride()


def chain(steps, keep=()):
    lines = [f"torch_ao::requantize %{i} f0.1 i0 f0.1 i0 n s" for i in range(steps)]
    results = " ".join(f"%{i}" for i in [*keep, steps])
    return "\n".join(["torch_ao.island 1 inputs=1 constants=0", *lines, f"return {results}"])


def test_memory_is_planned_for_each_size():
    program = chain(20)
    for size in (1000, 5000):
        x = random_int(S8, size)
        for _ in range(3):
            assert torch.equal(ao.island([x], [], program)[0], x)
    plans = ao._island_plans(program)
    # nineteen results inside, two of them at a time; sizes in multiples of 64
    assert plans == [[2 * 1024, 19 * 1024, 20, 0], [2 * 5056, 19 * 5056, 20, 0]]


def test_results_outlive_the_plan():
    program = chain(6, keep=(3,))
    x = random_int(S8, 300)
    held = [ao.island([x], [], program) for _ in range(4)]
    ao.island([torch.zeros_like(x)], [], program)
    assert all(torch.equal(r, x) for results in held for r in results)
    grown = held[-1][0]
    grown.resize_(1 << 20)
    assert torch.equal(grown[:300], x)


def test_plans_of_several_threads():
    program = chain(12)
    tensors = [random_int(S8, 400 + 100 * (i % 3)) for i in range(8)]

    def work(x):
        return all(torch.equal(ao.island([x], [], program)[0], x) for _ in range(200))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, tensors))


def test_an_observer_that_keeps_results_gets_no_overwritten_ones():
    """The profiler may hold tensors of steps: a place in use is not given out again."""
    program = chain(8)
    x = random_int(S8, 300)
    for _ in range(3):
        with torch.profiler.profile(record_shapes=True, profile_memory=True) as profile:
            assert torch.equal(ao.island([x], [], program)[0], x)
    names = [event.name for event in profile.events()]
    assert names.count("torch_ao::requantize") == 8


def test_read_program():
    steps, results = read_program(PROGRAM)
    assert [s.label for s in steps] == ["stem", "stem.fc", "act", ""] and results == [3, 4]
    assert steps[1].target is ao.linear.default and steps[1].argument("weight") == "@0"
    assert steps[1].argument("other_zero_point") == "i0" and steps[0].argument("nothing") is None


BAD = [
    ("", "start with"),
    ("torch_ao.island 2 inputs=1 constants=3\nreturn %0", "start with"),
    ("torch_ao.island 1 inputs=1 constants=3", "end with a line 'return"),
    ("torch_ao.island 1 inputs=-1 constants=3\nreturn %0", "hold 'inputs=<count>'"),
    ("torch_ao.island 1 inputs=1 constants=99999999999\nreturn %0", "hold 'constants=<count>'"),
    (PROGRAM.replace("return %3 %4", "return"), "end with a line 'return"),
    (PROGRAM.replace("return %3 %4", "return %5"), "name a value below 5"),
    (PROGRAM.replace("return %3 %4", "return @0"), "return values"),
    (PROGRAM.replace("%1 f0.05", "%2 f0.05"), "name a value below 2"),
    (PROGRAM.replace("@2", "@3"), "name a constant below 3"),
    (PROGRAM.replace("aten::cat", "aten::from_file"), "name an operator that islands know"),
    (PROGRAM.replace("torch_ao::linear ", "torch_ao::island "), "name an operator that islands know"),
    (PROGRAM.replace("torch_ao::linear ", "torch_ao::_repack "), "name an operator that islands know"),
    (PROGRAM.replace("i3 duint8", "i3 dcomplex64"), "hold a dtype of"),
    (PROGRAM.replace("i3 duint8", "i3 i0"), "give 'output_dtype' a dtype by name"),
    (PROGRAM.replace("aten::cat T%2,%2 i1", "aten::softmax.int %2 i1 i99"), "give 'dtype' a dtype by name"),
    (PROGRAM.replace("aten::cat T%2,%2 i1", "aten::contiguous %2 i4"), "give 'memory_format' a memory"),
    (PROGRAM.replace("f0.1 i3 duint8", "fzero i3 duint8"), "hold a number"),
    (PROGRAM.replace("i128 @0", "f1.0 @0"), "give 'input_zero_point' a int"),
    (PROGRAM.replace("i128 @0", "%0 @0"), "give 'input_zero_point' no tensor"),
    (PROGRAM.replace("i128 @0", "T%0 @0"), "give 'input_zero_point' no list of tensors"),
    (PROGRAM.replace("T%2,%2", "T%2,2"), "list tensors as %<n> or @<n>"),
    (PROGRAM.replace("i128 @0", "q1 @0"), "hold arguments of the kinds"),
    (PROGRAM.replace("T%2,%2 i1", "T%2,%2 "), "separate arguments by one space"),
    (PROGRAM.replace("f1.0 i0 # stem.fc", "f1.0 i0 n n n n"), "at most 18 arguments"),
    (PROGRAM.replace(" f0.05 i128 i0 i255 duint8", " f0.05"), "give torch_ao::quantize_per_tensor its"),
]


@pytest.mark.parametrize(("program", "rule"), BAD, ids=range(len(BAD)))
def test_a_bad_program(program, rule):
    with pytest.raises(ValueError, match=r"torch_ao::island: argument 'program' must ") as caught:
        ao.island(*tensors(), program)
    assert rule in str(caught.value)
    with pytest.raises(ValueError, match="argument 'program' must"):
        ao.island(*[[t.to("meta") for t in part] for part in tensors()], program)


def test_other_bad_arguments():
    inputs, constants = tensors()
    with pytest.raises(ValueError, match="island: argument 'inputs' must hold 1 tensors.*got 0"):
        ao.island([], constants, PROGRAM)
    with pytest.raises(ValueError, match="island: argument 'constants' must hold 3 tensors.*got 4"):
        ao.island(inputs, [*constants, inputs[0]], PROGRAM)
    with pytest.raises(TypeError, match="'inputs' must hold dense CPU tensors, got layout Sparse"):
        ao.island([inputs[0].to_sparse()], constants, PROGRAM)
    for device in ("cpu", "meta"):
        here, there = [[t.to(device) for t in part] for part in (inputs, constants)]
        with pytest.raises(TypeError, match="'inputs' must suit.*'stem.fc' says: torch_ao::linear: argument"):
            ao.island(here, [there[0].int(), *there[1:]], PROGRAM)
        with pytest.raises(ValueError, match="step 'stem.fc' says: torch_ao::linear: argument 'input' must"):
            ao.island([here[0][:, :9]], there, PROGRAM)
    with pytest.raises(TypeError, match="island: argument 'constants' must be on the meta device"):
        ao.island(here, constants, PROGRAM)


STEP = "torch_ao.island {} inputs=1 constants={}\n{}\nreturn %1"


def test_a_step_keeps_the_type_of_its_error():
    says = "torch_ao::island: argument 'inputs' must suit .* says: torch_ao::"
    quantize = STEP.format(1, 0, "torch_ao::quantize_per_tensor %0 f0.1 i0 i0 i255 duint8")
    with pytest.raises(torch.OutOfMemoryError, match=f"{says}quantize_per_tensor"):
        ao.island([torch.ones(1).expand(2**50)], [], quantize)
    softmax = STEP.format(1, 0, "torch_ao::softmax %0 i7 f1.0 i0 f1.0 i0 n n")
    with pytest.raises(IndexError, match=f"{says}softmax: argument 'dim'"):
        ao.island([torch.randn(3, 4)], [], softmax)
    linear = STEP.format(1, 2, "torch_ao::linear_dynamic %0 @0 @1 n n")
    ao._set_engine("native")
    try:
        with pytest.raises(NotImplementedError, match=f"{says}linear_dynamic: no engine accepts"):
            ao.island([torch.ones(1, 300000)], [torch.ones(4, 300000, dtype=S8), torch.ones(1)], linear)
    finally:
        ao._set_engine("")


def test_constants_are_checked_like_inputs():
    shrunken = torch.randn(40, 50)
    shrunken.untyped_storage().resize_(4)
    program = STEP.format(1, 1, "aten::cat T%0,@0 i0")
    with pytest.raises(ValueError, match="'constants' must have a storage of at least 2000 elements"):
        ao.island([torch.randn(2, 50)], [shrunken], program)


def test_memory_format():
    x = torch.randn(2, 3, 4, 5)
    program = "torch_ao.island 1 inputs=1 constants=0\naten::contiguous %0 i2\nreturn %1"
    assert ao.island([x], [], program)[0].is_contiguous(memory_format=torch.channels_last)


RETURNS = "torch_ao.island 1 inputs=1 constants=0\naten::t %0\nreturn %0"


def test_inputs_that_no_operator_looks_at():
    """Operators of ATen trust a tensor; an input may also be a result."""
    shrunken = torch.randn(40, 50)
    shrunken.untyped_storage().resize_(4)
    with pytest.raises(ValueError, match="'inputs' must have a storage of at least 2000 elements"):
        ao.island([shrunken], [], RETURNS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells a process once that they are deprecated
        quantized = torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 0, torch.qint8)
    with pytest.raises(TypeError, match="'inputs' must hold tensors of no quantized dtype, got qint8"):
        ao.island([quantized], [], RETURNS)
    with pytest.raises(torch.OutOfMemoryError, match="torch_ao::island: argument 'inputs' must need no more"):
        ao.island([torch.ones(1).expand(2**40, 2**20)], [], RETURNS)


def test_damaged_programs():
    """Returns or raises in the words of the contract, whatever stands in the text."""
    rng = random.Random(0)
    inputs, constants = tensors()
    alphabet = "%@nifbsdIFT0123456789,. -:\n#returnatolch_"
    raised = 0
    for _ in range(3000):
        text = list(PROGRAM)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            kind = rng.randrange(3)
            if kind == 0:
                text[at] = rng.choice(alphabet)
            elif kind == 1:
                del text[at : at + rng.randint(1, 20)]
            else:
                text.insert(at, rng.choice(alphabet) * rng.randint(1, 3))
        try:
            ao.island(inputs, constants, "".join(text))
        except (ValueError, TypeError, IndexError, NotImplementedError, torch.OutOfMemoryError) as error:
            raised += 1
            assert str(error).startswith("torch_ao::island: argument '"), str(error)
    assert raised > 1500


def test_backward_raises():
    inputs, constants = tensors()
    program = "torch_ao.island 1 inputs=1 constants=3\n"
    program += "torch_ao::linear_dynamic %0 @0 @1 n @2\nreturn %1"
    y = ao.island([inputs[0].requires_grad_()], constants, program)[0]
    with pytest.raises(NotImplementedError, match="torch_ao::island: backward is not implemented"):
        y.sum().backward()
