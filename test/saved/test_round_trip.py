"""save_quantized and load_quantized: bit-equal models by every way of loading."""

import copy
import multiprocessing
import pickle
import subprocess
import sys

import pytest
import spawned_model
import torch
from saved_models import (
    MODELS,
    SELF_DESCRIBED,
    SPECS,
    Conv1D,
    Kinds,
    Tied,
    first,
    kinds_model,
    small_float_model,
)
from torch import nn

import torch_ao_ext
from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext.nn.intrinsic import LinearReLU
from torch_ao_ext.nn.quantized import DeQuantize, Quantize
from torch_ao_ext.nn.quantized.dynamic import Linear
from torch_ao_ext.nn.sparse import quantized as sparse
from torch_ao_ext.nn.sparse.quantized import to_sparse_int8
from torch_ao_ext.ops import service
from torch_ao_ext.quantization import (
    default_dynamic_qconfig,
    get_default_dynamic_quant_module_mappings,
    quantize_dynamic,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def loads(name, path):
    make, _ = MODELS[name]
    yield "model_fn", load_quantized(path, make)
    yield "meta=False", load_quantized(path, make, meta=False)
    yield "into", load_quantized(path, into=quantize_dynamic(make(), SPECS.get(name)))
    if name in SELF_DESCRIBED:
        yield "file alone", load_quantized(path)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()  # under gradients float attention is torch's, and not all that is loaded has them
def test_loaded_models_are_bit_equal(path, name):
    make, inputs = MODELS[name]
    model = quantize_dynamic(make(), SPECS.get(name))
    save_quantized(model, path)
    x = inputs()
    expected = first(model(*x))
    for how, loaded in loads(name, path):
        assert torch.equal(first(loaded(*x)), expected), how
        assert not any(m.training for m in loaded.modules()), how
        assert [type(m) for m in loaded.modules()] == [type(m) for m in model.modules()], how
        state = loaded.state_dict()
        assert state.keys() == model.state_dict().keys(), how
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items()), how
        rows = [(r.fqn, r.status, r.engine) for r in torch_ao_ext.report(loaded).rows]
        assert rows == [(r.fqn, r.status, r.engine) for r in torch_ao_ext.report(model).rows], how


def test_packed_once_at_load_and_not_again(path):
    model = quantize_dynamic(small_float_model())
    save_quantized(model, path)
    loaded = load_quantized(path)
    loaded(torch.randn(3, 24))
    assert [service.pack_count(loaded[i].qweight) for i in (0, 3)] == [1, 1]
    lazy = load_quantized(path, dtype=None)
    assert service.pack_count(lazy[0].qweight) == 0
    x = torch.randn(3, 24)
    assert torch.equal(lazy(x), model(x)) and service.pack_count(lazy[0].qweight) == 1


def test_bfloat16(path):
    model = quantize_dynamic(small_float_model().bfloat16())
    save_quantized(model, path)
    loaded = load_quantized(path, lambda: small_float_model().bfloat16(), dtype=torch.bfloat16)
    x = torch.randn(3, 24).bfloat16()
    assert torch.equal(loaded(x), model(x)) and service.pack_count(loaded[0].qweight) == 1
    with pytest.raises(ValueError, match="'2.weight' must have dtype torch.float32, got torch.bfloat16"):
        load_quantized(path, small_float_model)


def test_tied_tensors_and_shared_modules(path):
    save_quantized(quantize_dynamic(Tied()), path)
    loaded = load_quantized(path, Tied)
    assert loaded.first is loaded.again and loaded.first.qweight is loaded.second.qweight
    assert loaded.first.qbias is not loaded.second.qbias
    assert service.pack_count(loaded.first.qweight) == 2  # two biases
    assert torch.equal(loaded.offset, torch.arange(12.0))
    assert path.stat().st_size < 4096


def test_torch_ao_rules_are_kept(path):
    layer = quantize_dynamic(small_float_model(), {nn.Linear: default_dynamic_qconfig})
    save_quantized(layer, path)
    loaded = load_quantized(path)
    assert loaded[0].dynamic_quant == layer[0].dynamic_quant and not loaded[0].is_default
    into = quantize_dynamic(small_float_model())
    assert into[0].is_default
    load_quantized(path, into=into)
    x = torch.randn(3, 24)
    assert torch.equal(into(x), layer(x)) and not into[0].is_default


