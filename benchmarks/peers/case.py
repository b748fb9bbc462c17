"""A workload on its way to the peers: the float model, its inputs, and the files that several peers share."""

import functools
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

CALIBRATION = 8  # sets of inputs, the same for every peer
LEAST_SHARE = 0.5  # of the layers with weights that must run on integers


@dataclass(frozen=True)
class Built:
    """A candidate: `call(*inputs)` gives one float32 tensor.

    `ran` is what the engine says that it runs; `file` (with `loader`, a key of loaders.LOADERS) is what a
    fresh process loads.
    """

    call: Callable
    ran: str
    file: Path | None = None
    loader: str = ""


class Case:
    """One workload for a number of threads; files go to `folder`, traced models too when `saves`."""

    def __init__(self, workload, threads, folder, saves=False):
        self.workload, self.threads, self.folder, self.saves = workload, threads, Path(folder), saves
        self.model = workload.make().eval().requires_grad_(False)
        self.inputs = workload.samples(0)

    def calibration(self):
        """Sets of inputs that are not the measured one."""
        return [self.workload.samples(100 + i) for i in range(CALIBRATION)]

    @functools.cached_property
    def layers(self):
        """How many layers with a weight matrix one call runs."""
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        count = sum(isinstance(m, kinds) for m in self.model.modules())
        return count + sum(m.num_layers for m in self.model.modules() if isinstance(m, nn.RNNBase))

    @property
    def names(self):
        return [f"x{i}" for i in range(len(self.inputs))]

    def feeds(self, inputs):
        """Inputs by name, as numpy."""
        return {name: x.numpy() for name, x in zip(self.names, inputs, strict=True)}

    @functools.cached_property
    def onnx(self):
        """The exported float file, shapes inferred and constants folded by onnxruntime."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        logging.getLogger().setLevel(logging.ERROR)
        raw, clean = self.folder / "raw.onnx", self.folder / "float.onnx"
        options = {"input_names": self.names, "output_names": ["y"]}
        if self.workload.onnx_by_dynamo:
            options |= {"dynamo": True, "verbose": False, "external_data": False}
        else:
            options |= {"dynamo": False, "opset_version": 17}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(self.model, self.inputs, str(raw), **options)
            quant_pre_process(str(raw), str(clean), skip_symbolic_shape=self.workload.onnx_by_dynamo)
        return clean

    @functools.cached_property
    def onnx_static(self):
        """onnxruntime's static int8 file: QDQ, uint8 activations, int8 weights per channel."""
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            def __init__(self, case):
                self.rest = iter([case.feeds(x) for x in case.calibration()])

            def get_next(self):
                return next(self.rest, None)

        path = self.folder / "static.onnx"
        quantize_static(
            str(self.onnx), str(path), Reader(self), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return path

    @functools.cached_property
    def onnx_dynamic(self):
        """onnxruntime's dynamic int8 file, per channel."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        path = self.folder / "dynamic.onnx"
        quantize_dynamic(str(self.onnx), str(path), per_channel=True, weight_type=QuantType.QInt8)
        return path

    def traced(self, module, name):
        """(frozen TorchScript of `module`, its file or None)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            traced = torch.jit.freeze(torch.jit.trace(module, self.inputs, check_trace=False).eval())
            file = self.folder / f"{name}.pt"
            if self.saves:
                torch.jit.save(traced, str(file))
        return traced, file if self.saves else None

    def exported(self):
        """A graph module of its own for the pt2e flows."""
        return torch.export.export(self.model, self.inputs).module()


def on_integers(integer, rest, detail):
    """Text on what runs; RuntimeError when too many layers with weights run in float.

    Args:
        integer: how many layers with weights run on integers.
        rest: how many do not.
        detail: what the engine calls them.
    """
    text = f"{integer} of {integer + rest} layers on integers ({detail})"
    if integer < LEAST_SHARE * max(integer + rest, 1) or integer == 0:
        raise RuntimeError(f"no int8 peer: {text}")
    return text


def counted(counter):
    """'20 QLinearConv, 1 QGemm'."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"
