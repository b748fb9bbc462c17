"""What says that a peer ran on integers: a check that cannot fail would let float files be int8 peers."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.harness import cli, environment, peers, report, roof
from benchmarks.models import convnet_models, layer_models, serve, table
from benchmarks.peers import case, own_peer, registry, torch_ao_peer


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))

    def forward(self, x):
        return self.body(x)


def small_case(folder, families=(registry.TRANSFORMER,), model=Small):
    workload = SimpleNamespace(
        name="small",
        make=model,
        samples=lambda seed: (torch.randn(4, 32, generator=torch.Generator().manual_seed(seed)),),
        families=families,
        transformer=True,
        onnx_by_dynamo=False,
    )
    return case.Case(workload, 1, folder)


@pytest.mark.parametrize("integer, rest, fits", [(5, 5, True), (10, 0, True), (4, 5, False), (0, 0, False)])
def test_less_than_half_on_integers_is_no_peer(integer, rest, fits):
    if fits:
        assert (
            case.on_integers(integer, rest, "x")
            == f"{integer} of {integer + rest} layers on integers (x)"
        )
    else:
        with pytest.raises(RuntimeError, match="no int8 peer"):
            case.on_integers(integer, rest, "x")


def test_calibration_is_not_the_measured_input(tmp_path):
    small = small_case(tmp_path)
    sets = small.calibration()
    assert len(sets) == case.CALIBRATION
    assert not any(torch.equal(x, small.inputs[0]) for (x,) in sets)


def test_our_counts_are_those_of_the_converted_model(tmp_path):
    small = small_case(tmp_path)
    assert own_peer.dynamic(small).ran == "2 of 2 layers on integers (2 Linear)"
    assert own_peer.pt2e(small).ran == "2 of 2 layers on integers (2 linear)"
    with pytest.raises(RuntimeError, match="no int8 peer: 0 of 2"):
        own_peer._ran(small.model)


def test_our_counts_are_of_layers_alone():
    """A float upsample_bilinear2d has "linear" in its name and no weights."""

    class Larger(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return nn.functional.interpolate(self.fc(x), scale_factor=2.0, mode="bilinear")

    int8 = peers.ours().quantization.quantize_dynamic(Larger())
    graph = torch.export.export(int8, (torch.randn(1, 1, 4, 8),)).module()
    assert peers.ours().report(graph).functions == {"upsample_bilinear2d": 1}
    assert own_peer._ran(graph) == "1 of 1 layers on integers (1 linear_dynamic)"


def test_torch_ao_counts_float_and_int8_modules(tmp_path):
    small = small_case(tmp_path)
    assert torch_ao_peer.executed(small.model) == (Counter(), Counter({"float Linear": 2}))
    assert torch_ao_peer.fx("onednn")(small).ran.startswith("2 of 2 layers on integers")
    assert not any(hasattr(m, "qconfig") for m in small.model.modules())


def test_onnxruntime_counts_nodes_with_weights(tmp_path):
    pytest.importorskip("onnxruntime")
    from benchmarks.peers import onnxruntime_peer

    small = small_case(tmp_path)
    integer, rest = onnxruntime_peer.weighted(small.onnx)
    assert (integer.total(), rest.total()) == (0, 2)
    built = onnxruntime_peer.static(small)
    assert built.ran.startswith("2 of 2 layers on integers")
    reloaded = registry.loader(built.loader)(built.file, 1)
    assert torch.equal(built.call(*small.inputs), reloaded(*small.inputs))


def test_every_candidate_names_a_builder_that_exists():
    names = [c.name for c in registry.CANDIDATES]
    assert len(set(names)) == len(names)
    for candidate in registry.CANDIDATES:
        path = f"benchmarks/peers/{candidate.module}.py"
        text = (report.RESULTS.parents[1] / path).read_text()
        assert f"def {candidate.builder}(" in text, candidate.name


def test_architectures_have_the_published_sizes():
    counts = {
        name: sum(p.numel() for p in convnet_models.make(name).parameters()) for name in convnet_models.MAKERS
    }
    assert counts == {
        "resnet18": 11_689_512, "resnet50": 25_557_032, "mobilenetv2": 3_504_872,
        "mobilenetv3-small": 2_542_856, "mobilenetv3-large": 5_483_032,
    }  # fmt: skip


def test_layer_targets_name_shapes_that_exist():
    assert {s.layer for s, _ in layer_models.convolutions()} == set(layer_models.CONVOLUTIONS)
    assert {(s.m, s.k, s.n) for s, _ in layer_models.linears()} == set(layer_models.LINEARS)


def test_bottlenecks_are_blocks_of_resnet50():
    blocks = [m for m in convnet_models.make("resnet50").modules() if isinstance(m, convnet_models.Block)]
    kept = [block for block in blocks if isinstance(block.shortcut, nn.Identity)]
    sizes = {tuple(p.shape for p in block.parameters()) for block in kept}
    for planes, size in layer_models.BOTTLENECKS:
        block, (x,) = layer_models.bottleneck(planes), layer_models.block_pixels(planes, size, 0)
        assert tuple(p.shape for p in block.parameters()) in sizes
        assert block(x).shape == x.shape and planes * size == 64 * 56 and x.min() == 0


def test_goals_hold_sqnr_only_against_slower_peers():
    from benchmarks.harness.rounds import Timing

    workload = SimpleNamespace(torch_target=1.5, other_target=1.1, families=())
    timings = {
        "fp32": Timing([4.0]), "torch.ao FX x86": Timing([2.0]), "onnxruntime QDQ": Timing([0.5]),
        "torch_ao_ext pt2e": Timing([1.0]),
    }  # fmt: skip
    sqnr = {"torch.ao FX x86": 40.0, "onnxruntime QDQ": 40.0, "torch_ao_ext pt2e": 30.0}
    goals = {g.name: g for g in table.goals_of(workload, timings, sqnr)}
    assert goals["SQNR above torch.ao FX x86"].verdict == "FLOOR MISSED"
    assert goals["SQNR above onnxruntime QDQ"].verdict == ""
    assert goals["vs onnxruntime QDQ"].verdict == "below target"
    assert goals["vs torch.ao FX x86"].got == 2.0


def test_candidates_are_chosen_by_family_and_text():
    workload, missing = SimpleNamespace(families=(registry.CNN,)), peers.Missing()
    args = SimpleNamespace(peers="onnx,executorch", skip="XNNPACK", compile=False)
    names = [c.name for c in table.chosen(workload, args, missing)]
    assert names == ["fp32", "onnxruntime QDQ"]
    assert missing.reasons["executorch XNNPACK"] == "not run (--peers, --skip)"
    assert missing.reasons["bf16 + compile"] == "not run (--compile)"
    known = {c.name for c in registry.CANDIDATES if registry.CNN in c.families}
    assert set(missing.reasons) | set(names) == known


def test_served_files_are_measured_whole(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"12")
    (tmp_path / "a.bin").write_bytes(b"345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_bytes(b"6")
    assert serve.size_of(tmp_path / "a.xml") == 5
    assert serve.size_of(tmp_path / "folder") == 1


def test_read_sizes_follow_the_caches():
    sizes = roof.read_sizes({"L1d": "32K", "L2": "1024K", "L3": "32M"})
    assert sizes == {"L2": (512, True), "L3": (16384, False), "DRAM": (256 << 10, False)}
    assert roof.read_sizes({})["L2"] == (512, True)


def test_table_by_candidate_has_rows_across():
    timing = {"median_us": 2000.0, "p10_us": 1500.0}
    rows = [
        {"id": "a", "noisy": False, "timings": {"fp32": timing, "x": timing}, "sqnr_db": {"x": 40.0}},
        {"id": "b", "noisy": False, "timings": {"fp32": timing}, "ran": {"fp32": "torch"}},
    ]
    rows[1] |= {"build_s": {"fp32": 12.34}, "first_call_s": {"fp32": 0.02}}
    lines = report.candidate_table(rows)
    assert lines[0] == "| candidate | a | b |"
    assert lines[3] == "| x | 2000 us (1500 us), 40.0 dB |  |"
    assert report.ran_table(rows)[-1] == "| b | fp32 | torch | 12.3 s | 20.0 ms |"


def test_the_machine_line_has_no_missing_packages():
    text = environment.describe({**environment.record(), "packages": {"torch": "2.13.0", "openvino": None}})
    assert "torch 2.13.0" in text and "openvino" not in text


def test_parts_of_a_table_have_names_of_their_own(tmp_path, capsys):
    parser = cli.parser("", budget_s=1.0)
    for label in (None, "resnet18"):
        args = parser.parse_args(["--output", str(tmp_path), *(["--label", label] if label else [])])
        assert report.conclude(report.Report("serve"), args.output, args.label) == 0
    names = {path.name for path in tmp_path.glob("*.json")}
    threads = "" if torch.get_num_threads() == 2 else f"-{torch.get_num_threads()}t"
    assert names == {f"serve{threads}.json", f"serve-resnet18{threads}.json"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--label", "../a"])
    assert "must be of a-z, 0-9 and _, got '../a'" in capsys.readouterr().err