def test_linear_relu(path):
    def make():
        return nn.Sequential(LinearReLU(nn.Linear(6, 4), nn.ReLU()))

    model = quantize_dynamic(make())
    save_quantized(model, path)
    x = torch.randn(3, 6)
    for loaded in (load_quantized(path), load_quantized(path, make)):
        assert type(loaded[0]) is type(model[0]) and torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("make", [
    lambda: nn.Sequential(nn.LSTM(5, 6, 2, bidirectional=True, proj_size=3)),
    lambda: nn.Sequential(nn.GRU(5, 6, bias=False, batch_first=True)),
])  # fmt: skip
def test_recurrent(path, make):
    model = quantize_dynamic(make())
    save_quantized(model, path)
    x = torch.randn(4, 3, 5)
    for loaded in (load_quantized(path), load_quantized(path, make)):
        assert type(loaded[0]) is type(model[0]) and torch.equal(loaded(x)[0], model(x)[0])


@pytest.mark.parametrize("into", [True, False])
def test_a_layer_of_each_family(path, into):
    model, x = kinds_model(), torch.randint(0, 11, (3, 5))
    save_quantized(model, path)
    other = to_sparse_int8(model)
    with torch.no_grad():
        other.sparse.qweight.neg_()
        other.recurrent.bias_ih_l0.add_(1)
    assert not torch.equal(other(x), model(x))
    loaded = load_quantized(path, into=other) if into else load_quantized(path, Kinds)
    assert torch.equal(loaded(x), model(x))
    assert [type(m) for m in loaded.modules()] == [type(m) for m in model.modules()]


@pytest.mark.parametrize("k", [20, 40000, 200000])
def test_sparse_layers_alone(path, k):
    """Their buffers have the sizes and the index type that the file says; no density need agree."""
    for block in ((1, 4), (8, 1)):
        layer = sparse.dynamic.Linear(k, 9, *block)
        dense = torch.randint(-3, 4, (9, k), dtype=torch.int8) * (torch.rand(9, k) < 0.05)
        layer._set_blocks(dense.to(torch.int8), block)
        save_quantized(nn.Sequential(layer), path)
        x = torch.randn(2, k)
        into = nn.Sequential(sparse.dynamic.Linear(k, 9, *block))
        for loaded in (load_quantized(path), load_quantized(path, into=into)):
            assert torch.equal(loaded(x), layer(x)) and loaded[0].block_shape == block


def test_static_sparse_layer(path):
    layer = sparse.Linear(20, 9)
    layer._set_blocks(torch.randint(-3, 4, (9, 20), dtype=torch.int8), (1, 4))
    layer.scale, layer.zero_point = torch.tensor(0.5), torch.tensor(3)
    model = nn.Sequential(Quantize(0.1, 7, torch.quint8), layer, DeQuantize())
    save_quantized(model, path)
    x = torch.randn(2, 20)
    assert torch.equal(load_quantized(path)(x), model(x)) and model(x).any()


def test_every_int8_module_of_the_mapping_is_known():
    """A new quantized module needs its line in the registry."""
    from torch_ao_ext._saved import registry

    known = {entry.cls for entry in registry.QUANTIZED.values()}
    mapped = set(get_default_dynamic_quant_module_mappings().values())
    assert mapped <= known, f"add to torch_ao_ext/_saved/registry.py: {mapped - known}"


def test_reasons_and_hooks(path):
    spec = {"0": default_dynamic_qconfig}
    save_quantized(quantize_dynamic(small_float_model(), spec), path)
    assert torch_ao_ext.report(load_quantized(path)).rows[-1].reason == "nn.Linear not in qconfig_spec"
    calls = []

    def hooked():
        model = small_float_model()
        model[0].register_forward_hook(lambda *_: calls.append(1))
        return model

    load_quantized(path, hooked)(torch.randn(2, 24))
    assert calls == [1]


def test_model_fn_runs_on_the_meta_device(path):
    save_quantized(quantize_dynamic(small_float_model()), path)
    devices = []

    def spy():
        model = small_float_model()
        devices.append(model[0].weight.device.type)
        return model

    load_quantized(path, spy)
    load_quantized(path, spy, meta=False)
    assert devices == ["meta", "cpu"]


def test_a_lost_plain_tensor_is_reported(path):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.table = torch.ones(4)

        def forward(self, x):
            return self.fc(x) + self.table

    model = quantize_dynamic(Table())
    save_quantized(model, path)
    with pytest.raises(ValueError, match="plain attribute 'table'.*meta=False"):
        load_quantized(path, Table)
    x = torch.randn(2, 4)
    assert torch.equal(load_quantized(path, Table, meta=False)(x), model(x))


