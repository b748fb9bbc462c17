"""The written format: files of every version load, the same model gives the same bytes."""

import json
import re
import zlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from make_fixture import DATA, Net
from saved_models import manifest_of, small_model, split
from torch import nn

import torch_ao_ext
from torch_ao_ext import load_quantized, save_quantized
from torch_ao_ext._saved import container, registry
from torch_ao_ext._saved.manifest import FORMAT_VERSION, Manifest, crc32_tensor

DOCS = Path(__file__).parents[2] / "docs" / "saved_models.md"


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_files_of_every_version_load(version):
    stem = DATA / f"v{version}"
    case = json.loads(stem.with_suffix(".json").read_text())
    model = load_quantized(stem.with_suffix(".safetensors"), Net)
    # Attention and norm are torch's float kernels: their last bits differ between CPUs, which
    # may move an activation by one step.
    torch.testing.assert_close(
        model(torch.tensor(case["ids"])), torch.tensor(case["output"]), rtol=0, atol=2e-2
    )
    assert model.again is model.mlp[1]
    assert model.head.weight_zero_point.tolist() == list(range(11))
    rows = {row.fqn: row.reason for row in torch_ao_ext.report(model).rows}
    assert rows["mlp.2"] == "qconfig_spec says None"


def test_fixtures_are_small():
    assert all(file.stat().st_size < 20_000 for file in DATA.iterdir())


def test_the_same_model_gives_the_same_bytes(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    save_quantized(small_model(), first)
    save_quantized(small_model(), second)
    assert first.read_bytes() == second.read_bytes()


def test_other_readers_see_plain_tensors(tmp_path):
    """Any safetensors reader gets the state_dict; data is aligned to its dtype."""
    path = tmp_path / "model.safetensors"
    model = small_model()
    save_quantized(model, path)
    tensors = safetensors.torch.load_file(path)
    state = model.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(v, state[k]) and v.dtype == state[k].dtype for k, v in tensors.items())
    header, body = split(path.read_bytes())
    start = path.stat().st_size - len(body)
    for name, tensor in tensors.items():
        assert (start + header[name]["data_offsets"][0]) % tensor.element_size() == 0


def test_manifest_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    save_quantized(small_model(), path)
    header, _ = split(path.read_bytes())
    assert set(header["__metadata__"]) == {
        "format", container.VERSION, container.MANIFEST, container.MANIFEST_CRC,
    }  # fmt: skip
    manifest = Manifest.loads(header["__metadata__"][container.MANIFEST])
    assert manifest.dumps() == header["__metadata__"][container.MANIFEST]
    assert manifest_of(header)["modules"]["1"] == ["nn.ReLU", {}]


def test_digest_covers_dtype_and_shape():
    t = torch.arange(8, dtype=torch.int8)
    other = [t.view(torch.uint8), t.reshape(2, 4), t.reshape(4, 2), t.view(torch.int32)]
    other += [t[:0], t[:0].reshape(0, 2)]
    assert len({crc32_tensor(x) for x in [t, *other]}) == 7


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5), (1300, 1700)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.bfloat16, torch.float64])
def test_digest_is_crc32_of_text_and_bytes(shape, dtype):
    t = torch.randint(0, 2, shape).to(dtype)
    data = f"{dtype} {list(shape)}".encode() + bytes(t.reshape(-1).view(torch.uint8).tolist())
    assert crc32_tensor(t) == f"{zlib.crc32(data):08x}"


def test_documentation_lists_types_and_keys():
    text = DOCS.read_text()
    for name in (*registry.QUANTIZED, *registry.FLOAT):
        assert f"`{name}`" in text, name
    for name in (container.VERSION, container.MANIFEST, container.MANIFEST_CRC):
        assert f"`{name}`" in text, name
    for name in Manifest.__dataclass_fields__:
        assert re.search(rf"^\| `{name}` \|", text, re.M), name
    for number in (container.MAX_HEADER >> 20, container.MAX_COMMAS):
        assert f"{number:,}" in text


def test_registry_arguments_rebuild_each_type():
    """Each line of the registry makes the module that it describes."""
    samples = [
        nn.LeakyReLU(0.3), nn.GELU("tanh"), nn.Softmax(-1), nn.Dropout(0.25), nn.Flatten(0, 1),
        nn.Linear(3, 4, bias=False), nn.Embedding(5, 4, padding_idx=1),
        nn.LayerNorm([3, 4], eps=0.5, bias=False),
        nn.LayerNorm(4, elementwise_affine=False), nn.Identity(), nn.ReLU(), nn.ReLU6(), nn.SiLU(),
        nn.Hardswish(), nn.Tanh(), nn.Sigmoid(), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
    ]  # fmt: skip
    names = set()
    for module in samples:
        name = registry.name_of(module, registry.FLOAT)
        names.add(name)
        made = registry.FLOAT[name].make(json.loads(json.dumps(registry.FLOAT[name].args_of(module))))
        assert repr(made) == repr(module)
    assert names | {"nn.Sequential", "nn.ModuleList", "nn.ModuleDict"} == set(registry.FLOAT)
