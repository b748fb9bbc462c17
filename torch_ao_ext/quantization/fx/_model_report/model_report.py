"""ModelReport: more than observers see while a prepared graph is calibrated."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.fx._model_report._layers import layers_of
from torch_ao_ext.quantization.fx._model_report.detector import (
    DETECTOR_IS_POST_OBS_KEY,
    DETECTOR_OBS_ARGS_KEY,
    DETECTOR_OBS_TO_INSERT_KEY,
    DETECTOR_TARGET_NODE_KEY,
    DetectorBase,
    DetectorQConfigInfo,
)
from torch_ao_ext.quantization.fx._model_report.model_report_visualizer import ModelReportVisualizer
from torch_ao_ext.quantization.pt2e._graph import check_graph_module
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping

__all__ = ["ModelReport"]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    return type(first) is type(second) and first == second


def _axis(point: dict[str, Any]) -> Any:
    return getattr(point[DETECTOR_OBS_TO_INSERT_KEY], "ch_axis", None)


class ModelReport:
    """Puts the observers of detectors into a prepared graph, and collects what they say.

    Args:
        model: from `prepare_fx`; the observers go into it.
        desired_report_detectors: one of each class that is wanted.

    Raises:
        TypeError: not a graph module.
        ValueError: no detectors, or two of one name.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import get_default_qconfig_mapping
        >>> from torch_ao_ext.quantization.fx._model_report.detector import PerChannelDetector
        >>> from torch_ao_ext.quantization.fx._model_report.model_report import ModelReport
        >>> from torch_ao_ext.quantization.quantize_fx import prepare_fx
        >>> x, model = torch.randn(2, 8), torch.nn.Sequential(torch.nn.Linear(8, 4)).eval()
        >>> observed = prepare_fx(model, get_default_qconfig_mapping("onednn"), (x,))
        >>> report = ModelReport(observed, {PerChannelDetector()})
        >>> _ = report.prepare_detailed_calibration()(x)
        >>> text, facts = report.generate_model_report(True)["per_channel_detector"]
        >>> facts["0"]["per_channel_quantization_used"]
        True
    """

    def __init__(self, model: fx.GraphModule, desired_report_detectors: set[DetectorBase]) -> None:
        check_graph_module("ModelReport", model)
        detectors = sorted(desired_report_detectors, key=lambda detector: detector.get_detector_name())
        names = [detector.get_detector_name() for detector in detectors]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                "ModelReport: argument 'desired_report_detectors' must hold at least one detector, and "
                f"one of each name, got {names}"
            )
        self._model = model
        self._detectors = detectors
        self._points: dict[str, dict[str, Any]] = {}
        self._observers: dict[str, fx.Node] = {}
        self._prepared = False
        self._removed = False
        self._facts: dict[str, dict[str, Any]] = {}

    def get_desired_reports_names(self) -> set[str]:
        """Names of the detectors."""
        return {detector.get_detector_name() for detector in self._detectors}

    def get_observers_of_interest(self) -> dict[str, set[str]]:
        """Name of each detector -> names of the observers that it reads."""
        return {name: set(found) for name, found in self._points.items()}

    def prepare_detailed_calibration(self) -> fx.GraphModule:
        """Puts the observers into the graph; run it on example data afterwards.

        Returns:
            The graph module.

        Raises:
            ValueError: called before, or two detectors that look along different axes in one place.
        """
        if self._prepared:
            raise ValueError(
                "ModelReport: prepare_detailed_calibration must be called once, got a second call"
            )
        for detector in self._detectors:
            points = detector.determine_observer_insert_points(self._model)
            self._points[detector.get_detector_name()] = points
        wanted: dict[str, dict[str, Any]] = {}
        for points in self._points.values():
            for name, point in points.items():
                first, second = _axis(wanted.get(name, point)), _axis(point)
                if first != second:
                    raise ValueError(
                        f"ModelReport: detectors must look at '{name}' along one axis (ch_axis), got {first} "
                        f"and {second}"
                    )
                wanted[name] = point  # of equal axes; the outlier detector, last by name, has a percentile
        for name, point in wanted.items():
            self._insert(name, point)
        self._model.graph.lint()
        self._model.recompile()
        self._prepared = True
        return self._model

    def _insert(self, name: str, point: dict[str, Any]) -> None:
        graph, node = self._model.graph, point[DETECTOR_TARGET_NODE_KEY]
        self._model.add_submodule(name, point[DETECTOR_OBS_TO_INSERT_KEY])
        place = graph.inserting_after if point[DETECTOR_IS_POST_OBS_KEY] else graph.inserting_before
        with place(node):
            self._observers[name] = graph.call_module(name, tuple(point[DETECTOR_OBS_ARGS_KEY]))

    def _check(self, call: str) -> None:
        if not self._prepared or self._removed:
            state = "removed the observers" if self._removed else "not called prepare_detailed_calibration"
            raise RuntimeError(f"ModelReport: {call} needs the observers of a calibrated graph, has {state}")

    def generate_model_report(self, remove_inserted_observers: bool) -> dict[str, tuple[str, dict[str, Any]]]:
        """What every detector found.

        Args:
            remove_inserted_observers: from the graph, as `convert_fx` needs it; the report can be made
                several times before.

        Returns:
            Name of the detector -> (text, name of the layer -> key -> value).

        Raises:
            RuntimeError: no observers in the graph.
            ValueError: a detector cannot judge what it saw.
        """
        self._check("generate_model_report")
        reports = {d.get_detector_name(): d.generate_detector_report(self._model) for d in self._detectors}
        if remove_inserted_observers:
            self._removed = True
            for name, node in self._observers.items():
                self._model.graph.erase_node(node)
                self._model.delete_submodule(name)
            self._model.recompile()
        self._facts = {name: facts for name, (_, facts) in reports.items()}
        return reports

    def _by_layer(self) -> "OrderedDict[str, dict[str, Any]]":
        """Name of each layer, in graph order -> what all detectors found."""
        merged: dict[str, dict[str, Any]] = {}
        for facts in self._facts.values():
            for fqn, found in facts.items():
                present = merged.setdefault(fqn, {})
                for key, value in found.items():
                    if key in present and not _same(present[key], value):
                        raise ValueError(
                            f"ModelReport: detectors must agree on '{key}' of layer '{fqn}', got "
                            f"{present[key]} and {value}"
                        )
                    present[key] = value
        order = [layer.fqn for layer in layers_of(self._model)]
        ordered = [fqn for fqn in order if fqn in merged] + [fqn for fqn in merged if fqn not in order]
        return OrderedDict((fqn, merged[fqn]) for fqn in ordered)

    def generate_visualizer(self) -> ModelReportVisualizer:
        """Tables and plots of the last report.

        Raises:
            RuntimeError: no report was made.
        """
        if not self._facts:
            raise RuntimeError("ModelReport: generate_visualizer needs a report, see generate_model_report")
        return ModelReportVisualizer(self._by_layer())

    def _advice(self) -> dict[str, DetectorQConfigInfo]:
        found: dict[str, DetectorQConfigInfo] = {}
        for detector in self._detectors:
            for fqn, info in detector.get_qconfig_info(self._model).items():
                known = found.setdefault(fqn, info)
                for name in ("is_activation_dynamic", "is_weight_per_channel", "is_equalization_recommended"):
                    setattr(known, name, bool(getattr(known, name)) or bool(getattr(info, name)))
        return found

    def _mapping(self, make: Callable[[DetectorQConfigInfo], Any]) -> QConfigMapping:
        mapping = QConfigMapping()
        for fqn, info in self._advice().items():
            qconfig = make(info)
            if qconfig is not None:
                mapping.set_module_name(fqn, qconfig)
        return mapping

    def generate_qconfig_mapping(self) -> QConfigMapping:
        """The QConfig that the detectors advise for each layer, by its name.

        Raises:
            RuntimeError: no observers in the graph.
        """
        self._check("generate_qconfig_mapping")
        return self._mapping(lambda info: info.generate_quantization_qconfig())

    def generate_equalization_mapping(self) -> QConfigMapping:
        """The `_equalization_config` of the layers that gain by it.

        Raises:
            RuntimeError: no observers in the graph.
        """
        self._check("generate_equalization_mapping")

        def make(info: DetectorQConfigInfo) -> Any:
            return info.generate_equalization_qconfig() if info.is_equalization_recommended else None

        return self._mapping(make)
