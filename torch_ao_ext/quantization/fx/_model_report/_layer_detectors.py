"""Detectors of what holds for a layer as a whole: scales of weights, dynamic or static activations."""

from typing import Any

from torch import fx, nn

from torch_ao_ext.nn import qat
from torch_ao_ext.quantization.fx._model_report._detector_base import (
    DetectorBase,
    DetectorQConfigInfo,
    insertion,
)
from torch_ao_ext.quantization.fx._model_report._layers import (
    is_per_channel,
    observer_at,
    weighted_layers,
)
from torch_ao_ext.quantization.fx._model_report.model_report_observer import ModelReportObserver

__all__ = ["DynamicStaticDetector", "PerChannelDetector"]

_WEIGHTED = {
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, qat.Linear, qat.Conv1d, qat.Conv2d, qat.Conv3d
}  # fmt: skip


class PerChannelDetector(DetectorBase):
    """Which quantized linear layers and convolutions have a scale for each output channel.

    Args:
        backend: name of an engine, of this library or of torch.ao; all of them have such scales.

    Raises:
        ValueError: another backend.
    """

    BACKEND_KEY = "backend"
    PER_CHAN_SUPPORTED_KEY = "per_channel_quantization_supported"
    PER_CHAN_USED_KEY = "per_channel_quantization_used"

    DEFAULT_BACKEND_PER_CHANNEL_SUPPORTED_MODULES: dict[str, set[Any]] = {
        name: set(_WEIGHTED) for name in ("fbgemm", "qnnpack", "onednn", "x86", "native", "xnnpack")
    }

    def __init__(self, backend: str = "x86") -> None:
        super().__init__()
        known = self.DEFAULT_BACKEND_PER_CHANNEL_SUPPORTED_MODULES
        if backend not in known:
            raise ValueError(
                f"PerChannelDetector: argument 'backend' must be one of {', '.join(known)}, got {backend!r}"
            )
        self.backend_chosen = backend
        self.supported_modules = known[backend]

    def get_detector_name(self) -> str:
        """Returns "per_channel_detector"."""
        return "per_channel_detector"

    def determine_observer_insert_points(self, model: fx.GraphModule) -> dict[str, dict[str, Any]]:
        """Needs no observers."""
        return {}

    def get_qconfig_info(self, model: fx.GraphModule) -> dict[str, DetectorQConfigInfo]:
        """A scale for each channel wherever the backend has that."""
        found = {}
        for fqn, facts in self._facts(model).items():
            found[fqn] = DetectorQConfigInfo(fqn)
            found[fqn].is_weight_per_channel = facts[self.PER_CHAN_SUPPORTED_KEY]
        return found

    def _facts(self, model: fx.GraphModule) -> dict[str, dict[str, Any]]:
        found = {}
        for layer in weighted_layers(model):
            observer = observer_at(model, layer.node.args[1])
            if observer is not None and layer.kind in self.supported_modules:
                found[layer.fqn] = {
                    self.PER_CHAN_SUPPORTED_KEY: True,
                    self.PER_CHAN_USED_KEY: is_per_channel(observer),
                    self.BACKEND_KEY: self.backend_chosen,
                }
        return found

    def generate_detector_report(self, model: fx.GraphModule) -> tuple[str, dict[str, Any]]:
        """For each quantized layer, whether a scale for each channel is possible, and whether it is used."""
        facts = self._facts(model)
        lines = [f"Scales of weights, backend {self.backend_chosen}:"]
        for fqn, found in facts.items():
            if not found[self.PER_CHAN_USED_KEY]:
                lines.append(f"  {fqn}: one scale; a per-channel weight observer would be more accurate")
        if len(lines) == 1:
            lines.append("  every layer has a scale for each channel")
        return "\n".join(lines) + "\n", facts


