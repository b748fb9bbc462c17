"""Smallest and largest values, in one pass on all threads."""

import torch
from torch import nn

__all__ = ["extremes", "row_extremes", "runs_now"]


def runs_now(x: torch.Tensor) -> bool:
    """Whether operators of this library may stand for torch's on x.

    Float32 on a CPU, and nothing that records torch's operators: traces, exports (ONNX among them),
    compilers and function transforms know those.
    """
    return (
        type(x) in (torch.Tensor, nn.Parameter)
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and torch._C._functorch.maybe_current_level() is None
        and torch._C._len_torch_dispatch_stack() == 0
    )


def extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """torch.aminmax(x); both NaN if any value is."""
    if torch.jit.is_scripting():
        low, high = torch.aminmax(x)
    elif runs_now(x):
        low, high = torch.ops.torch_ao._min_max(x)
    else:
        low, high = torch.aminmax(x)
    return low, high


def row_extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """torch.aminmax(x, dim=1) of `[N, K]`."""
    if torch.jit.is_scripting():
        low, high = torch.aminmax(x, dim=1)
    elif runs_now(x):
        ends = torch.ops.torch_ao._min_max(x, True)
        low, high = ends[:, 0].contiguous(), ends[:, 1].contiguous()
    else:
        low, high = torch.aminmax(x, dim=1)
    return low, high
