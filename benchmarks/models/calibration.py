"""Calibration of a whole network: forwards that observe, against float ones, and the memory that they take.

    python benchmarks/models/calibration.py [--network resnet50] [--images 32] [--peers torch_ao_ext,nncf]

Every candidate has a process of its own. Float and observed forwards of one image take turns there, of the
same engine; onnxruntime's and nncf's calibrators take all images at once, after the float ones. "Rest" is
what turns observations into a quantized model (onnxruntime: into thresholds; nncf does it with the
forwards). "Extra RSS" is the peak above what the observed model took before. Exit status 1 when a
candidate of ours fails.
"""

import copy
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.models import convnet_models, memory  # noqa: E402
from benchmarks.peers import case, openvino_peer, own_peer  # noqa: E402
from benchmarks.peers.onnxruntime_peer import session  # noqa: E402

MB = 1 << 20
MOST_TIME, MOST_MB = 1.15, 50.0  # of a float forward; above the observed model
OURS = "torch_ao_ext"


class Peak:
    """Bytes of the highest RSS since it was made, above the RSS at that time."""

    def __init__(self):
        self.before = memory.rss_bytes()
        memory.reset_peak()

    def __call__(self):
        return memory.status_bytes("VmHWM") - self.before


def turns(model, prepared, images, finish):
    """Facts of float and observed forwards in turn, then of `finish`."""
    model(images[0]), prepared(images[0])
    peak = Peak()
    seconds = {"float_s": 0.0, "observed_s": 0.0}
    for image in images:
        for name, call in (("float_s", model), ("observed_s", prepared)):
            start = time.perf_counter()
            call(image)
            seconds[name] += time.perf_counter() - start
    extra = peak()
    start = time.perf_counter()
    finish(prepared)
    seconds["rest_s"] = time.perf_counter() - start
    return seconds | {"extra_bytes": extra, "rest_bytes": peak()}


def at_once(run, images, observe, finish):
    """Facts of float forwards `run(image)`, of `observe()` for all images, of `finish()`."""
    run(images[0])
    peak, facts = Peak(), {}
    for name, step in (
        ("float", lambda: [run(image) for image in images]), ("observed", observe), ("rest", finish),
    ):  # fmt: skip
        start = time.perf_counter()
        step()
        facts[f"{name}_s"] = time.perf_counter() - start
        facts["rest_bytes" if name == "rest" else "extra_bytes"] = peak()
    return facts


def own_pt2e(model, images):
    peers.ours()
    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e

    exported = torch.export.export(model, (images[0],)).module()
    return turns(model, prepare_pt2e(exported, own_peer.x86_quantizer()), images, convert_pt2e)


def own_fx(model, images):
    quantization = peers.ours().quantization
    from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_fx

    mapping = quantization.get_default_qconfig_mapping("x86")
    return turns(model, prepare_fx(copy.deepcopy(model), mapping, (images[0],)), images, convert_fx)


def torch_ao_fx(model, images):
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    with peers.quantized_engine("x86"):
        mapping = get_default_qconfig_mapping("x86")
        return turns(model, prepare_fx(copy.deepcopy(model), mapping, (images[0],)), images, convert_fx)


def torchao_pt2e(model, images):
    from torchao.quantization.pt2e import quantize_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    exported = torch.export.export(model, (images[0],)).module()
    return turns(model, quantize_pt2e.prepare_pt2e(exported, quantizer), images, quantize_pt2e.convert_pt2e)


def exported_case(model, images, folder):
    """The network as ONNX file, its images by name."""
    workload = SimpleNamespace(
        make=lambda: model, samples=lambda seed: (images[0],), onnx_by_dynamo=False, families=()
    )
    return case.Case(workload, torch.get_num_threads(), folder)