class DynamicStaticDetector(DetectorBase):
    """Whether ranges change from batch to batch, so that quantization at run time is more accurate.

    S = mean range of a batch / range of all batches. Values of S above the tolerance are stationary.
    Dynamic quantization is advised where the results of a layer are not.

    Args:
        tolerance: of S, in [0, 1].
    """

    DEFAULT_PRE_OBSERVER_NAME = "model_report_pre_observer"
    DEFAULT_POST_OBSERVER_NAME = "model_report_post_observer"

    STATIONARY_STR = "stationary"
    NON_STATIONARY_STR = "non-stationary"

    INPUT_ACTIVATION_PREFIX = "input_activation_"
    OUTPUT_ACTIVATION_PREFIX = "output_activation_"

    TOLERANCE_KEY = "dynamic_static_tolerance"
    DEFAULT_DYNAMIC_REC_KEY = "dynamic_recommended"
    PRE_OBS_COMP_STAT_KEY = INPUT_ACTIVATION_PREFIX + "dynamic_static_comp_stat"
    POST_OBS_COMP_STAT_KEY = OUTPUT_ACTIVATION_PREFIX + "dynamic_static_comp_stat"
    PRE_OBS_DATA_DIST_KEY = INPUT_ACTIVATION_PREFIX + "dynamic_static_data_classification"
    POST_OBS_DATA_DIST_KEY = OUTPUT_ACTIVATION_PREFIX + "dynamic_static_data_classification"
    IS_CURRENTLY_SUPPORTED_KEY = "is_dynamic_supported"

    DEFAULT_DYNAMIC_STATIC_CHECK_SUPPORTED = {nn.Linear}
    DEFAULT_DYNAMIC_STATIC_FUTURE_SUPPORTED = {nn.Conv1d, nn.Conv2d, nn.Conv3d}

    def __init__(self, tolerance: float = 0.5) -> None:
        super().__init__()
        self.tolerance = tolerance

    def get_detector_name(self) -> str:
        """Returns "dynamic_vs_static_detector"."""
        return "dynamic_vs_static_detector"

    def determine_observer_insert_points(
        self, prepared_fx_model: fx.GraphModule
    ) -> dict[str, dict[str, Any]]:
        """Observers before and behind linear layers and convolutions."""
        found = {}
        for layer in weighted_layers(prepared_fx_model):
            before, behind = self.DEFAULT_PRE_OBSERVER_NAME, self.DEFAULT_POST_OBSERVER_NAME
            observer = ModelReportObserver(ch_axis=layer.channel_axis(1))
            found[layer.child(before)] = insertion(layer, observer, post=False)
            observer = ModelReportObserver(ch_axis=layer.channel_axis(1))
            found[layer.child(behind)] = insertion(layer, observer, post=True)
        return found

    def get_qconfig_info(self, model: fx.GraphModule) -> dict[str, DetectorQConfigInfo]:
        """Dynamic activations where they are advised and the layer has them; static ones elsewhere."""
        found = {}
        for fqn, facts in self._facts(model).items():
            found[fqn] = DetectorQConfigInfo(fqn)
            dynamic = bool(facts[self.DEFAULT_DYNAMIC_REC_KEY])
            found[fqn].is_activation_dynamic = dynamic and facts[self.IS_CURRENTLY_SUPPORTED_KEY]
        return found

    def _named(self, ratio: Any) -> str:
        return self.STATIONARY_STR if ratio > self.tolerance else self.NON_STATIONARY_STR

    def _facts(self, model: fx.GraphModule) -> dict[str, dict[str, Any]]:
        found = {}
        modules = dict(model.named_modules())
        for layer in weighted_layers(model):
            names = (self.DEFAULT_PRE_OBSERVER_NAME, self.DEFAULT_POST_OBSERVER_NAME)
            observers = [modules.get(layer.child(name)) for name in names]
            if None in observers:
                continue
            before, behind = (observer.get_batch_to_epoch_ratio() for observer in observers)
            found[layer.fqn] = {
                self.TOLERANCE_KEY: self.tolerance,
                self.DEFAULT_DYNAMIC_REC_KEY: behind <= self.tolerance,
                self.PRE_OBS_COMP_STAT_KEY: before,
                self.PRE_OBS_DATA_DIST_KEY: self._named(before),
                self.POST_OBS_COMP_STAT_KEY: behind,
                self.POST_OBS_DATA_DIST_KEY: self._named(behind),
                self.IS_CURRENTLY_SUPPORTED_KEY: layer.kind in self.DEFAULT_DYNAMIC_STATIC_CHECK_SUPPORTED,
            }
        return found

    def generate_detector_report(self, model: fx.GraphModule) -> tuple[str, dict[str, Any]]:
        """For each layer, S of its inputs and results, and what is advised.

        Raises:
            ValueError: a layer that has seen no data, or a single value.
        """
        facts = self._facts(model)
        lines = ["Dynamic or static quantization:"]
        for fqn, found in facts.items():
            before, behind = found[self.PRE_OBS_DATA_DIST_KEY], found[self.POST_OBS_DATA_DIST_KEY]
            dynamic = bool(found[self.DEFAULT_DYNAMIC_REC_KEY])
            advice = "dynamic, for accuracy" if dynamic else "static, for speed"
            line = f"  {fqn}: {advice}; its inputs are {before}, its results {behind}"
            if dynamic and not found[self.IS_CURRENTLY_SUPPORTED_KEY]:
                line += "; graphs have no dynamic form of this layer"
            if before == self.NON_STATIONARY_STR and behind == self.STATIONARY_STR:
                line += "; quantize its input at run time if it is static"
            lines.append(line)
        if len(lines) == 1:
            lines.append("  no linear layer or convolution was observed")
        return "\n".join(lines) + "\n", facts
