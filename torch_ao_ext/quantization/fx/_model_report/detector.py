"""What ModelReport looks for."""

from torch_ao_ext.quantization.fx._model_report._channel_detectors import (
    InputWeightEqualizationDetector,
    OutlierDetector,
)
from torch_ao_ext.quantization.fx._model_report._detector_base import (
    DETECTOR_IS_POST_OBS_KEY,
    DETECTOR_OBS_ARGS_KEY,
    DETECTOR_OBS_TO_INSERT_KEY,
    DETECTOR_TARGET_NODE_KEY,
    DetectorBase,
    DetectorQConfigInfo,
)
from torch_ao_ext.quantization.fx._model_report._layer_detectors import (
    DynamicStaticDetector,
    PerChannelDetector,
)

__all__ = [
    "DETECTOR_IS_POST_OBS_KEY",
    "DETECTOR_OBS_ARGS_KEY",
    "DETECTOR_OBS_TO_INSERT_KEY",
    "DETECTOR_TARGET_NODE_KEY",
    "DetectorBase",
    "DetectorQConfigInfo",
    "DynamicStaticDetector",
    "InputWeightEqualizationDetector",
    "OutlierDetector",
    "PerChannelDetector",
]
