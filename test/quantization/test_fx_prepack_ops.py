"""fx.utils.get_linear_prepack_op_for_dtype and get_qconv_prepack_op: which operators pack weights."""

import importlib

import pytest
import torch
import torch.nn.functional as F

from torch_ao_ext.ops import service
from torch_ao_ext.quantization.fx import utils

CONVOLUTIONS = [getattr(F, f"conv{kind}{rank}d") for kind in ("", "_transpose") for rank in (1, 2, 3)]


def theirs():
    return importlib.import_module("torch.ao.quantization.fx.utils")


def weights(*sizes):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-128, 128, sizes, dtype=torch.int8, generator=generator)
    return weight, torch.rand(4, generator=generator) / 100 + 0.01


@pytest.mark.parametrize("dtype", [torch.qint8, torch.int8])
def test_linear(dtype):
    prepack = utils.get_linear_prepack_op_for_dtype(dtype)
    weight, scale = weights(4, 8)
    x = torch.randint(0, 128, (5, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert prepack(weight, scale, None, None, torch.uint8, 0.1, 7, 0.2, 60) is None
    assert service.pack_count(weight) == 1 and service.explain_weight(weight)["states"]
    found = torch.ops.torch_ao.linear(x, 0.1, 7, weight, scale, None, None, 0.2, 60)
    assert service.pack_count(weight) == 1  # the call found it
    int8 = torch._make_per_channel_quantized_tensor(weight, scale.double(), torch.zeros(4).long(), 0)
    peer = theirs().get_linear_prepack_op_for_dtype(torch.qint8)(int8, None)
    want = torch.ops.quantized.linear(torch._make_per_tensor_quantized_tensor(x, 0.1, 7), peer, 0.2, 60)
    assert (found.int() - want.int_repr().int()).abs().max() <= 1


def test_other_dtypes():
    with pytest.raises(Exception, match="can't get linear prepack op"):
        theirs().get_linear_prepack_op_for_dtype(torch.float32)
    for dtype in (torch.float32, torch.float16, torch.quint8):
        with pytest.raises(ValueError, match=f"get_linear_prepack_op_for_dtype: .*'dtype' must.*got {dtype}"):
            utils.get_linear_prepack_op_for_dtype(dtype)


@pytest.mark.parametrize("function", CONVOLUTIONS, ids=lambda function: function.__name__)
def test_convolutions(function):
    rank, transposed = int(function.__name__[-2]), "transpose" in function.__name__
    op = utils.get_qconv_prepack_op(function)
    assert op is getattr(torch.ops.torch_ao, function.__name__).default
    weight, scale = weights(4, 4, *[3] * rank)
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 128, (2, 4, *[5] * rank), dtype=torch.uint8, generator=generator)
    first = op(x, 0.1, 7, weight, scale, None, None, 0.3, 60)
    assert service.pack_count(weight) == 1
    assert torch.equal(op(x, 0.1, 7, weight, scale, None, None, 0.3, 60), first)
    assert service.pack_count(weight) == 1  # packed once
    axis = 1 if transposed else 0
    w = weight.double() * scale.double().reshape([-1 if i == axis else 1 for i in range(rank + 2)])
    real = function((x.double() - 7) * 0.1, w)
    want = (real / 0.3).round().add(60).clamp(0, 255)
    assert (first.double() - want).abs().max() <= 1


def test_other_functions():
    for function in (F.linear, F.relu):
        for place in (utils, theirs()):
            with pytest.raises(AssertionError):
                place.get_qconv_prepack_op(function)
