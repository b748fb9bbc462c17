"""MiniLM in every quantization that is compared, as callables (ids, mask) -> hidden.

Each builder takes its own copy of the model. A peer that cannot be built is
listed as missing with the reason (harness.peers.Missing).
"""

import copy
import functools
import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import peers
from benchmarks.models import minilm_model
from benchmarks.peers import onnxruntime_peer, torchao_peer

OURS, OURS_COMPILED = "torch_ao_ext", "torch_ao_ext + compile"
AO = tuple(f"torch.ao {engine}" for engine in peers.TORCH_AO_ENGINES)
TORCHAO, TORCHAO_TUNED = "torchao + compile", "torchao + max-autotune"
ORT = "onnxruntime int8"
FP32, FP32_COMPILED = "fp32", "fp32 + compile"


def eager(model):
    return functools.partial(minilm_model.hidden, model)


def compiled(model):
    """Static shapes, as a server with fixed sizes would; one graph per size.

    fullgraph: a break or the recompile limit raises instead of running eagerly.
    The limit counts graphs of one code object, here several models times sizes.
    """
    torch._dynamo.config.recompile_limit = 64
    fast = torch.compile(model, dynamic=False, fullgraph=True)
    return functools.partial(minilm_model.hidden, fast)


def compiled_torchao(model):
    """`compiled`; raises when a profiled call of the shape has no integer product."""
    fast, seen = compiled(model), set()

    def call(ids, mask):
        if ids.shape not in seen:
            fast(ids, mask)
            if not torchao_peer.integer_products(fast, (ids, mask)):
                raise RuntimeError("no int8 peer: no integer product in a profiled call")
            seen.add(ids.shape)
        return fast(ids, mask)

    return call


def compiled_frozen(model):
    """`compiled` with weights frozen and max-autotune; raises when no linear layer was fused.

    The switches are set around the first call of each shape: Dynamo reads
    `freezing` while it traces, before torch.compile's `options` take effect, so
    that `options={"freezing": True}` freezes nothing and says nothing (torch 2.13.0).
    """
    torch._dynamo.config.recompile_limit = 64
    # Options of its own make it a backend of its own. Without, Dynamo finds the graph that
    # `compiled` made of an equal model (its weights are inputs) and compiles nothing.
    fast = torch.compile(model, dynamic=False, fullgraph=True, options={"max_autotune": True})
    fast, seen = functools.partial(minilm_model.hidden, fast), set()

    def call(ids, mask):
        if ids.shape in seen:
            return fast(ids, mask)
        before = _fused_linears()
        # No cache: a graph taken from it would not count its fusions.
        with torch._inductor.config.patch(freezing=True, force_disable_caches=True):
            answer = fast(ids, mask)
        if _fused_linears() == before:
            raise RuntimeError("Inductor fused no integer linear layer: not what this row is about")
        seen.add(ids.shape)
        return answer

    return call


def _fused_linears():
    return torch._dynamo.utils.counters["inductor"]["qlinear_weight_prepack_matcher_count"]


def torchao_model(model):
    """torchao's dynamic int8; it needs torch.compile to be fast on CPU."""
    logging.getLogger("torchao").setLevel(logging.CRITICAL)  # CUDA libraries that it cannot load
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        model = copy.deepcopy(model)
        quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def our_model(model):
    return peers.ours().quantization.quantize_dynamic(model)


def onnxruntime_call(model, threads):
    """torch.onnx export, onnxruntime's dynamic int8 (per channel), its own pool of `threads`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = [str(Path(folder) / f"{name}.onnx") for name in ("f32", "clean", "int8")]
        _export(model, files[0])
        quant_pre_process(files[0], files[1], skip_symbolic_shape=True)
        quantize_dynamic(files[1], files[2], per_channel=True, weight_type=QuantType.QInt8)
        session, _ = onnxruntime_peer.checked_session(files[2], threads)

    def call(ids, mask):
        feeds = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        return torch.from_numpy(session.run(["hidden"], feeds)[0])

    return call


class _Hidden(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return minilm_model.hidden(self.model, input_ids, attention_mask)


def _export(model, path):
    # Two sequences of 16: an example of size 1 would be specialised.
    ids, mask = minilm_model.inputs(2, 16)
    batch, tokens = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("tokens", min=2, max=512)
    shape = {0: batch, 1: tokens}
    torch.onnx.export(
        _Hidden(model),
        (ids, mask),
        path,
        dynamo=True,
        verbose=False,
        input_names=["input_ids", "attention_mask"],
        output_names=["hidden"],
        dynamic_shapes={"input_ids": shape, "attention_mask": shape},
        optimize=True,
        external_data=False,
    )


def linear_inputs(model, ids, mask):
    """[(name, input)] of every nn.Linear in call order, caught in one forward pass."""
    caught, hooks = [], []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            hooks.append(
                module.register_forward_pre_hook(
                    lambda m, args, name=name: caught.append((name, args[0].detach().clone()))
                )
            )
    try:
        minilm_model.hidden(model, ids, mask)
    finally:
        for hook in hooks:
            hook.remove()
    return caught


def run_linears(model, caught):
    """A call that runs the same-named modules of `model` in sequence, nothing else."""
    steps = [(model.get_submodule(name), x) for name, x in caught]

    def call():
        for module, x in steps:
            module(x)

    return call


def int8_share(model, caught):
    """Fraction of the linear layers' multiplies that run on an int8 weight (by buffers, not by report)."""

    def multiplies(name, x):
        module = model.get_submodule(name)
        return x.numel() * module.out_features

    total = sum(multiplies(name, x) for name, x in caught)
    done = sum(
        multiplies(name, x)
        for name, x in caught
        if "qweight" in dict(model.get_submodule(name).named_buffers())
    )
    return done / total


def model_bytes(model):
    """(int8 bytes, other bytes) of parameters and buffers."""
    tensors = {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()]}.values()
    int8 = sum(t.nbytes for t in tensors if t.dtype in (torch.int8, torch.uint8))
    return int8, sum(t.nbytes for t in tensors) - int8
