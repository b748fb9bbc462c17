"""Public names of torch.ao.quantization, and the small parts that have no page of their own."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantizable, sparse
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization.observer import (
    AffineQuantizedObserverBase,
    MappingType,
    PerAxis,
    PerBlock,
    PerGroup,
    PerRow,
    PerTensor,
    PerToken,
    TorchAODType,
    ZeroPointDomain,
    get_block_size,
)

MODULES = [
    "nn.intrinsic", "nn.intrinsic.qat", "nn.intrinsic.quantized", "nn.intrinsic.quantized.dynamic", "nn.qat",
    "nn.qat.dynamic", "nn.quantizable", "nn.quantized", "nn.quantized.dynamic", "nn.quantized.functional",
    "quantization.fuse_modules", "quantization.fuser_method_mappings", "quantization.observer",
    "quantization.fake_quantize", "quantization.qconfig_mapping", "quantization.quant_type",
    "quantization.quantize", "quantization.stubs", "pruning",
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_modules_have_the_public_names_of_torch_ao(name):
    theirs = importlib.import_module(f"torch.ao.{name}")
    mine = importlib.import_module(f"torch_ao_ext.{name}")
    names = getattr(theirs, "__all__", None) or [n for n in vars(theirs) if n[0].isalpha() and n[0].isupper()]
    assert [n for n in names if not hasattr(mine, n)] == []


def test_granularities_against_torch_ao():
    theirs = importlib.import_module("torch.ao.quantization.observer")
    for mine, other in (
        (PerTensor(), theirs.PerTensor()), (PerAxis(1), theirs.PerAxis(1)), (PerGroup(3), theirs.PerGroup(3)),
        (PerRow(), theirs.PerRow()), (PerToken(), theirs.PerToken()),
    ):  # fmt: skip
        assert get_block_size((4, 6), mine) == theirs.get_block_size((4, 6), other)
    assert get_block_size((2, 4, 6), PerAxis(-1)) == (2, 4, 1) and get_block_size(
        (4, 6), PerBlock((2, 3))
    ) == (2, 3)
    assert PerAxis(1) == PerAxis(1) != PerAxis(0) and hash(PerGroup(3)) == hash(PerGroup(3))
    for kind in ("MappingType", "ZeroPointDomain", "TorchAODType"):
        assert [m.name for m in getattr(tq, kind)] == [m.name for m in getattr(theirs, kind)]


@pytest.mark.parametrize(
    "granularity, message",
    [
        (PerAxis(2), r"axis must be in \[-2, 2\), got 2"),
        (PerGroup(4), r"blocks must divide the shape \[4, 6\], got \[1, 4\]"),
        (PerBlock((2,)), r"blocks must divide the shape \[4, 6\], got \[2\]"),
        (PerGroup(0), "blocks must divide"),
        (PerTensor, "'granularity' must be an instance of a Granularity"),
    ],
)
def test_granularity_refusals(granularity, message):
    with pytest.raises(ValueError, match=message):
        get_block_size((4, 6), granularity)


class Largest(AffineQuantizedObserverBase):
    """Records the largest magnitude."""

    def forward(self, input):
        self.original_dtype, self.block_size = input.dtype, get_block_size(input.shape, self.granularity)
        self.most = float(input.abs().max())
        return input

    def calculate_qparams(self):
        return torch.tensor([self.most / 127]), torch.tensor([0])


def test_an_observer_of_the_user():
    observer = Largest.with_args(granularity=PerTensor())(MappingType.SYMMETRIC, torch.int8)
    x = torch.tensor([[1.0, -12.7]])
    assert observer(x) is x and observer.block_size == (1, 2)
    assert float(observer.calculate_qparams()[0]) == pytest.approx(0.1)
    assert observer.zero_point_domain is ZeroPointDomain.INT and TorchAODType.INT4.name == "INT4"
    with pytest.raises(ValueError, match="Largest: argument 'granularity' must be a Granularity, got None"):
        Largest(MappingType.SYMMETRIC, torch.int8, None)


def test_tables():
    assert tq.get_quantized_operator(F.elu) is nnq.functional.elu
    with pytest.raises(ValueError, match="get_quantized_operator: argument 'float_op' must be one of .*elu"):
        tq.get_quantized_operator(F.relu)
    assert set(tq.get_default_float_to_quantized_operator_mappings()) >= {F.elu, F.hardswish, F.leaky_relu}
    assert tq.get_default_static_sparse_quant_module_mappings() == {nn.Linear: sparse.quantized.Linear}
    assert tq.get_default_dynamic_sparse_quant_module_mappings() == {
        nn.Linear: sparse.quantized.dynamic.Linear
    }
    assert tq.no_observer_set() == {quantizable.LSTM, quantizable.MultiheadAttention}
    assert {nn.Conv2d, nnq.Conv2d, nnq.dynamic.Linear} <= tq.get_default_compare_output_module_list()


def test_default_eval_fn():
    seen = []
    tq.default_eval_fn(seen.append, [("a", 1), ("b", 2)])
    assert seen == ["a", "b"] and tq.get_combined_dict({1: 1}, {1: 2}) == {1: 2}
