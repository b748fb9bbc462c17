"""Every model of the tables as data: how to make it, its inputs, its family, and what it should reach."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.models import (
    convnet_models,
    crepe_model,
    layer_models,
    recsys_model,
    resemblyzer_model,
    tagger_model,
    transformer_models,
)
from benchmarks.peers.registry import BAGS, BERT, CNN, FRONTENDS, RNN, TRANSFORMER


@dataclass(frozen=True)
class Workload:
    """A model and its inputs.

    Args:
        name: row in the tables, stays the same between runs.
        families: candidates of which families it has.
        make: the float model, tensors -> one tensor.
        samples: seed -> tuple of inputs.
        torch_target: wanted speed-up over the best int8 inside PyTorch, None where there is none.
        other_target: over the best int8 of another engine.
        onnx_by_dynamo: exported to ONNX by torch.export, else by tracing.
    """

    name: str
    families: tuple
    make: Callable
    samples: Callable
    torch_target: float | None = None
    other_target: float | None = None
    onnx_by_dynamo: bool = False

    @property
    def transformer(self):
        return TRANSFORMER in self.families


def _one(function, batch):
    return lambda seed: (function(batch, seed),)


def _convnet(name, batch, *targets):
    make = functools.partial(convnet_models.make, name)
    return Workload(f"{name} B{batch}", (CNN,), make, _one(convnet_models.images, batch), *targets)


def _crepe(batch):
    return Workload(f"CREPE B{batch}", (CNN,), crepe_model.load, _one(crepe_model.inputs, batch), 1.5, 1.05)


def _transformer(name, make, samples, families=(TRANSFORMER,)):
    return Workload(name, families, make, samples, 1.3, 1.05, onnx_by_dynamo=True)


def _minilm(attention, batch, tokens):
    make = functools.partial(transformer_models.minilm, attention)
    samples = functools.partial(transformer_models.minilm_inputs, batch, tokens)
    return _transformer(f"MiniLM {attention} {batch}x{tokens}", make, samples, (TRANSFORMER, BERT))


def _bert_base(batch, tokens):
    samples = functools.partial(transformer_models.bert_inputs, batch, tokens)
    name = f"BERT-base {batch}x{tokens}"
    return _transformer(name, transformer_models.bert_base, samples, (TRANSFORMER, BERT))


def _recurrent(name, make, samples):
    return Workload(name, (RNN,), make, samples, 1.5, 1.5)


def _tagger(batch):
    samples = functools.partial(tagger_model.inputs, batch)
    return _recurrent(f"LSTM tagger B{batch}", tagger_model.Tagger, samples)


def _lstm(shape):
    make, samples = (functools.partial(f, shape) for f in (layer_models.Sequence, layer_models.steps))
    return _recurrent(str(shape), make, samples)


def _dlrm(batch):
    samples = functools.partial(recsys_model.inputs, batch)
    return Workload(f"DLRM-small B{batch}", (BAGS,), recsys_model.make, samples, None, 1.3)


def _convolution(shape, target):
    make, samples = (functools.partial(f, shape) for f in (layer_models.convolution, layer_models.pixels))
    return Workload(shape.layer, (CNN,), make, samples, target, target)


def _bottleneck(planes, size):
    make = functools.partial(layer_models.bottleneck, planes)
    samples = functools.partial(layer_models.block_pixels, planes, size)
    target = layer_models.BOTTLENECK_TARGET
    return Workload(f"resnet50 bottleneck at {size}", (CNN,), make, samples, target, target)


def _linear(shape, target):
    make, samples = (functools.partial(f, shape) for f in (layer_models.linear, layer_models.rows))
    return Workload(f"linear {shape}", (TRANSFORMER,), make, samples, target, target)


TABLES = {
    "layers": (
        *(_convolution(*row) for row in layer_models.convolutions()),
        *(_bottleneck(*row) for row in layer_models.BOTTLENECKS),
        *(_linear(*row) for row in layer_models.linears()),
    ),
    "convnets": (
        _convnet("resnet18", 1, 1.5, 1.05),
        _convnet("resnet50", 1, 1.5, 1.05),
        _convnet("mobilenetv2", 1, 3.0, 1.0),
        _convnet("mobilenetv3-small", 1, 3.0, 1.0),
        _convnet("mobilenetv3-large", 1, 3.0, 1.0),
        _convnet("resnet18", 8, 1.5, 1.05),
        _convnet("resnet50", 8, 1.5, 1.05),
        _crepe(1),
        _crepe(8),
    ),
    "transformers": (
        _minilm("sdpa", 1, 32),
        _minilm("sdpa", 8, 128),
        _minilm("eager", 8, 128),
        _bert_base(1, 128),
        _bert_base(8, 128),
        _transformer("ViT-B/16 B1", transformer_models.vit_base, _one(convnet_models.images, 1)),
        _transformer(
            "Whisper-tiny encoder B1", transformer_models.whisper_encoder, _one(transformer_models.mels, 1)
        ),
    ),
    "recurrent": (
        _recurrent("Resemblyzer B1", resemblyzer_model.load, _one(resemblyzer_model.inputs, 1)),
        _tagger(1),
        _tagger(8),
        *(_lstm(shape) for shape in layer_models.lstms()),
    ),
    "frontends": (
        dataclasses.replace(_convnet("resnet18", 1), families=(FRONTENDS,)),
        dataclasses.replace(_convnet("mobilenetv2", 1), families=(FRONTENDS,)),
        _transformer(
            "BERT of 2 layers 1x128",
            functools.partial(transformer_models.bert_base, 2),
            functools.partial(transformer_models.bert_inputs, 1, 128),
            (FRONTENDS,),
        ),
    ),
    "recsys": (_dlrm(128), _dlrm(2048)),
}
