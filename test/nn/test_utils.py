"""nn.quantized.modules.utils against torch.ao's."""

import warnings

import pytest
import torch
from torch import nn

from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.nn.quantized.modules import utils
from torch_ao_ext.quantization import default_per_channel_weight_observer, default_weight_observer


@pytest.mark.parametrize("factory", [default_weight_observer, default_per_channel_weight_observer])
def test_weights_against_torch_ao(factory):
    warnings.simplefilter("ignore")
    from torch.ao.nn.quantized.modules import utils as theirs

    torch.manual_seed(0)
    weight, observer = torch.randn(6, 3, 2, 2), factory()
    observer(weight)
    want, have = theirs._quantize_weight(weight, observer), utils._quantize_weight(weight, observer)
    assert torch.equal(want.int_repr(), have.int_repr())
    assert torch.allclose(want.dequantize(), have.dequantize())
    observer.quant_min, observer.quant_max = -20, 30
    cut = utils._clamp_weights(have, observer, None, None)
    assert torch.equal(cut.int_repr(), want.int_repr().clamp(-20, 30))


def test_base_class_and_helpers():
    assert issubclass(nnq.Linear, utils.WeightedQuantizedModule)
    assert issubclass(nnq.Conv2d, utils.WeightedQuantizedModule)
    assert utils._pair_from_first([3, 4]) == (3, 3) and utils._ntuple_from_first(3)(2) == (2, 2, 2)
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    assert "Linear" not in utils._hide_packed_params_repr(model, nn.Linear)
    assert "ReLU" in utils._hide_packed_params_repr(model, nn.Linear)
