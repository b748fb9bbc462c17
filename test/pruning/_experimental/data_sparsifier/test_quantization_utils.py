"""Sparse 8-bit embedding tables."""

import copy
import importlib
import warnings

import pytest
import torch
from torch import nn

from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.pruning._experimental.data_sparsifier import DataNormSparsifier
from torch_ao_ext.pruning._experimental.data_sparsifier.quantization_utils import (
    post_training_sparse_quantize,
)

CONFIG = {"sparsity_level": 0.5, "sparse_block_shape": (1, 4), "zeros_per_block": 4}


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.inner = nn.Embedding(24, 16), nn.Sequential(nn.EmbeddingBag(32, 8, mode="sum"))
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        return self.fc(self.words(x)), self.inner[0](x)


def torch_ao(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = "torch.ao.pruning._experimental.data_sparsifier"
        function = importlib.import_module(f"{base}.quantization_utils").post_training_sparse_quantize
        function(model, importlib.import_module(base).DataNormSparsifier, **options, **CONFIG)
    return model


@pytest.mark.parametrize("first", [True, False])
def test_tables_are_those_of_torch_ao(first):
    torch.manual_seed(0)
    model = Tables().eval()
    want = torch_ao(copy.deepcopy(model), sparsify_first=first)
    floats = copy.deepcopy(model)
    assert post_training_sparse_quantize(model, DataNormSparsifier, first, **CONFIG) is None
    assert type(model.words) is nnq.Embedding and type(model.inner[0]) is nnq.EmbeddingBag
    assert type(model.fc) is nn.Linear
    for name in ("words", "inner.0"):
        mine, other = model.get_submodule(name).weight(), want.get_submodule(name).weight()
        found = mine.dequantize()
        step = mine.q_per_channel_scales().max()
        assert (found - other.dequantize()).abs().max() <= 1.01 * step
        assert torch.equal(found.abs() <= step, other.dequantize().abs() <= step)
        weight = floats.get_submodule(name).weight
        blocks = (found.abs() <= step).reshape(-1, 4).all(1)  # real 0 is within half a step
        assert blocks.float().mean() >= 0.5
        kept = ~blocks.repeat_interleave(4).reshape(weight.shape)
        assert (found - weight)[kept].abs().max() <= step
    ids = torch.randint(0, 24, (3, 5))
    assert all(torch.isfinite(y).all() for y in model(ids))


def test_chosen_tables():
    model = Tables()
    words = model.words
    post_training_sparse_quantize(model, DataNormSparsifier, select_embeddings=[model.inner[0]], **CONFIG)
    assert model.words is words and type(model.inner[0]) is nnq.EmbeddingBag
    for chosen, got in (([model.fc], r"\['fc'\]"), ([nn.Embedding(2, 2)], r"\[None\]"), ([], "none")):
        with pytest.raises(ValueError, match=f"nn.Embedding or nn.EmbeddingBag of the model, got {got}"):
            post_training_sparse_quantize(model, DataNormSparsifier, select_embeddings=chosen)
    with pytest.raises(ValueError, match="got none"):
        post_training_sparse_quantize(nn.Sequential(nn.Linear(1, 1)), DataNormSparsifier)
