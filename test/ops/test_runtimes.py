"""Every public overload gives eager's bits under each way to run a graph."""

import io
import itertools
import shutil

import pytest
import torch
from op_samples import SERVICE, overload, registered, samples

NAMES = sorted(name for name in registered() - SERVICE if not name.startswith("_"))


def is_tensor(value):
    return isinstance(value, torch.Tensor)


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


class Calls(torch.nn.Module):
    """The first two samples of each op in one forward: one graph, one compilation."""

    def __init__(self):
        super().__init__()
        given = samples()
        self.calls = [(overload(name), call) for name in NAMES for call in given[name][:2]]

    def tensors(self):
        return tuple(a for _, call in self.calls for a in call if is_tensor(a))

    def forward(self, *tensors):
        results = []
        left = iter(tensors)
        for op, call in self.calls:
            result = op(*[next(left) if is_tensor(a) else a for a in call])
            results += as_tuple(result)
        return tuple(results)


def assert_same(got, expected):
    for a, b in itertools.zip_longest(got, expected):
        assert a.dtype == b.dtype and torch.equal(a, b)


@pytest.fixture(name="calls")
def _calls():
    return Calls()


@pytest.fixture(name="program")
def _program(calls):
    return torch.export.export(calls, calls.tensors())


def test_all_ops_are_in(calls):
    assert {op for op, _ in calls.calls} == {overload(name) for name in NAMES} and len(NAMES) >= 19


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(calls, dynamic):
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(calls, fullgraph=True, dynamic=dynamic)
        assert_same(compiled(*calls.tensors()), calls(*calls.tensors()))


def test_export_save_load(calls, program):
    used = {node.target for node in program.graph.nodes if node.op == "call_function"}
    assert {op for op, _ in calls.calls} <= used
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    assert_same(loaded(*calls.tensors()), calls(*calls.tensors()))


class OfSizes(torch.nn.Module):
    """Operators that take sizes, of an image and a sequence whose sizes are free."""

    def forward(self, image, tokens):
        ops, q, height, width = torch.ops.torch_ao, (0.1, 0), image.shape[2], image.shape[3]
        out, last = (0.05, 0, torch.int8), [tokens.shape[-1]]
        return (
            ops.interpolate(image, *q, *q, None, [2 * height, width + 1], "bilinear"),
            ops.layer_norm(tokens, *q, None, None, *out, [tokens.shape[1], *last]),
            ops.rms_norm(tokens, *q, None, *out, last),
            ops.add_layer_norm(tokens, *q, tokens, *q, None, None, *out, last),
            *ops.add_layer_norm_sum(tokens, *q, tokens, *q, None, None, *out, last),
        )


@pytest.mark.parametrize("how", ["export", "compile"])
def test_sizes_may_be_symbols(how):
    def inputs(*sizes):
        return tuple(torch.randint(0, 256, size, dtype=torch.uint8) for size in sizes)

    example, other = inputs((1, 3, 5, 6), (2, 7, 6)), inputs((1, 3, 8, 9), (2, 4, 11))
    model, free = OfSizes(), torch.export.Dim.DYNAMIC
    if how == "export":
        run = torch.export.export(
            model, example, dynamic_shapes=({2: free, 3: free}, {1: free, 2: free})
        ).module()
    else:
        run = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for call in (example, other):
        assert_same(run(*call), model(*call))


def test_aot_inductor(calls, program, tmp_path):
    assert shutil.which("g++"), "AOTInductor needs g++, as the build of this library does"
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "m.pt2"))
        loaded = torch._inductor.aoti_load_package(path)
        assert_same(loaded(*calls.tensors()), calls(*calls.tensors()))


def literal(value):
    if isinstance(value, torch.dtype):
        return str(value)
    return "torch.jit.annotate(List[float], [])" if value == [] else repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_script_save_load(name):
    for call in samples()[name]:
        tensors = [a for a in call if is_tensor(a)]
        names = iter(f"t{i}" for i in range(len(tensors)))
        arguments = ", ".join(next(names) if is_tensor(a) else literal(a) for a in call)
        packet = name.partition(".")[0]  # TorchScript picks the overload by the arguments
        # A class for each: TorchScript shares the methods of modules of one class.
        scripted = type("Scripted", (torch.jit.ScriptModule,), {})()
        scripted.define(
            f"def forward(self, {', '.join(f't{i}' for i in range(len(tensors)))}):\n"
            f"    return torch.ops.torch_ao.{packet}({arguments})\n"
        )
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
        buffer.seek(0)
        got, expected = torch.jit.load(buffer)(*tensors), overload(name)(*call)
        assert_same(as_tuple(got), as_tuple(expected))
