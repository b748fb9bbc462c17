"""Files whose digests fit and whose contents do not: the text names what is wrong."""

import copy

import pytest
import safetensors.torch
import torch
from saved_models import (
    join,
    manifest_of,
    sign,
    sign_tensors,
    small_file,
    small_float_model,
    small_model,
    split,
)
from torch import nn

from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext.quantization import float_qparams_weight_only_qconfig, quantize_dynamic


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


class File:
    """A good file taken apart."""

    def __init__(self, path):
        self.path = path
        self.header, self.body = split(small_file(path))
        self.manifest = manifest_of(self.header)

    def set(self, name, values, dtype=None, shape=None):
        """Other contents for a tensor, of the old size in bytes."""
        begin, end = self.header[name]["data_offsets"]
        data = values.numpy().tobytes() if values is not None else None
        if data is not None:
            assert len(data) == end - begin, (len(data), end - begin)
            self.body = self.body[:begin] + data + self.body[end:]
        self.header[name]["dtype"] = dtype or self.header[name]["dtype"]
        self.header[name]["shape"] = shape or self.header[name]["shape"]

    def write(self, signed=True):
        if signed:
            sign_tensors(self.header, self.body, self.manifest)
        self.path.write_bytes(join(self.header, self.body))


def fails(path, match, model_fn=None):
    """All ways to load raise this; a live model keeps its outputs."""
    live = quantize_dynamic(small_float_model())
    x = torch.randn(4, 24)
    before, state = live(x), copy.deepcopy(live.state_dict())
    buffers = [(id(b), b._version) for b in live.buffers()]
    for options in ({}, {"model_fn": model_fn or small_float_model}, {"into": live}):
        with pytest.raises(ValueError, match=match) as caught:
            load_quantized(path, **options)
        assert str(caught.value).startswith(f"load_quantized: '{path}': ")
    assert torch.equal(live(x), before)
    assert all(torch.equal(v, state[k]) for k, v in live.state_dict().items())
    assert buffers == [(id(b), b._version) for b in live.buffers()]


SCALES = [0.0, -1.0, float("nan"), float("inf"), 1e-40, -0.0]


@pytest.mark.parametrize("value", SCALES)
def test_scale_values(path, value):
    file = File(path)
    file.set("3.weight_scale", torch.tensor([value]))
    file.write()
    fails(path, r"tensor '3.weight_scale' must hold positive normal numbers, got .* at 0")


@pytest.mark.parametrize("value", [128, -129, -(2**31), 2**31 - 1])
def test_zero_point_values(path, value):
    file = File(path)
    file.set("3.weight_zero_point", torch.tensor([value], dtype=torch.int32))
    file.write()
    fails(path, rf"tensor '3.weight_zero_point' must hold integers in \[-128, 127\], got {value} at 0")


def test_bias_values(path):
    file = File(path)
    bias = torch.zeros(40)
    bias[7] = float("nan")
    file.set("0.qbias", bias)
    file.write()
    fails(path, "tensor '0.qbias' must be finite, got nan at 7")


@pytest.mark.parametrize(
    "name, dtype, shape, match",
    [
        ("0.qweight", "U8", None, "'0.qweight' must have dtype torch.int8, got torch.uint8"),
        ("0.qweight", None, [24, 40], r"0.qweight.*\[24, 40\].*\[40, 24\]"),
        ("0.qweight", None, [960], r"0.qweight.*\[960\].*\[40, 24\]"),
        ("0.weight_scale", "I32", None, "'0.weight_scale' must have dtype torch.float32, got torch.int32"),
        ("0.weight_scale", None, [1, 1], "0.weight_scale"),
        ("3.weight_zero_point", "F32", None, "'3.weight_zero_point' must have dtype torch.int32"),
        ("3.weight_zero_point", None, [1, 1, 1], "3.weight_zero_point"),
        ("0.qbias", "I32", None, "'0.qbias' must have dtype torch.float32, got torch.int32"),
        ("0.qbias", None, [4, 10], "0.qbias"),
        ("0.act_quant", None, [3, 1], "0.act_quant"),
        ("0.act_quant", "F32", [6], "'0.act_quant' must have dtype torch.int64, got torch.float32"),
        ("0.format_version", None, [1], "0"),
        ("2.weight", "I32", None, "'2.weight' must have dtype torch.float32, got torch.int32"),
        ("2.weight", None, [20, 2], r"'2.weight' must have shape \[40\], got \[20, 2\]"),
    ],
)
def test_dtypes_and_shapes(path, name, dtype, shape, match):
    file = File(path)
    file.set(name, None, dtype, shape)
    file.write()
    if name == "0.format_version":  # torch reads a [1] tensor as a scalar
        assert torch.equal(load_quantized(path)(torch.ones(1, 24)), small_model()(torch.ones(1, 24)))
    else:
        fails(path, match)


