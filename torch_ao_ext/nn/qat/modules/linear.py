"""Linear layer with a fake-quantized weight."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from torch_ao_ext.nn.qat.modules._base import QATModule

__all__ = ["Linear"]


class Linear(QATModule, nn.Linear):
    """`nn.Linear` with a fake-quantized weight.

    Args:
        in_features: K.
        out_features: N.
        bias: with a bias.
        qconfig: its `weight` makes the fake-quantize module.
        device: see torch.nn.Linear.
        dtype: see torch.nn.Linear.

    Raises:
        ValueError: no qconfig.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.qat import Linear
        >>> from torch_ao_ext.quantization import default_qat_qconfig
        >>> Linear(4, 2, qconfig=default_qat_qconfig)(torch.randn(3, 4)).shape
        torch.Size([3, 2])
    """

    _FLOAT_MODULE = _FLOAT_BASE = nn.Linear
    _ARGUMENTS = ("in_features", "out_features", "bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        qconfig: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self._set_qconfig(qconfig)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`[*, K]` -> `[*, N]`."""
        return F.linear(input, self.weight_fake_quant(self.weight), self.bias)

    @classmethod
    def _parts(cls, mod: nn.Module) -> tuple[nn.Module, ...]:
        if type(mod) is nn.modules.linear.NonDynamicallyQuantizableLinear and cls._FLOAT_MODULE is nn.Linear:
            return (mod,)
        return super()._parts(mod)
