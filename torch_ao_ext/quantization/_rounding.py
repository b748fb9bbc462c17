"""Rounding in training, in one pass over the values and one over their gradient."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.quantization.observer import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from torch_ao_ext.quantization.observer._extremes import runs_now

__all__ = ["ends_of", "of_scaled_weight", "rounded", "takes_scaled_weights", "takes_values"]

# They read no more of a weight than the extremes of its rows.
_OBSERVERS = (
    MinMaxObserver, MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Round(torch.autograd.Function):
    """See csrc/ops/fake_quantize.cpp."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, quant_min: int,
        quant_max: int,
    ) -> torch.Tensor:  # fmt: skip
        # The module's buffers change with the next batch.
        scale, zero_point = scale.clone(), zero_point.clone()
        ctx.save_for_backward(x, scale, zero_point)
        ctx.bounds = (quant_min, quant_max)
        return torch.ops.torch_ao._fake_quantize(x, scale, zero_point, quant_min, quant_max)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        x_grad = torch.ops.torch_ao._fake_quantize_backward(grad, *ctx.saved_tensors, *ctx.bounds)
        return x_grad, None, None, None, None


class _RoundScaled(torch.autograd.Function):
    """The same for a weight and the factor of its batch norm."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, factor: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor,
        quant_min: int, quant_max: int,
    ) -> torch.Tensor:  # fmt: skip
        scale, zero_point = scale.clone(), zero_point.clone()
        ctx.save_for_backward(weight, factor, scale, zero_point)
        ctx.bounds = (quant_min, quant_max)
        return torch.ops.torch_ao._weight_fake_quantize(
            weight, factor, scale, zero_point, quant_min, quant_max
        )

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        grads = torch.ops.torch_ao._weight_fake_quantize_backward(grad, *ctx.saved_tensors, *ctx.bounds)
        return *grads, None, None, None, None


def _in_range(module: Any) -> bool:
    """Whether the kernels take the module's bounds."""
    return -128 <= module.quant_min < module.quant_max <= 255


def takes_values(module: Any, x: torch.Tensor) -> bool:
    """Whether `rounded` does what torch's operator per tensor does for this module.

    Args:
        module: a FakeQuantize.
        x: any shape.
    """
    return not module.is_per_channel and _in_range(module) and runs_now(x)


def rounded(module: Any, x: torch.Tensor) -> torch.Tensor:
    """X on the grid of the module's scale and zero point, with gradients."""
    return _Round.apply(x, module.scale, module.zero_point, module.quant_min, module.quant_max)


def ends_of(x: torch.Tensor) -> torch.Tensor:
    """`[smallest, largest]` of what `takes_values`."""
    return torch.ops.torch_ao._min_max(x.detach())


def takes_scaled_weights(module: Any, weight: torch.Tensor) -> bool:
    """Whether `of_scaled_weight` computes what module(weight * factor) / factor does.

    Args:
        module: a FakeQuantize whose forward is the library's own.
        weight: channels on axis 0.
    """
    observer = module.activation_post_process
    hooked = any(getattr(m, name) for m in (module, observer) for name in _HOOKS)
    fits = type(observer) in _OBSERVERS and _in_range(module)
    channels = not module.is_per_channel or (
        module.ch_axis == 0 and module.qscheme != torch.per_channel_affine_float_qparams
    )
    return runs_now(weight) and fits and channels and not hooked and bool(module.fake_quant_enabled[0])


def of_scaled_weight(module: nn.Module, weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """fq(W f) / f.

    Args:
        module: see `takes_scaled_weights`; observes.
        weight: `[N, ...]`.
        factor: `[N]`, not 0.
    """
    with torch.no_grad():
        ends = torch.ops.torch_ao._min_max(weight.detach(), True)
        module(ends * factor.reshape(-1, 1))  # all that its observer reads of the rows
    bounds = (module.quant_min, module.quant_max)
    return _RoundScaled.apply(weight, factor, module.scale, module.zero_point, *bounds)
