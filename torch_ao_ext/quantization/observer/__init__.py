"""Observers: statistics of tensors and the qparams that follow from them.

Names, constructor arguments and arithmetic are those of torch.ao's observer
module; dtypes are accepted in both spellings (torch.int8 and torch.qint8). What is
not a number has no range: a NaN raises, infinities are left out with a warning.
"""

import torch

from torch_ao_ext.quantization.observer._base import (
    _QINT8,
    _QUINT8,
    ObserverBase,
    UniformQuantizationObserverBase,
    _PartialWrapper,  # noqa: F401  (torch.ao users import it from here)
)
from torch_ao_ext.quantization.observer._granularity import *  # noqa: F403
from torch_ao_ext.quantization.observer._granularity import __all__ as _granularity_names
from torch_ao_ext.quantization.observer._histogram import HistogramObserver
from torch_ao_ext.quantization.observer._min_max import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torch_ao_ext.quantization.observer._plain import (
    FixedQParamsObserver,
    NoopObserver,
    PlaceholderObserver,
    RecordingObserver,
    ReuseInputObserver,
)
from torch_ao_ext.quantization.observer._state import (
    get_observer_state_dict,
    load_observer_state_dict,
)
from torch_ao_ext.quantization.observer._weights import (
    ChannelWeightObserver,
    MixedWeightObserver,
    RowPlaceholderObserver,
)

__all__ = [
    "ChannelWeightObserver",
    "FixedQParamsObserver",
    "HistogramObserver",
    "MinMaxObserver",
    "MixedWeightObserver",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "NoopObserver",
    "ObserverBase",
    "PerChannelMinMaxObserver",
    "PlaceholderObserver",
    "RecordingObserver",
    "ReuseInputObserver",
    "RowPlaceholderObserver",
    "UniformQuantizationObserverBase",
    "default_affine_fixed_qparams_observer",
    "default_channel_weight_observer",
    "default_debug_observer",
    "default_dynamic_quant_observer",
    "default_fixed_qparams_range_0to1_observer",
    "default_fixed_qparams_range_neg1to1_observer",
    "default_float_qparams_observer",
    "default_float_qparams_observer_4bit",
    "default_histogram_observer",
    "default_observer",
    "default_per_channel_weight_observer",
    "default_placeholder_observer",
    "default_reuse_input_observer",
    "default_row_quant_observer",
    "default_symmetric_fixed_qparams_observer",
    "default_weight_observer",
    "get_observer_state_dict",
    "load_observer_state_dict",
    "mixed_weight_observer",
    "mse_channel_weight_observer",
    "per_channel_weight_observer_range_neg_127_to_127",
    "weight_observer_range_neg_127_to_127",
    *_granularity_names,
]

# 7 bits, as torch.ao's x86 kernels need; this library's do not.
default_observer = MinMaxObserver.with_args(quant_min=0, quant_max=127)
default_histogram_observer = HistogramObserver.with_args(quant_min=0, quant_max=127)
default_debug_observer = RecordingObserver
default_reuse_input_observer = ReuseInputObserver
# Outputs of tanh and of sigmoid.
default_fixed_qparams_range_neg1to1_observer = FixedQParamsObserver.with_args(
    scale=2.0 / 256.0, zero_point=128, dtype=_QUINT8, quant_min=0, quant_max=255
)
default_fixed_qparams_range_0to1_observer = FixedQParamsObserver.with_args(
    scale=1.0 / 256.0, zero_point=0, dtype=_QUINT8, quant_min=0, quant_max=255
)
default_symmetric_fixed_qparams_observer = default_fixed_qparams_range_neg1to1_observer
default_affine_fixed_qparams_observer = default_fixed_qparams_range_0to1_observer
default_placeholder_observer = PlaceholderObserver
default_dynamic_quant_observer = PlaceholderObserver.with_args(
    dtype=_QUINT8, quant_min=0, quant_max=255, is_dynamic=True
)
default_weight_observer = MinMaxObserver.with_args(dtype=_QINT8, qscheme=torch.per_tensor_symmetric)
weight_observer_range_neg_127_to_127 = MinMaxObserver.with_args(
    dtype=_QINT8, qscheme=torch.per_tensor_symmetric, quant_min=-127, quant_max=127, eps=2**-12
)
default_per_channel_weight_observer = PerChannelMinMaxObserver.with_args(
    dtype=_QINT8, qscheme=torch.per_channel_symmetric
)
per_channel_weight_observer_range_neg_127_to_127 = PerChannelMinMaxObserver.with_args(
    dtype=_QINT8, qscheme=torch.per_channel_symmetric, quant_min=-127, quant_max=127, eps=2**-12
)
# Rows of embedding tables.
default_float_qparams_observer = PerChannelMinMaxObserver.with_args(
    dtype=_QUINT8, qscheme=torch.per_channel_affine_float_qparams, ch_axis=0
)
default_float_qparams_observer_4bit = PerChannelMinMaxObserver.with_args(
    dtype=getattr(torch, "quint4x2", None), qscheme=torch.per_channel_affine_float_qparams, ch_axis=0
)

# This library's defaults, without counterpart in torch.ao.
default_row_quant_observer = RowPlaceholderObserver
default_channel_weight_observer = ChannelWeightObserver
mixed_weight_observer = MixedWeightObserver
mse_channel_weight_observer = ChannelWeightObserver.with_args(search="mse")