def test_newer_module_format(path):
    file = File(path)
    file.set("3.format_version", torch.tensor(99))
    file.write()
    fails(path, "3.format_version must be <= 1, got 99; upgrade torch_ao_ext")


@pytest.mark.parametrize(
    "version, match",
    [
        ("2", "'torch_ao_ext.format_version' must be <= 1, got 2; upgrade"),
        ("9" * 5000, "must be <= 1, got 999.*upgrade"),
        ("0", "must be a positive integer, got '0'"),
        ("-1", "must be a positive integer, got '-1'"),
        ("1.0", "must be a positive integer"),
        ("", "must be a positive integer, got ''"),
        ("١", "must be a positive integer"),
    ],
)
def test_format_versions(path, version, match):
    file = File(path)
    sign(file.header, file.manifest, version)
    file.write(signed=False)
    fails(path, match)


def rename(file, old, new):
    file.header[new] = file.header.pop(old)
    file.manifest["tensors"][new] = file.manifest["tensors"].pop(old)


def test_missing_and_extra_tensors(path):
    for old, new, match in (
        ("0.qweight", "0.qweigh", "'0.qweight"),
        ("2.bias", "2.bia", "tensor '2.bias' of the model must be in the file"),
        ("0.qbias", "4.qbias", "tensor '4.qbias' must have a module in the model"),
        ("3.weight_scale", "3.scale", "'3.weight_scale'"),
    ):
        file = File(path)
        rename(file, old, new)
        file.write()
        fails(path, match)
    file = File(path)
    rename(file, "0.qbias", "1.qbias")
    file.write()
    fails(path, "tensor '1.qbias' must have a place in the model, got none")
    file = File(path)
    del file.manifest["tensors"]["2.bias"]
    sign(file.header, file.manifest)
    file.write(signed=False)
    fails(path, "tensor '2.bias' must not be in the file")
    file = File(path)
    file.manifest["tensors"]["2.more"] = "00000000"
    sign(file.header, file.manifest)
    file.write(signed=False)
    fails(path, "tensor '2.more' must be in the file")


def linear(**change):
    return ["quantized.dynamic.Linear", {"in_features": 24, "out_features": 40, "bias_": True, **change}]


def test_module_entries(path):
    """The manifest's modules, with a digest that fits."""
    for entry, match in (
        (linear(in_features=25), "0"),
        (linear(in_features=-1), "module '0'"),
        (linear(in_features="24"), "module '0'"),
        (linear(in_features=None), "module '0'"),
        (linear(in_features=2**62, out_features=2**62), "module '0'"),
        (linear(in_features=2**200), "module '0'"),
        (linear(more=1), "module '0'.*'more'"),
        (["quantized.dynamic.Lstm", {}], "must be of a known type, got 'quantized.dynamic.Lstm'; upgrade"),
        (["os.system", {"command": "true"}], "module '0' must be of a known type, got 'os.system'"),
        (["quantized.dynamic.Linear", {"in_features": {}}], "manifest 'modules' has a malformed entry '0'"),
        (["quantized.dynamic.Linear"], "manifest 'modules' has a malformed entry '0'"),
        (7, "manifest 'modules' has a malformed entry '0'"),
    ):
        file = File(path)
        file.manifest["modules"]["0"] = entry
        file.write()
        fails(path, match)


@pytest.mark.parametrize(
    "text, match",
    [
        ("[]", "manifest must have the keys"),
        ("{}", "manifest must have the keys"),
        ("{", "manifest|Expecting"),
        ('{"writer": 1, "writer": 2}', "the key 'writer' appears twice"),
        ("[" * 100_000, "nested too deeply"),
        ("null", "manifest must have the keys"),
        ("1e999", "manifest must have the keys"),
        ('"\\ud800"', "manifest must have the keys"),
    ],
)
def test_manifest_texts(path, text, match):
    file = File(path)
    sign(file.header, text)
    file.write(signed=False)
    fails(path, match)


def test_aliases(path):
    for table, key, value in (
        ("tied", "2.other", "none"), ("tied", "2.bias", "2.bias"), ("tied", "2.x", 3),
        ("shared", "9", "8"), ("shared", "0", "3"), ("shared", "3", {}),
    ):  # fmt: skip
        file = File(path)
        file.manifest[table][key] = value
        file.write()
        fails(path, f"manifest '{table}' has a malformed entry '{key}'")
    file = File(path)
    file.manifest["shared"]["1.1"] = ""
    file.write()
    with pytest.raises(ValueError, match="must not share the root module"):
        load_quantized(path)


