"""Models that the tests of saved files share, and files made byte by byte."""

import json
import struct
import zlib

import torch
from torch import nn

from torch_ao_ext import save_quantized
from torch_ao_ext._saved import container
from torch_ao_ext.nn.sparse.quantized import to_sparse_int8
from torch_ao_ext.quantization import (
    default_dynamic_qconfig,
    float_qparams_weight_only_qconfig,
    float_qparams_weight_only_qconfig_4bit,
    quantize_dynamic,
    quantize_weight_only,
    row_dynamic_qconfig,
)


class Tied(nn.Module):
    """Two layers with one weight, one layer under two names, a non-persistent buffer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 12)
        self.second = nn.Linear(12, 12)
        self.second.weight = self.first.weight
        self.again = self.first
        self.register_buffer("offset", torch.arange(12.0), persistent=False)

    def forward(self, x):
        return self.again(self.second(self.first(x + self.offset)))


class Conv1D(nn.Module):
    """transformers' layer: weight [K, N]."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


def sequential():
    return nn.Sequential(
        nn.Embedding(7, 12), nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU("tanh"), nn.Dropout(0.3),
        nn.Sequential(nn.Linear(20, 12, bias=False), nn.LeakyReLU(0.2)), nn.Linear(12, 3),
    )  # fmt: skip


def encoder():
    layer = nn.TransformerEncoderLayer(12, 3, 24, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def attention():
    return nn.MultiheadAttention(12, 3, add_bias_kv=True, kdim=8, vdim=9, batch_first=True)


class Tables(nn.Module):
    """Embedding tables of 8 and 4 bits beside a layer."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(7, 12, padding_idx=1)
        self.bags = nn.EmbeddingBag(9, 12, mode="mean", include_last_offset=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, ids):
        offsets = torch.arange(0, ids.numel() + 1, ids.shape[1])
        return self.fc(self.words(ids).mean(1) + self.bags(ids.reshape(-1), offsets))


def tokens():
    return (torch.randint(0, 7, (2, 5)),)


def floats():
    return (torch.randn(2, 5, 12),)


def three():
    return torch.randn(2, 5, 12), torch.randn(2, 4, 8), torch.randn(2, 4, 9)


# name -> (float model, inputs)
MODELS = {
    "sequential": (sequential, tokens),
    "root": (lambda: nn.Linear(12, 5), floats),
    "encoder": (encoder, floats),
    "attention": (attention, three),
    "tied": (Tied, floats),
    "tables": (Tables, tokens),
    "conv1d": (lambda: nn.Sequential(Conv1D(6, 12), nn.ReLU()), floats),
}
# name -> qconfig_spec, where the default leaves layers float.
SPECS = {
    "tables": {
        nn.Linear: row_dynamic_qconfig,
        nn.Embedding: float_qparams_weight_only_qconfig,
        nn.EmbeddingBag: float_qparams_weight_only_qconfig_4bit,
    }
}
# Those of known module types only.
SELF_DESCRIBED = ("sequential", "root", "attention")


def first(y):
    return y[0] if isinstance(y, tuple) else y


def small_model():
    """int8 with and without a zero point and a bias, float weights, an activation."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.LayerNorm(40), nn.Linear(40, 8, bias=False))
    spec = {"0": default_dynamic_qconfig, nn.Linear: default_dynamic_qconfig}
    model = quantize_dynamic(model, spec)
    model[3].weight_zero_point = torch.tensor([3], dtype=torch.int32)
    return model


def small_float_model():
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.LayerNorm(40), nn.Linear(40, 8, bias=False))


def small_file(path):
    save_quantized(small_model(), path)
    return path.read_bytes()


class Kinds(nn.Module):
    """One layer of each family: recurrent, tables of 8 and 4 bits, sparse, 4 and 8 bits alone."""

    def __init__(self, words=11, hidden=20, wide=40):
        super().__init__()
        self.words = nn.Embedding(words, 24, padding_idx=1)
        self.bags = nn.EmbeddingBag(9, wide, mode="sum")
        self.recurrent = nn.GRU(24, hidden, batch_first=True)
        self.four, self.eight = nn.Linear(hidden, wide), nn.Linear(wide, wide, bias=False)
        self.sparse = nn.Linear(wide, wide // 2)
        with torch.no_grad():
            self.sparse.weight[:, wide // 4 :] = 0

    def forward(self, ids):
        y = self.recurrent(self.words(ids))[0].mean(1)
        return self.sparse(self.eight(self.four(y)) + self.bags(ids % 9))


def big_kinds():
    """55 million weights, 47 MB."""
    return Kinds(400_000, 1600, 4000)


def kinds_model(make=Kinds, sparse=True):
    torch.manual_seed(6)
    tables = {nn.GRU: row_dynamic_qconfig, **{k: v for k, v in SPECS["tables"].items() if k is not nn.Linear}}
    model = quantize_dynamic(make(), tables)
    for name, bits in (("four", 4), ("eight", 8)):
        model = quantize_weight_only(model, bits, filter_fn=lambda _, n, name=name: n == name)
    model = to_sparse_int8(model) if sparse else quantize_dynamic(model)
    assert len({type(m) for m in model.children()}) == 5
    return model


def split(data):
    """Header as Python, and the bytes of the tensors."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def manifest_of(header):
    return json.loads(header["__metadata__"][container.MANIFEST])


def sign(header, manifest, version="1"):
    """Puts a manifest back with a crc that fits: damage that only its meaning shows."""
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    metadata = header["__metadata__"]
    metadata[container.MANIFEST] = text
    metadata[container.VERSION] = version
    metadata[container.MANIFEST_CRC] = f"{zlib.crc32((version + text).encode()):08x}"


_TYPES = {"I8": "int8", "U8": "uint8", "F32": "float32", "I32": "int32", "I64": "int64", "BF16": "bfloat16"}


def sign_tensors(header, body, manifest):
    """Fits every tensor's crc to the bytes, dtype and shape that the file now has."""
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            start = zlib.crc32(f"torch.{_TYPES[entry['dtype']]} {list(entry['shape'])}".encode())
            manifest["tensors"][name] = f"{zlib.crc32(body[begin:end], start):08x}"
    sign(header, manifest)