def test_copies_of_a_loaded_model(path):
    save_quantized(quantize_dynamic(small_float_model()), path)
    loaded = load_quantized(path)
    x = torch.randn(3, 24)
    expected = loaded(x)
    for other in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert torch.equal(other(x), expected)
    torch.save(loaded.state_dict(), path.with_suffix(".pt"))
    other = quantize_dynamic(small_float_model())
    other.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
    assert torch.equal(other(x), expected)
    again = path.with_name("again.safetensors")
    save_quantized(loaded, again)
    assert again.read_bytes() == path.read_bytes()
    save_quantized(loaded, path)  # over the mapped file
    assert torch.equal(loaded(x), expected) and torch.equal(load_quantized(path)(x), expected)


def test_writes_to_a_loaded_model_stay_in_memory(path):
    save_quantized(quantize_dynamic(small_float_model()), path)
    before = path.read_bytes()
    loaded, untouched = load_quantized(path), load_quantized(path)
    with torch.no_grad():
        loaded[0].qweight.fill_(1)
        loaded[2].weight.fill_(2)
    x = torch.randn(3, 24)
    assert not torch.equal(loaded(x), untouched(x))
    assert path.read_bytes() == before and int(untouched[0].qweight.sum()) != loaded[0].qweight.numel()


def test_fresh_process_and_no_pickle(path):
    """The file alone, in a process where unpickling raises."""
    model = quantize_dynamic(small_float_model())
    save_quantized(model, path)
    x = torch.arange(72.0).reshape(3, 24) / 50
    torch.save({"x": x, "y": model(x)}, path.with_suffix(".pt"))
    code = (
        "import sys, torch, pickle, torch_ao_ext\n"
        "case = torch.load(sys.argv[2], weights_only=True)\n"
        "def refuse(*a, **k): raise AssertionError('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = torch.load = refuse\n"
        "model = torch_ao_ext.load_quantized(sys.argv[1])\n"
        "assert torch.equal(model(case['x']), case['y'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path, path.with_suffix(".pt")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_spawned_processes(path):
    save_quantized(quantize_dynamic(small_float_model()), path)
    model = load_quantized(path)
    x = torch.randn(3, 24)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    arguments = (str(path), pickle.dumps(model), x.tolist(), queue)
    process = context.Process(target=spawned_model.run, args=arguments)
    process.start()
    from_file, from_pickle = queue.get(timeout=120)
    process.join(60)
    expected = model(x).tolist()
    assert from_file == expected and from_pickle == expected and process.exitcode == 0


def test_conv1d_becomes_linear(path):
    model = quantize_dynamic(nn.Sequential(Conv1D(6, 12)))
    save_quantized(model, path)
    assert type(load_quantized(path)[0]) is Linear


@pytest.mark.parametrize(
    "model, text",
    [
        (3, "argument 'model' must be a Python nn.Module, got int"),
        (nn.Linear(3, 3), "argument 'model' must have an int8 module, got none"),
        (nn.Sequential(Linear(3, 3).to("meta")), "tensor '0.qweight' must be a dense CPU tensor.*on meta"),
        (nn.Sequential(Linear(3, 3), nn.LazyLinear(2)), "tensor '1.weight' must be initialised"),
    ],
)
def test_save_errors(path, model, text):
    with pytest.raises(ValueError, match=f"save_quantized: {text}"):
        save_quantized(model, path)
    assert not list(path.parent.iterdir())


def test_save_refuses_subclasses_and_extra_state(path):
    class Mine(Linear):
        pass

    class Extra(nn.Module):
        def get_extra_state(self):
            return object()

    with pytest.raises(ValueError, match="module '0' must be of a type that files know, got Mine"):
        save_quantized(nn.Sequential(Mine(3, 3)), path)
    with pytest.raises(ValueError, match="module '1' must not have extra state"):
        save_quantized(nn.Sequential(Linear(3, 3), Extra()), path)


def test_views_are_saved_whole(path):
    layer = quantize_dynamic(nn.Sequential(nn.Linear(8, 4)))
    layer[0].qweight = torch.arange(64, dtype=torch.int8).reshape(8, 8)[::2]
    save_quantized(layer, path)
    assert torch.equal(load_quantized(path)[0].qweight, layer[0].qweight)
