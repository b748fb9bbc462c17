"""ModelReport: what it finds is what torch.ao's finds, and its configs make better models."""

import copy
import sys
import types
import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

from torch_ao_ext import quantization as tq
from torch_ao_ext.quantization.fx import _equalize
from torch_ao_ext.quantization.fx._model_report import detector as dt
from torch_ao_ext.quantization.fx._model_report.model_report import ModelReport
from torch_ao_ext.quantization.fx._model_report.model_report_observer import ModelReportObserver
from torch_ao_ext.quantization.fx._model_report.model_report_visualizer import ModelReportVisualizer
from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx

MAPPING = tq.QConfigMapping().set_global(
    tq.QConfig(tq.MinMaxObserver.with_args(dtype=torch.quint8), tq.default_per_channel_weight_observer)
)


def nets():
    torch.manual_seed(0)
    return {
        "linear": (nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)), (8,)),
        "conv": (nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 1)), (4, 6, 7)),
        "conv1d": (nn.Sequential(nn.Conv1d(4, 6, 3)), (4, 9)),
        "grouped": (nn.Sequential(nn.Conv2d(4, 8, 3, groups=2)), (4, 6, 6)),
        "relu": (
            nn.Sequential(nn.Linear(8, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 6)), nn.Sigmoid()), (8,)
        ),
    }  # fmt: skip


def batches(shape, count=4):
    """Ranges grow from batch to batch; one channel has an outlier, one a single value."""
    torch.manual_seed(1)
    made = [torch.randn(50, *shape) * 3**i for i in range(count)]
    for x in made:
        x[3, 1] = 100 * x.abs().max()
        x[:, 2] = 0.5
    return made


def detectors(package=dt):
    return {
        package.PerChannelDetector("onednn"), package.DynamicStaticDetector(tolerance=0.5),
        package.InputWeightEqualizationDetector(ratio_threshold=0.6),
    }  # fmt: skip


def calibrated(name, wanted=None, mapping=MAPPING):
    model, shape = nets()[name]
    data = batches(shape)
    report = ModelReport(prepare_fx(model.eval(), mapping, (data[0],)), wanted or detectors())
    graph = report.prepare_detailed_calibration()
    for x in data:
        graph(x)
    return model, report, graph, data


def theirs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.quantization as package
        from torch.ao.quantization.fx._model_report import detector, model_report
        from torch.ao.quantization.quantize_fx import prepare_fx as prepare
    return package, detector, model_report.ModelReport, prepare


def their_reports(name, wanted):
    package, _, kind, prepare = theirs()
    model, shape = nets()[name]
    data = batches(shape)
    qconfig = package.QConfig(
        package.MinMaxObserver.with_args(dtype=torch.quint8), package.default_per_channel_weight_observer
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = prepare(copy.deepcopy(model).eval(), package.QConfigMapping().set_global(qconfig), (data[0],))
        report = kind(graph, wanted)
        graph = report.prepare_detailed_calibration()
        for x in data:
            graph(x)
        return report.generate_model_report(remove_inserted_observers=False)


def same(mine, want):
    assert set(mine) == set(want)
    for key, value in want.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(mine[key], value, check_dtype=False)
        else:
            assert mine[key] == value, key


@pytest.mark.parametrize("name", ["linear", "conv", "conv1d", "grouped"])
def test_facts_are_torch_aos(name):
    want = their_reports(name, detectors(theirs()[1]))
    _, report, _, _ = calibrated(name)
    mine = report.generate_model_report(remove_inserted_observers=False)
    assert set(mine) == set(want) == report.get_desired_reports_names()
    for title, (_, facts) in want.items():
        assert set(mine[title][1]) == set(facts) and facts
        for fqn, found in facts.items():
            same(mine[title][1][fqn], found)


@pytest.mark.parametrize("name", ["linear", "conv", "relu"])
def test_outliers_are_torch_aos(name):
    _, other, _, _ = theirs()
    want = their_reports(name, {other.OutlierDetector(reference_percentile=0.95)})["outlier_detector"][1]
    _, report, _, _ = calibrated(name, {dt.OutlierDetector(reference_percentile=0.95)})
    text, mine = report.generate_model_report(remove_inserted_observers=True)["outlier_detector"]
    # torch.ao's fused layers keep the name of the first in them, and have the others inside.
    assert {"linear": {"0", "1"}, "conv": {"0", "1"}, "relu": {"0", "1.1", "2"}}[name] <= set(mine)
    shared = set(want) & set(mine)
    assert len(shared) >= 2
    for fqn in shared:
        same(mine[fqn], want[fqn])
    count = len(mine["0"]["outliers_detected"])
    assert mine["0"]["outliers_detected"] == [c == 1 for c in range(count)]
    assert f"in 1 of {count} channels (1)\n" in text
    assert mine["0"]["constant_batch_counts"][2] == 4
    assert f"  0: batches of a single value in 1 of {count} channels (2)\n" in text


def test_many_outliers_are_counted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 2)).eval()
    x = torch.randn(50, 20)
    x[0, :15] = 50.0
    x[:, 19] = 0.0  # a channel without any batch to judge by
    report = ModelReport(prepare_fx(model, MAPPING, (x,)), {dt.OutlierDetector()})
    report.prepare_detailed_calibration()(x)
    text, facts = report.generate_model_report(True)["outlier_detector"]
    assert "  0: outliers up to 50 in 15 of 20 channels (0, 1, 2, 3, 4, 5, 6, 7, ...)\n" in text
    assert facts["0"]["outlier_detection_batches_used"][19] == 0


