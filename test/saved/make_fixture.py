"""Makes data/v<format>.safetensors and .json: `python test/saved/make_fixture.py`.

Run once for each format version, by the code that first wrote it. The files are never
made again: later versions must load them.
"""

import json
from pathlib import Path

import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext._saved.manifest import FORMAT_VERSION
from torch_ao_ext.nn.intrinsic import LinearReLU
from torch_ao_ext.quantization import default_dynamic_qconfig, per_channel_dynamic_qconfig, quantize_dynamic

DATA = Path(__file__).parent / "data"


class Net(nn.Module):
    """Every kind of module and entry that format 1 has."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.mlp = nn.Sequential(
            LinearReLU(nn.Linear(16, 24), nn.ReLU()), nn.Linear(24, 16), nn.Linear(16, 16, bias=False)
        )
        self.again = self.mlp[1]
        self.head = nn.Linear(16, 11, bias=False)
        self.register_buffer("shift", torch.linspace(-1, 1, 16), persistent=False)

    def forward(self, ids):
        x = self.embed(ids) + self.shift
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = self.mlp(x)
        return self.head(self.again(torch.cat([x, x[..., :8]], -1)))


def main():
    torch.manual_seed(1)
    spec = {
        nn.Linear: per_channel_dynamic_qconfig,
        LinearReLU: default_dynamic_qconfig,
        "mlp.2": None,
        **dict.fromkeys([nn.MultiheadAttention], default_dynamic_qconfig),
    }
    model = quantize_dynamic(Net(), spec)
    model.head.weight_zero_point = torch.arange(11, dtype=torch.int32)
    ids = torch.arange(8).reshape(2, 4)
    stem = DATA / f"v{FORMAT_VERSION}"
    torch_ao_ext.save_quantized(model, stem.with_suffix(".safetensors"))
    output = model(ids)
    stem.with_suffix(".json").write_text(json.dumps({"ids": ids.tolist(), "output": output.tolist()}) + "\n")


if __name__ == "__main__":
    main()
