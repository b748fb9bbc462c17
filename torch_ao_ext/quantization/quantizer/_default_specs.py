"""Specs that the default configs of the quantizers are made of."""

from typing import Any

import torch

from torch_ao_ext.quantization.fake_quantize import FakeQuantize, FusedMovingAvgObsFakeQuantize
from torch_ao_ext.quantization.observer import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    PlaceholderObserver,
)
from torch_ao_ext.quantization.quantizer.quantizer import QuantizationSpec

_EPS = {"eps": 2**-12}


def activation_spec(
    dtype: torch.dtype, quant_min: int, quant_max: int, is_qat: bool, is_dynamic: bool
) -> QuantizationSpec:
    """Per tensor, affine: a histogram; a moving average under QAT; nothing to record when dynamic."""
    factory: Any
    if is_qat and is_dynamic:
        observer = MovingAverageMinMaxObserver.with_args(averaging_constant=1)
        factory = FakeQuantize.with_args(observer=observer, **_EPS)
    elif is_qat:
        factory = FusedMovingAvgObsFakeQuantize.with_args(**_EPS)
    else:
        factory = (PlaceholderObserver if is_dynamic else HistogramObserver).with_args(**_EPS)
    return QuantizationSpec(
        dtype=dtype,
        quant_min=quant_min,
        quant_max=quant_max,
        qscheme=torch.per_tensor_affine,
        is_dynamic=is_dynamic,
        observer_or_fake_quant_ctr=factory,
    )


def weight_spec(quant_min: int, quant_max: int, is_qat: bool, per_channel: bool) -> QuantizationSpec:
    """int8, symmetric, per output channel (axis 0) or per tensor."""
    factory: Any
    if is_qat:
        observer = MovingAveragePerChannelMinMaxObserver if per_channel else MovingAverageMinMaxObserver
        factory = FusedMovingAvgObsFakeQuantize.with_args(observer=observer, **_EPS)
    else:
        factory = (PerChannelMinMaxObserver if per_channel else MinMaxObserver).with_args(**_EPS)
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=quant_min,
        quant_max=quant_max,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0,
        is_dynamic=False,
        observer_or_fake_quant_ctr=factory,
    )