def test_observer():
    observer = ModelReportObserver(comp_percentile=0.5)
    first = torch.tensor([[1.0, -4.0], [2.0, 0.0], [6.0, 0.0]])
    assert observer(first) is first
    observer(torch.empty(0, 2))
    observer(first / 2)
    assert observer.num_batches_tracked == 2 and observer.average_batch_activation_range == 7.5
    assert observer.get_batch_to_epoch_ratio() == 0.75
    assert observer.min_val.tolist() == [0.5, -4.0] and observer.max_val.tolist() == [6.0, 0.0]
    assert observer.average_percentile_ratio.tolist() == [3.0, 0.0]  # 6 / 2; the other channel has none
    assert observer.percentile_batches_tracked.tolist() == [2, 0]
    again = copy.deepcopy(observer)
    again.reset_batch_and_epoch_values()
    assert again.num_batches_tracked == 0 and again.min_val.numel() == 0
    again(first)
    assert again.average_batch_activation_range == 10.0
    with pytest.raises(RuntimeError, match="has no qparams"):
        observer.calculate_qparams()
    with pytest.raises(ValueError, match="must have 2 channels in dimension 1, as before, got 3"):
        observer(torch.ones(2, 3))
    with pytest.raises(ValueError, match="must have a dimension 1, got 1 dimensions"):
        observer(torch.ones(3))
    with pytest.raises(ValueError, match="finite values that differ, got a range of -inf"):
        ModelReportObserver().get_batch_to_epoch_ratio()
    with pytest.raises(ValueError, match="'comp_percentile' must be above 0"):
        ModelReportObserver(comp_percentile=1.0)


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_dynamic_and_static(name):
    _, report, _, _ = calibrated(name)
    text, facts = report.generate_model_report(True)["dynamic_vs_static_detector"]
    assert facts["0"]["output_activation_dynamic_static_data_classification"] == "non-stationary"
    assert "  0: dynamic, for accuracy" in text
    assert ("graphs have no dynamic form" in text) == (name == "conv")
    model, shape = nets()[name]
    x = torch.randn(4, *shape)
    steady = ModelReport(prepare_fx(model.eval(), MAPPING, (x,)), {dt.DynamicStaticDetector()})
    graph = steady.prepare_detailed_calibration()
    for _ in range(3):
        graph(x)
    text, facts = steady.generate_model_report(True)["dynamic_vs_static_detector"]
    assert "  0: static, for speed; its inputs are stationary" in text
    assert facts["1"]["input_activation_dynamic_static_comp_stat"].item() == pytest.approx(1.0)


def test_per_channel():
    one = tq.QConfig(tq.MinMaxObserver.with_args(dtype=torch.quint8), tq.default_weight_observer)
    mapping = tq.QConfigMapping().set_global(MAPPING.global_qconfig).set_module_name("1", one)
    _, report, _, _ = calibrated("linear", {dt.PerChannelDetector("native")}, mapping)
    text, facts = report.generate_model_report(True)["per_channel_detector"]
    used = {fqn: found["per_channel_quantization_used"] for fqn, found in facts.items()}
    assert used == {"0": True, "1": False} and "  1: one scale" in text and "  0:" not in text
    without = tq.QConfigMapping().set_global(one).set_module_name("0", None)
    _, report, _, _ = calibrated("linear", {dt.PerChannelDetector()}, without)
    assert set(report.generate_model_report(True)["per_channel_detector"][1]) == {"1"}  # the other is float


