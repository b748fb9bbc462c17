"""What detectors have in common, and the configs that they give reasons for."""

from abc import ABC, abstractmethod
from typing import Any

from torch import fx, nn

from torch_ao_ext.quantization.fx._equalize import EqualizationQConfig, default_equalization_qconfig
from torch_ao_ext.quantization.fx._model_report._layers import Layer
from torch_ao_ext.quantization.fx._model_report.model_report_observer import ModelReportObserver
from torch_ao_ext.quantization.observer import (
    default_dynamic_quant_observer,
    default_observer,
    default_per_channel_weight_observer,
    default_weight_observer,
)
from torch_ao_ext.quantization.qconfig import QConfig

__all__ = [
    "DETECTOR_IS_POST_OBS_KEY",
    "DETECTOR_OBS_ARGS_KEY",
    "DETECTOR_OBS_TO_INSERT_KEY",
    "DETECTOR_TARGET_NODE_KEY",
    "DetectorBase",
    "DetectorQConfigInfo",
    "insertion",
]

DETECTOR_TARGET_NODE_KEY = "target_node"
DETECTOR_OBS_TO_INSERT_KEY = "observer_to_insert"
DETECTOR_IS_POST_OBS_KEY = "is_post_observer"
DETECTOR_OBS_ARGS_KEY = "observer_args"


def insertion(layer: Layer, observer: ModelReportObserver, post: bool) -> dict[str, Any]:
    """An entry of `determine_observer_insert_points`: an observer before or behind a layer."""
    return {
        DETECTOR_TARGET_NODE_KEY: layer.node,
        DETECTOR_OBS_TO_INSERT_KEY: observer,
        DETECTOR_IS_POST_OBS_KEY: post,
        DETECTOR_OBS_ARGS_KEY: (layer.node if post else layer.source,),
    }


class DetectorQConfigInfo:
    """What detectors advise for a layer.

    Args:
        module_fqn: name of the layer.
    """

    def __init__(self, module_fqn: str) -> None:
        self.module_fqn = module_fqn
        self.is_activation_dynamic = False
        self.is_weight_per_channel = False
        self.is_equalization_recommended = False

    def generate_quantization_qconfig(self, module: nn.Module | None = None) -> QConfig:
        """The QConfig of the advice.

        Args:
            module: torch.ao's argument; the advice knows the layer.
        """
        activation = default_dynamic_quant_observer if self.is_activation_dynamic else default_observer
        channels = self.is_weight_per_channel
        return QConfig(
            activation, default_per_channel_weight_observer if channels else default_weight_observer
        )

    def generate_equalization_qconfig(self) -> EqualizationQConfig:
        """The default one."""
        return default_equalization_qconfig


class DetectorBase(ABC):
    """Looks at one thing in a prepared graph; a subclass of yours may be given to ModelReport."""

    def __init__(self) -> None:
        super().__init__()
        self.detector_config_info = None

    @abstractmethod
    def determine_observer_insert_points(self, model: fx.GraphModule) -> dict[str, dict[str, Any]]:
        """Name of each observer that it needs -> where it goes; see `DETECTOR_*_KEY`."""

    @abstractmethod
    def get_detector_name(self) -> str:
        """Name of its report."""

    @abstractmethod
    def get_qconfig_info(self, model: fx.GraphModule) -> dict[str, DetectorQConfigInfo]:
        """Name of each layer that it has advice for -> the advice."""

    @abstractmethod
    def generate_detector_report(self, model: fx.GraphModule) -> tuple[str, dict[str, Any]]:
        """Text, and name of each layer -> what was found, by keys."""