def onnxruntime(method):
    def measure(model, images):
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        class Reader(CalibrationDataReader):
            def __init__(self, feeds):
                self.rest = iter(feeds)

            def get_next(self):
                return next(self.rest, None)

        with tempfile.TemporaryDirectory() as folder:
            network = exported_case(model, images, folder)
            feeds = {id(image): network.feeds((image,)) for image in images}
            run = session(network.onnx, network.threads)
            calibrator = create_calibrator(
                network.onnx, sorted(QDQRegistry.keys() | QLinearOpsRegistry.keys()),
                str(network.folder / "augmented.onnx"), getattr(CalibrationMethod, method),
            )  # fmt: skip
            return at_once(
                lambda image: run.run(None, feeds[id(image)]), images,
                lambda: calibrator.collect_data(Reader(feeds.values())), calibrator.compute_data,
            )  # fmt: skip

    return measure


def nncf_quantize(model, images):
    import nncf
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        network = exported_case(model, images, folder)
        source = openvino.Core().read_model(network.onnx)
        run = openvino_peer.call_of(
            openvino_peer.compiled_model(source, network.threads, "f32"), network.names
        )
        data = nncf.Dataset([network.feeds((image,)) for image in images])
        return at_once(
            run, images, lambda: nncf.quantize(source, data, subset_size=len(images)), lambda: None
        )


CANDIDATES = {
    "torch_ao_ext pt2e": own_pt2e,
    "torch_ao_ext FX": own_fx,
    "torch.ao FX x86": torch_ao_fx,
    "torchao pt2e": torchao_pt2e,
    "onnxruntime MinMax": onnxruntime("MinMax"),
    "onnxruntime Entropy": onnxruntime("Entropy"),
    "nncf": nncf_quantize,
}


def child(args):
    """Prints one JSON line."""
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    peers.hush()
    model = convnet_models.make(args.network)
    images = [convnet_models.images(1, seed) for seed in range(args.images)]
    with peers.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = CANDIDATES[args.child](model, images)
    print(json.dumps(facts))


def run(name, args):
    """Facts of one candidate; RuntimeError with its last line."""
    command = [
        sys.executable, __file__, "--child", name, "--network", args.network, "--images", str(args.images),
        "--threads", str(args.threads),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def goals_of(name, facts):
    if not name.startswith(OURS):
        return []
    share = facts["observed_s"] / facts["float_s"]
    return [
        Goal("observed forward / float", share, MOST_TIME, larger_is_better=False),
        Goal("extra RSS", facts["extra_bytes"] / MB, MOST_MB, unit="MB", larger_is_better=False),
    ]


def columns(facts):
    """What the table shows of one candidate."""
    return {
        "float forwards ms": f"{facts['float_s'] * 1e3:.0f}",
        "observed ms": f"{facts['observed_s'] * 1e3:.0f}",
        "observed / float": f"{facts['observed_s'] / facts['float_s']:.2f}",
        "extra RSS MB": f"{facts['extra_bytes'] / MB:.1f}",
        "rest ms": f"{facts['rest_s'] * 1e3:.0f}",
        "with the rest MB": f"{facts['rest_bytes'] / MB:.1f}",
    }


def calibration_table(rows):
    """One line a candidate."""
    lines = [[row["id"], *columns(row).values()] for row in rows]
    return report.table(["network, candidate", *columns(rows[0])], lines) if rows else []


def add_rows(args, result, missing):
    for name in CANDIDATES:
        if not any(text in name for text in args.peers.split(",")):
            missing.reasons[name] = "not run (--peers)"
            continue
        with missing.noting(name):
            facts = run(name, args)
            row = f"{args.network} x {args.images} images, {name}"
            result.add(row, {}, goals_of(name, facts), **facts)
            print(row + ": " + ", ".join(f"{k} {v}" for k, v in columns(facts).items()), flush=True)


def main():
    parser = cli.parser(__doc__, budget_s=1.0)
    parser.add_argument("--network", choices=sorted(convnet_models.MAKERS), default="resnet50")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--peers", default="", help="candidates whose name holds one of these texts")
    parser.add_argument("--child", choices=CANDIDATES, help="internal: measure one and print JSON")
    args = parser.parse_args()
    if args.child:
        child(args)
        return 0
    return frame.run("calibration", args, add_rows, probe=False, layout=calibration_table, needed=OURS)


if __name__ == "__main__":
    sys.exit(main())