def test_configs_that_follow():
    model, report, _, data = calibrated("linear")
    mapping = report.generate_qconfig_mapping()
    first = mapping.module_name_qconfigs["0"]
    assert first.activation is tq.default_dynamic_quant_observer
    assert first.weight is tq.default_per_channel_weight_observer
    text, facts = report.generate_model_report(False)["input_weight_equalization_detector"]
    channels = {fqn: found["input_weight_equalization_recommended"] for fqn, found in facts.items()}
    gains = {fqn: sum(found) / len(found) for fqn, found in channels.items()}
    chosen = report.generate_equalization_mapping().module_name_qconfigs
    assert set(chosen) == {fqn for fqn, share in gains.items() if share >= 0.4}
    assert all(q is _equalize.default_equalization_qconfig for q in chosen.values())
    assert all((f"  {fqn}: yes" in text) == (share >= 0.4) for fqn, share in gains.items())
    observed = prepare_fx(model, mapping, (data[0],))
    for x in data:
        observed(x)
    report.generate_model_report(remove_inserted_observers=True)
    x = data[0]
    with torch.no_grad():
        errors = [(convert_fx(graph)(x) - model(x)).norm() for graph in (observed, report._model)]
    assert errors[0] < 0.5 * errors[1]  # the first batch is the smallest


def test_convolutions_are_static():
    _, report, _, _ = calibrated("conv")
    qconfig = report.generate_qconfig_mapping().module_name_qconfigs["0"]
    assert qconfig.activation is tq.default_observer


def test_sequences_have_their_channels_last():
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)).eval()
    report = ModelReport(
        prepare_fx(model, MAPPING, (torch.randn(2, 5, 8),)), {*detectors(), dt.OutlierDetector()}
    )
    graph = report.prepare_detailed_calibration()
    graph(torch.randn(2, 5, 8))
    facts = report.generate_model_report(True)["input_weight_equalization_detector"][1]
    assert facts["0"]["input_activation_per_channel_max"].shape == (8,)


def test_observers_come_and_go():
    _, report, graph, data = calibrated("relu", {*detectors(), dt.OutlierDetector()})
    names = report.get_observers_of_interest()
    assert names["per_channel_detector"] == set()
    assert "0.model_report_pre_observer" in names["outlier_detector"]
    # One observer for three detectors, with the percentile that one of them asks for.
    assert graph.get_submodule("0.model_report_pre_observer").comp_percentile.item() == pytest.approx(0.975)
    assert "1.1.model_report_post_observer" in names["dynamic_vs_static_detector"]
    first = report.generate_model_report(False)
    with pytest.raises(RuntimeError, match="generate_model_report"):
        convert_fx(graph)
    second = report.generate_model_report(True)
    assert {k: t for k, (t, _) in first.items()} == {k: t for k, (t, _) in second.items()}
    assert not any(isinstance(m, ModelReportObserver) for m in graph.modules())
    assert convert_fx(graph)(data[0]).shape == (50, 6)
    for call in (lambda: report.generate_model_report(True), report.generate_qconfig_mapping):
        with pytest.raises(RuntimeError, match="has removed the observers"):
            call()


def test_visualizer(monkeypatch, capsys):
    _, report, _, _ = calibrated("relu", {*detectors(), dt.OutlierDetector()})
    with pytest.raises(RuntimeError, match="needs a report"):
        report.generate_visualizer()
    report.generate_model_report(True)
    shown = report.generate_visualizer()
    assert list(shown.generated_reports)[0] == "0" and {"0", "1.1"} <= shown.get_all_unique_module_fqns()
    plottable = shown.get_all_unique_feature_names()
    assert "input_activation_per_channel_max" in plottable and "backend" not in plottable
    assert "backend" in shown.get_all_unique_feature_names(False)
    tables = shown.generate_filtered_tables("per_channel_m", "1.1")
    assert tables["tensor_level_info"] == ([], [])
    headers, rows = tables["channel_level_info"]
    assert headers[:3] == ["idx", "layer_fqn", "channel"] and len(headers) == 7 and len(rows) == 6
    assert rows[2][:3] == [2, "1.1", 2]
    monkeypatch.setitem(sys.modules, "tabulate", None)
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install tabulate"):
        shown.generate_table_visualization()
    for draw in (shown.generate_plot_visualization, shown.generate_histogram_visualization):
        with pytest.raises(ImportError, match="pip install matplotlib"):
            draw("global_max")
    table = types.SimpleNamespace(tabulate=lambda rows, headers: f"{headers} {len(rows)}")
    monkeypatch.setitem(sys.modules, "tabulate", table)
    shown.generate_table_visualization("weight_global_max")
    assert capsys.readouterr().out == "Layers\n['idx', 'layer_fqn', 'weight_global_max'] 4\n"
    shown.generate_table_visualization("nothing")
    assert capsys.readouterr().out == "No values for a table.\n"