def test_modules_that_contain_each_other(path):
    file = File(path)
    file.manifest["modules"].update({"5": ["nn.Sequential", {}], "6": ["nn.Sequential", {}]})
    file.manifest["shared"].update({"5.0": "6", "6.0": "5"})
    file.write()
    with pytest.raises(ValueError, match="no module must contain itself"):
        load_quantized(path)


def test_shared_modules_do_not_multiply_the_work(path):
    """30 levels of one module under two names: 2^30 paths, 30 modules."""
    file = File(path)
    name = "5"
    for _ in range(30):
        file.manifest["modules"][name] = ["nn.Sequential", {}]
        file.manifest["shared"][name + ".1"] = name + ".0"
        name += ".0"
    file.manifest["modules"][name] = ["nn.ReLU", {}]
    file.write()
    assert len(list(load_quantized(path).modules())) == 5 + 31


def test_deep_modules(path):
    file = File(path)
    for depth in range(1, 1200):
        file.manifest["modules"]["5" + ".0" * (depth - 1)] = ["nn.Sequential", {}]
    file.write()
    with pytest.raises(ValueError, match="nested less deeply"):
        load_quantized(path)


def test_too_many_modules(path):
    file = File(path)
    file.manifest["modules"].update({str(i): ["nn.ReLU", {}] for i in range(5, 5000)})
    file.write()
    with pytest.raises(ValueError, match="4999 modules, more than 4096|modules, more than"):
        load_quantized(path)


def test_embedding_rows(path):
    """Scales and biases inside the rows, and the format beside them."""
    spec = {nn.Embedding: float_qparams_weight_only_qconfig}
    save_quantized(quantize_dynamic(nn.Sequential(nn.Embedding(5, 12)), spec), path)
    good = path.read_bytes()
    for name, at, value, match in (
        ("0.qweight", 2 * 20 + 12, b"\0\0\xc0\x7f", "module '0' must have finite scale and bias.* in row 2"),
        ("0.row_format", 0, b"\x03", "0.row_format must be"),
        ("0.row_format", 8, b"\x0d", "0.row_format must be"),
        ("0.row_format", 0, b"\x04", "0.qweight"),
    ):
        header, body = split(good)
        begin = header[name]["data_offsets"][0] + at
        body = body[:begin] + value + body[begin + len(value) :]
        sign_tensors(header, body, manifest_of(header))
        path.write_bytes(join(header, body))
        with pytest.raises(ValueError, match=match):
            load_quantized(path)


def test_other_files(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        load_quantized(path)
    with pytest.raises(OSError):
        load_quantized(tmp_path)
    path.write_bytes(b"")
    fails(path, "must have at least 8 bytes, got 0")
    torch.save({}, path)
    fails(path, "header must")
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    fails(path, "metadata must have 'torch_ao_ext.format_version'")


def test_models_that_do_not_fit(path):
    save_quantized(small_model(), path)
    with pytest.raises(ValueError, match="module '3'.* must be in the model that model_fn made"):
        load_quantized(path, lambda: nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.LayerNorm(40)))
    with pytest.raises(ValueError, match=r"'2.weight' must have shape \[41\], got \[40\]"):
        load_quantized(path, lambda: nn.Sequential(nn.ReLU(), nn.ReLU(), nn.LayerNorm(41), nn.ReLU()))
    with pytest.raises(ValueError, match="must return an nn.Module, got int"):
        load_quantized(path, lambda: 3)
    with pytest.raises(RuntimeError, match="must work on the meta device.*KeyError: 'x'") as caught:
        load_quantized(path, lambda: {}["x"])
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ValueError, match="module '0' must be quantized.dynamic.Linear, got Linear"):
        load_quantized(path, into=small_float_model())
    other = quantize_dynamic(nn.Sequential(nn.Linear(24, 41), nn.ReLU(), nn.LayerNorm(41), nn.Linear(41, 8)))
    with pytest.raises(ValueError, match=r"module '0'.*must have \{.*40.*\}, got \{.*41.*\} in the model"):
        load_quantized(path, into=other)


def test_arguments(path):
    save_quantized(small_model(), path)
    for options, match in (
        ({"model_fn": 3}, "argument 'model_fn' must be callable, got int"),
        ({"into": 3}, "argument 'into' must be an nn.Module, got int"),
        ({"into": nn.ReLU(), "model_fn": nn.ReLU}, "argument 'into' must be None"),
        ({"dtype": torch.float16}, "argument 'dtype' must be torch.float32.* or None, got torch.float16"),
    ):
        with pytest.raises(ValueError, match=f"load_quantized: {match}"):
            load_quantized(path, **options)
