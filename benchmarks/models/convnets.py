"""Convolutional networks in static int8: fp32, onnxruntime, torchao and ours, by pt2e.

    python benchmarks/models/convnets.py [--threads 1] [--models crepe,resnet18] [--compile]

CREPE has trained weights; ResNet-18, ResNet-50 and MobileNetV2 are transformers' architectures with
random ones. All are calibrated on the same inputs; SQNR is against fp32 on others. --compile adds
torchao's pt2e under torch.compile, minutes of compilation. Exit status 1 when a floor is missed.
"""

import functools
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.harness import cli, environment, peers, report, roof, rounds  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.models import crepe_model  # noqa: E402

FP32, OURS, TRACED = "fp32", "torch_ao_ext", "torch_ao_ext traced"
ORT, TORCHAO = "onnxruntime int8", "torchao + compile"
CALIBRATION = 8


class Logits(nn.Module):
    """A transformers classifier as tensor -> tensor."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        return self.model(pixels).logits


def architecture(name):
    """A transformers model with random weights and lively batch norms."""
    import transformers

    torch.manual_seed(0)
    if name == "mobilenetv2":
        model = transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config())
    else:
        small = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
        config = transformers.ResNetConfig(**(small if name == "resnet18" else {}))
        model = transformers.ResNetForImageClassification(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    return Logits(model).eval()


def images(batch, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 224, 224, generator=g)


MODELS = {
    "crepe": (crepe_model.load, crepe_model.inputs, (1, 8)),
    "resnet18": (functools.partial(architecture, "resnet18"), images, (1,)),
    "resnet50": (functools.partial(architecture, "resnet50"), images, (1,)),
    "mobilenetv2": (functools.partial(architecture, "mobilenetv2"), images, (1,)),
}


def ours(model, samples, batch):
    """(lowered graph, its frozen trace)."""
    ao = peers.ours()
    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

    example = samples(batch)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(model, (example,)).module(), quantizer)
    for i in range(CALIBRATION):
        prepared(samples(batch, seed=100 + i))
    lowered = ao.lower(convert_pt2e(prepared), (example,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return lowered, torch.jit.freeze(torch.jit.trace(lowered, example).eval())


def onnxruntime_call(model, samples, batch, threads):
    """onnxruntime's static int8 (QDQ, per channel); raises unless its convolutions run on integers."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rest = iter([{"x": samples(batch, seed=100 + i).numpy()} for i in range(CALIBRATION)])

        def get_next(self):
            return next(self.rest, None)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f32, plain, int8, best = (str(Path(folder) / f"{n}.onnx") for n in ("f32", "plain", "int8", "best"))
        names = {"input_names": ["x"], "output_names": ["y"]}
        torch.onnx.export(model, (samples(batch),), f32, dynamo=False, opset_version=17, **names)
        quant_pre_process(f32, plain)
        quantize_static(
            plain, int8, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = best
        options.log_severity_level = 3
        onnxruntime.InferenceSession(int8, options)
        kinds = _kinds(best)
        session = peers.onnxruntime_session(int8, threads)
    if "Conv" in kinds or "QLinearConv" not in kinds:
        raise RuntimeError(f"the quantized file runs {kinds.count('Conv')} convolutions in float")
    return lambda x: torch.from_numpy(session.run(["y"], {"x": x.numpy()})[0])


def _kinds(path):
    import onnx

    return [node.op_type for node in onnx.load(path).graph.node]


def torchao_call(model, samples, batch):
    """torchao's pt2e with the same quantizer, torch.compile with freezing."""
    import torch._inductor.config as inductor
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e import quantize_pt2e

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    example = samples(batch)
    prepared = quantize_pt2e.prepare_pt2e(torch.export.export(model, (example,)).module(), quantizer)
    for i in range(CALIBRATION):
        prepared(samples(batch, seed=100 + i))
    inductor.freezing = True
    compiled = torch.compile(quantize_pt2e.convert_pt2e(prepared))
    compiled(example)
    return compiled


def run_model(name, args, result, missing):
    make, samples, batches = MODELS[name]
    model = make()
    for batch in batches:
        x = samples(batch)
        calls = {FP32: model}
        calls[OURS], calls[TRACED] = ours(model, samples, batch)
        with missing.noting(ORT):
            calls[ORT] = onnxruntime_call(model, samples, batch, args.threads)
        if args.compile:
            with missing.noting(TORCHAO):
                calls[TORCHAO] = torchao_call(model, samples, batch)
        for call in calls.values():  # the first calls of a trace optimise it
            for _ in range(3):
                call(x)
        answers = {key: call(x) for key, call in calls.items()}
        sqnr = {key: sqnr_db(answers[FP32], y) for key, y in answers.items() if key != FP32}
        # Each candidate warms its own weights: a call by itself, then the timed one.
        timings, foreign = cli.measure({n: functools.partial(_twice, c, x) for n, c in calls.items()}, args)
        best = rounds.best_of(timings, [OURS, TRACED])
        goals = [Goal(f"vs {FP32}", rounds.speedup(timings, best, FP32), None, 1.0)]
        for peer in (ORT, TORCHAO):
            if peer in timings:
                goals.append(Goal(f"vs {peer}", rounds.speedup(timings, best, peer), None, 1.0))
        report.print_row(result.add(f"{name} B{batch}", timings, goals, (), foreign, sqnr_db=sqnr))


def _twice(call, x):
    call(x)
    return call(x)


def main():
    parser = cli.parser(__doc__, budget_s=6.0)
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated")
    parser.add_argument("--compile", action="store_true", help="time torchao + torch.compile, too")
    args = parser.parse_args()
    if args.max_isa:
        return environment.rerun_capped(args.max_isa)
    environment.set_threads(args.threads)
    result = report.Report("convnets", roof.probe((1, args.threads)))
    print(environment.describe(result.environment))
    print("times are of two calls in a row")
    missing = peers.Missing()
    with torch.no_grad():
        for name in args.models.split(","):
            with missing.noting(name):
                run_model(name, args, result, missing)
    result.missing = missing.as_dict()
    for name, reason in result.missing.items():
        print(f"missing: {name}: {reason}")
    return report.conclude(result, args.output)


if __name__ == "__main__":
    sys.exit(main())