class Plot:
    """What is drawn, in the place of matplotlib.pyplot."""

    def __init__(self):
        self.calls = []

    def subplot(self):
        return self

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args))
            return None, args[:1], None

        return call


def test_plots(monkeypatch):
    plot = Plot()
    package = types.ModuleType("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib", package)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", plot)
    reports = OrderedDict(
        a={"most": torch.tensor([1.0, 3.0]), "whole": 2.0, "named": "x"},
        b={"whole": 5.0},
        c={"most": torch.ones(3)},
    )  # layers have channels of their own number
    shown = ModelReportVisualizer(reports)
    shown.generate_plot_visualization("most")
    shown.generate_plot_visualization("whole")
    assert [args for name, args in plot.calls if name == "plot"] == [
        ([0, 2], [2.0, 1.0]),
        ([0, 1], [2.0, 5.0]),
    ]
    shown.generate_histogram_visualization("most", num_bins=4)
    assert [args for name, args in plot.calls if name == "hist"] == [([1.0, 3.0, 1.0, 1.0, 1.0],)]
    assert [name for name, _ in plot.calls].count("show") == 3
    for wrong in ("", "none"):
        with pytest.raises(ValueError, match="must choose one value"):
            shown.generate_plot_visualization(wrong)


class Own(dt.DetectorBase):
    """A detector of a user's: counts layers; contradicts another one if told to."""

    def __init__(self, backend=None):
        super().__init__()
        self.backend = backend

    def determine_observer_insert_points(self, model):
        return {}

    def get_detector_name(self):
        return "own"

    def get_qconfig_info(self, model):
        return {}

    def generate_detector_report(self, model):
        return "fine", {"0": {"backend": self.backend or "onednn"}}


def test_detectors_of_the_user():
    _, report, _, _ = calibrated("linear", {*detectors(), Own()})
    assert report.generate_model_report(False)["own"][0] == "fine"
    report.generate_visualizer()
    _, report, _, _ = calibrated("linear", {*detectors(), Own("other")})
    report.generate_model_report(False)
    with pytest.raises(ValueError, match="must agree on 'backend' of layer '0'"):
        report.generate_visualizer()


def test_refusals():
    model, shape = nets()["linear"]
    x = torch.randn(2, *shape)
    graph = prepare_fx(model.eval(), MAPPING, (x,))
    with pytest.raises(ValueError, match="at least one detector"):
        ModelReport(graph, set())
    with pytest.raises(ValueError, match="one of each name"):
        ModelReport(graph, {Own(), Own()})
    with pytest.raises(TypeError, match="must be an exported graph module"):
        ModelReport(model, detectors())
    with pytest.raises(ValueError, match="'backend' must be one of fbgemm"):
        dt.PerChannelDetector("tpu")
    for wrong in (0, 1):
        with pytest.raises(ValueError, match="'ratio_threshold' must be above 0 and below 1"):
            dt.InputWeightEqualizationDetector(wrong)
    for name, value in (
        ("ratio_threshold", 0.5), ("reference_percentile", 1.0), ("fraction_batches_used_threshold", 2)
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"OutlierDetector: argument '{name}' must be"):
            dt.OutlierDetector(**{name: value})
    report = ModelReport(graph, {*detectors(), dt.OutlierDetector()})
    with pytest.raises(RuntimeError, match="has not called prepare_detailed_calibration"):
        report.generate_model_report(True)
    report.prepare_detailed_calibration()
    with pytest.raises(ValueError, match="must be called once"):
        report.prepare_detailed_calibration()
    with pytest.raises(ValueError, match="finite values that differ"):
        report.generate_model_report(True)
    for kind, message in (
        (dt.OutlierDetector(), "Outlier"),
        (dt.InputWeightEqualizationDetector(0.5), "InputWeight"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*layer '0' must have seen data"):
            kind.generate_detector_report(graph)
    graph(torch.ones(2, 8))
    with pytest.raises(ValueError, match="the inputs of layer '0' must not all be one value, got 1.0"):
        dt.InputWeightEqualizationDetector(0.5).generate_detector_report(graph)
    conv, shape = nets()["conv"]
    axes = ModelReport(
        prepare_fx(conv.eval(), MAPPING, (torch.randn(2, *shape),)),
        {dt.InputWeightEqualizationDetector(0.5), dt.OutlierDetector(ch_axis=2)},
    )
    with pytest.raises(ValueError, match=r"along one axis \(ch_axis\), got 1 and 2"):
        axes.prepare_detailed_calibration()
