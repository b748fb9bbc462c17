"""PyTorch's own float32 and bfloat16, eager and compiled."""

from collections import Counter

import torch
from torch import nn

from benchmarks.peers.case import Built, counted


def compiled_now(module, inputs):
    """`module` under torch.compile with freezing, compiled for these inputs.

    Dynamo reads `freezing` while it traces, before `options` take effect: the switch is set around the first
    call. No cache, so that the counters of the fusions count.
    """
    torch._dynamo.config.recompile_limit = 64
    fast = torch.compile(module, dynamic=False, fullgraph=True)
    with torch._inductor.config.patch(freezing=True, force_disable_caches=True):
        fast(*inputs)
    return fast


def float32(case):
    """Eager float32; the file is its trace."""
    file = case.traced(case.model, "float")[1] if case.saves else None
    return Built(case.model, "torch float32", file, "torchscript")


def float32_compiled(case):
    """float32 under torch.compile, weights frozen."""
    return Built(compiled_now(case.model, case.inputs), "Inductor, frozen weights")


def bfloat16_compiled(case):
    """float32 weights under autocast to bfloat16 and torch.compile, weights frozen."""
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    seen = _output_types(case)
    ran = f"layers under autocast: {counted(seen)}; oneDNN has bfloat16 here: {'yes' if native else 'no'}"
    if not native or seen["bfloat16"] == 0:
        raise RuntimeError(f"no bfloat16 peer: {ran}")
    with torch.autocast("cpu", torch.bfloat16):
        fast = compiled_now(case.model, case.inputs)

    def call(*inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return fast(*inputs).float()

    return Built(call, ran)


def _output_types(case):
    """Types that layers give under autocast."""
    seen, hooks = Counter(), []

    def note(module, arguments, output):
        seen[str((output[0] if isinstance(output, tuple) else output).dtype).removeprefix("torch.")] += 1

    for module in case.model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.RNNBase):
            hooks.append(module.register_forward_hook(note))
    try:
        with torch.autocast("cpu", torch.bfloat16):
            case.model(*case.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def load_torchscript(file, threads):
    """For a fresh process."""
    torch.set_num_threads(threads)
    model = torch.jit.load(str(file))
    return lambda *inputs: model(*inputs)
