"""Detectors that look at channels: input-weight equalization, outliers."""

from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext.nn import qat
from torch_ao_ext.quantization.fx._model_report._detector_base import (
    DetectorBase,
    DetectorQConfigInfo,
    insertion,
)
from torch_ao_ext.quantization.fx._model_report._layers import (
    Layer,
    layers_of,
    weight_of,
    weighted_layers,
)
from torch_ao_ext.quantization.fx._model_report.model_report_observer import ModelReportObserver

__all__ = ["InputWeightEqualizationDetector", "OutlierDetector"]


class InputWeightEqualizationDetector(DetectorBase):
    """Which layers equalization of inputs and weights would help.

    For channel c, s_c = sqrt(w_c / W) / sqrt(i_c / I), with the ranges w_c of its weights and i_c of
    its inputs, W and I of all of them. A channel gains where ratio_threshold <= s_c <= 1 / ratio_threshold,
    a layer where 40 % of its channels do.

    Args:
        ratio_threshold: see above, in (0, 1).
        ch_axis: of the inputs' channels in convolutions; a linear layer has them last.

    Raises:
        ValueError: ratio_threshold out of range.
    """

    SUPPORTED_MODULES: set[Any] = {
        nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, qat.Linear, qat.Conv1d, qat.Conv2d, qat.Conv3d
    }  # fmt: skip
    DEFAULT_PRE_OBSERVER_NAME: str = "model_report_pre_observer"

    WEIGHT_PREFIX = "weight_"
    ACTIVATION_PREFIX = "input_activation_"

    PER_CHANNEL_MAX_KEY = "per_channel_max"
    PER_CHANNEL_MIN_KEY = "per_channel_min"
    GLOBAL_MAX_KEY = "global_max"
    GLOBAL_MIN_KEY = "global_min"

    RECOMMENDED_KEY = "input_weight_equalization_recommended"
    COMP_METRIC_KEY = "input_weight_channel_comparison_metrics"
    THRESHOLD_KEY = "input_weight_threshold"
    CHANNEL_KEY = "input_weight_channel_axis"

    WEIGHT_STR = "weight"
    INPUT_STR = "input"

    DEFAULT_RECOMMEND_INPUT_WEIGHT_CHANNEL_RATIO = 0.4

    def __init__(self, ratio_threshold: float, ch_axis: int = 1) -> None:
        super().__init__()
        if not 0 < ratio_threshold < 1:
            raise ValueError(
                "InputWeightEqualizationDetector: argument 'ratio_threshold' must be above 0 and below 1, "
                f"got {ratio_threshold}"
            )
        self.ratio_threshold = ratio_threshold
        self.ch_axis = ch_axis

    def get_detector_name(self) -> str:
        """Returns "input_weight_equalization_detector"."""
        return "input_weight_equalization_detector"

    def determine_observer_insert_points(
        self, prepared_fx_model: fx.GraphModule
    ) -> dict[str, dict[str, Any]]:
        """An observer before each linear layer and convolution."""
        found = {}
        for layer in weighted_layers(prepared_fx_model):
            observer = ModelReportObserver(ch_axis=layer.channel_axis(self.ch_axis))
            found[layer.child(self.DEFAULT_PRE_OBSERVER_NAME)] = insertion(layer, observer, post=False)
        return found

    def get_qconfig_info(self, model: fx.GraphModule) -> dict[str, DetectorQConfigInfo]:
        """Equalization of the layers that gain."""
        found = {}
        for fqn, facts in self._facts(model).items():
            found[fqn] = DetectorQConfigInfo(fqn)
            found[fqn].is_equalization_recommended = self._gains(facts)
        return found

    def _gains(self, facts: dict[str, Any]) -> bool:
        channels = facts[self.RECOMMENDED_KEY]
        return sum(channels) / len(channels) >= self.DEFAULT_RECOMMEND_INPUT_WEIGHT_CHANNEL_RATIO

    def _ends(self, prefix: str, low: torch.Tensor, high: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            prefix + self.PER_CHANNEL_MAX_KEY: high, prefix + self.PER_CHANNEL_MIN_KEY: low,
            prefix + self.GLOBAL_MAX_KEY: high.max(), prefix + self.GLOBAL_MIN_KEY: low.min(),
        }  # fmt: skip

    def _shares(self, ends: dict[str, torch.Tensor], prefix: str, what: str, fqn: str) -> torch.Tensor:
        """Range of each channel / range of all."""
        whole = ends[prefix + self.GLOBAL_MAX_KEY] - ends[prefix + self.GLOBAL_MIN_KEY]
        if whole == 0:
            raise ValueError(
                f"InputWeightEqualizationDetector: the {what} of layer '{fqn}' must not all be one value, "
                f"got {ends[prefix + self.GLOBAL_MAX_KEY].item()}"
            )
        return (ends[prefix + self.PER_CHANNEL_MAX_KEY] - ends[prefix + self.PER_CHANNEL_MIN_KEY]) / whole

    def _facts(self, model: fx.GraphModule) -> dict[str, dict[str, Any]]:
        modules = dict(model.named_modules())
        found = {}
        for layer in weighted_layers(model):
            observer = modules.get(layer.child(self.DEFAULT_PRE_OBSERVER_NAME))
            weight = weight_of(model, layer)
            if observer is not None and weight is not None:
                found[layer.fqn] = self._facts_of(layer.fqn, observer, weight)
        return found

    def _facts_of(self, fqn: str, observer: Any, weight: torch.Tensor) -> dict[str, Any]:
        if observer.min_val.numel() == 0:
            raise ValueError(
                f"InputWeightEqualizationDetector: layer '{fqn}' must have seen data, got no call of "
                "the model"
            )
        inputs = self._ends(self.ACTIVATION_PREFIX, observer.min_val, observer.max_val)
        low, high = torch.aminmax(weight.transpose(0, 1).flatten(1), dim=1)
        weights = self._ends(self.WEIGHT_PREFIX, low, high)
        by_input = self._shares(inputs, self.ACTIVATION_PREFIX, "inputs", fqn)
        by_weight = self._shares(weights, self.WEIGHT_PREFIX, "weights", fqn)
        # Grouped convolutions have the weights of several input channels in one place.
        by_weight = by_weight.repeat(by_input.numel() // by_weight.numel())
        ratios = by_weight.sqrt() / by_input.sqrt()
        least = self.ratio_threshold
        return {
            self.RECOMMENDED_KEY: [least <= ratio <= 1 / least for ratio in ratios.tolist()],
            self.COMP_METRIC_KEY: ratios, self.THRESHOLD_KEY: least, self.CHANNEL_KEY: self.ch_axis,
            **inputs, **weights,
        }  # fmt: skip

    def generate_detector_report(self, model: fx.GraphModule) -> tuple[str, dict[str, Any]]:
        """For each layer, s_c and ranges of its channels, and which of them gain.

        Raises:
            ValueError: a layer that has seen no data, or inputs or weights of one value.
        """
        facts = self._facts(model)
        lines = ["Equalization of inputs and weights:"]
        for fqn, found in facts.items():
            channels = found[self.RECOMMENDED_KEY]
            advice = "yes" if self._gains(found) else "no"
            lines.append(f"  {fqn}: {advice}; {sum(channels)} of {len(channels)} channels gain")
        if len(lines) == 1:
            lines.append("  no linear layer or convolution was observed")
        return "\n".join(lines) + "\n", facts


def _listed(channels: list[int], count: int) -> str:
    """How many of all channels, and the first of them."""
    first = ", ".join(map(str, channels[:8]))
    return f"{len(channels)} of {count} channels ({first}{', ...' if len(channels) > 8 else ''})"


class OutlierDetector(DetectorBase):
    """Which channels have values far above the others, before any layer of torch.nn.

    p = mean over batches of largest value / percentile; an outlier where p is above ratio_threshold.

    Args:
        ratio_threshold: see above, >= 1; 3.5 is for normally distributed values.
        reference_percentile: fraction of the values up to the percentile, in (0, 1).
        fraction_batches_used_threshold: fraction of batches that p must come from to be trusted, in [0, 1].
        ch_axis: of the channels; a linear layer has them last.

    Raises:
        ValueError: an argument out of range.
    """

    DEFAULT_PRE_OBSERVER_NAME: str = "model_report_pre_observer"
    INPUT_ACTIVATION_PREFIX = "input_activation_"

    OUTLIER_KEY = "outliers_detected"
    NUM_BATCHES_KEY = "outlier_detection_batches_used"
    IS_SUFFICIENT_BATCHES_KEY = "outlier_detection_is_sufficient_batches"
    COMP_METRIC_KEY = "outlier_detection_percentile_ratios"
    RATIO_THRES_KEY = "outlier_detection_ratio_threshold"
    REF_PERCENTILE_KEY = "outlier_detection_reference_percentile"
    CHANNEL_AXIS_KEY = "outlier_detection_channel_axis"
    MAX_VALS_KEY = INPUT_ACTIVATION_PREFIX + "per_channel_max"
    CONSTANT_COUNTS_KEY = "constant_batch_counts"

    def __init__(
        self,
        ratio_threshold: float = 3.5,
        reference_percentile: float = 0.975,
        fraction_batches_used_threshold: float = 0.95,
        ch_axis: int = 1,
    ) -> None:
        super().__init__()
        for name, value, valid, rule in (
            ("ratio_threshold", ratio_threshold, ratio_threshold >= 1, "at least 1"),
            ("reference_percentile", reference_percentile, 0 < reference_percentile < 1, "in (0, 1)"),
            (
                "fraction_batches_used_threshold", fraction_batches_used_threshold,
                0 <= fraction_batches_used_threshold <= 1, "in [0, 1]",
            ),
        ):  # fmt: skip
            if not valid:
                raise ValueError(f"OutlierDetector: argument '{name}' must be {rule}, got {value}")
        self.ratio_threshold = ratio_threshold
        self.reference_percentile = reference_percentile
        self.fraction_batches_used_threshold = fraction_batches_used_threshold
        self.ch_axis = ch_axis

    def get_detector_name(self) -> str:
        """Returns "outlier_detector"."""
        return "outlier_detector"

    def determine_observer_insert_points(
        self, prepared_fx_model: fx.GraphModule
    ) -> dict[str, dict[str, Any]]:
        """An observer before each layer that has the channel axis."""
        found = {}
        for layer in layers_of(prepared_fx_model):
            axis = layer.channel_axis(self.ch_axis)
            if layer.source.meta["val"].dim() > axis:
                observer = ModelReportObserver(ch_axis=axis, comp_percentile=self.reference_percentile)
                found[layer.child(self.DEFAULT_PRE_OBSERVER_NAME)] = insertion(layer, observer, post=False)
        return found

    def get_qconfig_info(self, model: fx.GraphModule) -> dict[str, DetectorQConfigInfo]:
        """No advice."""
        return {}

    def _facts(self, model: fx.GraphModule) -> dict[str, dict[str, Any]]:
        modules = dict(model.named_modules())
        looked = [
            (layer, modules.get(layer.child(self.DEFAULT_PRE_OBSERVER_NAME))) for layer in layers_of(model)
        ]
        return {
            layer.fqn: self._facts_of(layer, observer) for layer, observer in looked if observer is not None
        }

    def _facts_of(self, layer: Layer, observer: Any) -> dict[str, Any]:
        if observer.num_batches_tracked == 0:
            raise ValueError(
                f"OutlierDetector: layer '{layer.fqn}' must have seen data, got no call of the model"
            )
        # A percentile below 0 or beyond a largest value near 0: the distance counts, not the direction.
        ratios = observer.average_percentile_ratio.abs()
        ratios = torch.where(ratios < 1, 1 / ratios, ratios)
        batches = observer.percentile_batches_tracked
        enough = self.fraction_batches_used_threshold
        return {
            self.CHANNEL_AXIS_KEY: self.ch_axis,
            self.REF_PERCENTILE_KEY: self.reference_percentile,
            self.RATIO_THRES_KEY: self.ratio_threshold,
            self.COMP_METRIC_KEY: ratios,
            self.NUM_BATCHES_KEY: batches,
            self.OUTLIER_KEY: [ratio > self.ratio_threshold for ratio in ratios.tolist()],
            self.IS_SUFFICIENT_BATCHES_KEY: [
                count / observer.num_batches_tracked >= enough for count in batches.tolist()
            ],
            self.CONSTANT_COUNTS_KEY: observer.constant_channels,
            self.MAX_VALS_KEY: observer.max_val,
        }

    def generate_detector_report(self, model: fx.GraphModule) -> tuple[str, dict[str, Any]]:
        """For each layer, p and the largest value of its input's channels, and which are outliers.

        Raises:
            ValueError: a layer that has seen no data.
        """
        facts = self._facts(model)
        lines = ["Outliers in the inputs of layers:"]
        for fqn, found in facts.items():
            seen = found[self.NUM_BATCHES_KEY].tolist()
            outliers = [c for c, is_one in enumerate(found[self.OUTLIER_KEY]) if is_one and seen[c]]
            if outliers:
                most = max(found[self.MAX_VALS_KEY][c].item() for c in outliers)
                line = f"  {fqn}: outliers up to {most:.4g} in {_listed(outliers, len(seen))}"
                unsure = sum(not found[self.IS_SUFFICIENT_BATCHES_KEY][c] for c in outliers)
                lines.append(line + (f"; {unsure} of too few batches to be sure" if unsure else ""))
            constant = [c for c, count in enumerate(found[self.CONSTANT_COUNTS_KEY].tolist()) if count]
            if constant:
                lines.append(f"  {fqn}: batches of a single value in {_listed(constant, len(seen))}")
        if len(lines) == 1:
            lines.append("  none")
        return "\n".join(lines) + "\n", facts
