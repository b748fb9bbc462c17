"""Fake quantization whose scale and zero point are parameters (Esser et al. 2020, "LSQ")."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.quantization.fake_quantize import FakeQuantizeBase

__all__: list[str] = []

_SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)
_PER_CHANNEL = (torch.per_channel_symmetric, torch.per_channel_affine)


class _LearnableFakeQuantize(FakeQuantizeBase):
    """Rounds x to q steps of `scale` around `zero_point`, both of which training can learn.

    Three phases, by the methods `enable_static_observation` (record, do not round),
    `enable_static_estimate` (record, round with the observer's qparams; the initial one) and
    `enable_param_learning` (gradients move the qparams).

    Args:
        observer: class or factory of an observer.
        quant_min: smallest quantized value.
        quant_max: largest quantized value, above quant_min.
        scale: initial value.
        zero_point: initial value.
        channel_len: number of channels of a per-channel observer; -1: one scale.
        use_grad_scaling: scale gradients by 1 / sqrt(numel * quant_max).
        observer_kwargs: further arguments of the observer.

    Raises:
        ValueError: a range that is empty or outside the observer's dtype, channel_len < 1.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.observer import MovingAverageMinMaxObserver
        >>> from torch_ao_ext.quantization._learnable_fake_quantize import _LearnableFakeQuantize
        >>> _LearnableFakeQuantize(MovingAverageMinMaxObserver)(torch.randn(3)).shape
        torch.Size([3])
    """

    scale: nn.Parameter
    zero_point: nn.Parameter
    eps: torch.Tensor
    static_enabled: torch.Tensor
    learning_enabled: torch.Tensor

    def __init__(
        self,
        observer: Any,
        quant_min: int = 0,
        quant_max: int = 255,
        scale: float = 1.0,
        zero_point: float = 0.0,
        channel_len: int = -1,
        use_grad_scaling: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        super().__init__()
        name = "_LearnableFakeQuantize"
        if quant_min >= quant_max:
            raise ValueError(
                f"{name}: argument 'quant_min' must be below quant_max ({quant_max}), got {quant_min}"
            )
        if channel_len != -1 and channel_len < 1:
            raise ValueError(f"{name}: argument 'channel_len' must be -1 or positive, got {channel_len}")
        made = observer(quant_min=quant_min, quant_max=quant_max, **observer_kwargs)
        limits = torch.iinfo(made.dtype)
        if quant_min < limits.min or quant_max > limits.max:
            raise ValueError(
                f"{name}: quant_min and quant_max must be in [{limits.min}, {limits.max}], "
                f"got {quant_min} and {quant_max}"
            )
        self.activation_post_process = made
        self.quant_min, self.quant_max = quant_min, quant_max
        self.use_grad_scaling = use_grad_scaling
        self.dtype, self.qscheme = made.dtype, made.qscheme
        self.ch_axis = getattr(made, "ch_axis", -1)
        self.bitwidth = (quant_max - quant_min).bit_length()
        count = max(1, channel_len)
        self.scale = nn.Parameter(torch.full((count,), float(scale)))
        self.zero_point = nn.Parameter(torch.full((count,), float(zero_point)))
        self.register_buffer("static_enabled", torch.tensor([1], dtype=torch.uint8))
        self.register_buffer("learning_enabled", torch.tensor([0], dtype=torch.uint8))
        self.register_buffer("eps", torch.tensor([torch.finfo(torch.float32).eps]))

    def _phase(self, *, learn: bool, round_: bool, observe: bool) -> "_LearnableFakeQuantize":
        return self.toggle_qparam_learning(learn).toggle_fake_quant(round_).toggle_observer_update(observe)

    def enable_param_learning(self) -> "_LearnableFakeQuantize":
        """Gradients move the qparams, the observer rests."""
        return self._phase(learn=True, round_=True, observe=False)

    def enable_static_estimate(self) -> "_LearnableFakeQuantize":
        """The observer sets the qparams."""
        return self._phase(learn=False, round_=True, observe=True)

    def enable_static_observation(self) -> "_LearnableFakeQuantize":
        """The observer records; values pass as they are."""
        return self._phase(learn=False, round_=False, observe=True)

    def toggle_observer_update(self, enabled: bool = True) -> "_LearnableFakeQuantize":
        """Whether the observer sets the qparams."""
        self.static_enabled[0] = int(enabled)
        return self

    def enable_observer(self, enabled: bool = True) -> None:
        """As toggle_observer_update."""
        self.toggle_observer_update(enabled)

    def toggle_qparam_learning(self, enabled: bool = True) -> "_LearnableFakeQuantize":
        """Whether the qparams get gradients."""
        self.learning_enabled[0] = int(enabled)
        self.scale.requires_grad_(enabled)
        self.zero_point.requires_grad_(enabled)
        return self

    def toggle_fake_quant(self, enabled: bool = True) -> "_LearnableFakeQuantize":
        """Whether values are rounded."""
        self.fake_quant_enabled[0] = int(enabled)
        return self

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale float32 and zero point int64 `[1]` or `[C]`, as forward rounds with."""
        scale = self.scale.detach().clamp(min=float(self.eps))
        zero_point = self.zero_point.detach().round().clamp(self.quant_min, self.quant_max)
        return scale, zero_point.to(torch.int64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x, rounded while fake quantization is enabled; same shape."""
        if x.numel() == 0:
            return x
        with torch.no_grad():
            if self.static_enabled[0] == 1:
                self.activation_post_process(x.detach())
                scale, zero_point = self.activation_post_process.calculate_qparams()
                self.scale.copy_(scale)
                self.zero_point.copy_(zero_point)
            self.scale.clamp_(min=float(self.eps))
            if self.qscheme in _SYMMETRIC and torch.iinfo(self.dtype).min < 0:
                self.zero_point.zero_()
        if self.fake_quant_enabled[0] != 1:
            return x
        factor = (x.numel() * self.quant_max) ** -0.5 if self.use_grad_scaling else 1.0
        qparams = (self.scale, self.zero_point)
        if self.qscheme in _PER_CHANNEL:
            return torch._fake_quantize_learnable_per_channel_affine(
                x, *qparams, self.ch_axis, self.quant_min, self.quant_max, factor
            )
        return torch._fake_quantize_learnable_per_tensor_affine(
            x, *qparams, self.quant_min, self.quant_max, factor
        )
