"""Marks in a float model: here values become int8, here they become float again."""

from typing import Any

import torch
from torch import nn

__all__ = ["DeQuantStub", "QuantStub", "QuantWrapper"]


class QuantStub(nn.Module):
    """Passes its input; `prepare` observes here, `convert` makes an `nn.quantized.Quantize` of it.

    Args:
        qconfig: of this stub; default what it inherits.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import QuantStub
        >>> QuantStub()(torch.tensor([1.0]))
        tensor([1.])
    """

    def __init__(self, qconfig: Any = None) -> None:
        super().__init__()
        if qconfig:
            self.qconfig = qconfig

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any tensor -> itself."""
        return x


class DeQuantStub(nn.Module):
    """Passes its input; `convert` makes an `nn.quantized.DeQuantize` of it.

    Args:
        qconfig: None for a stub that stays as it is.
    """

    def __init__(self, qconfig: Any = None) -> None:
        super().__init__()
        if qconfig:
            self.qconfig = qconfig

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any tensor -> itself."""
        return x


class QuantWrapper(nn.Module):
    """dequant(module(quant(x))): a module between two stubs.

    Args:
        module: any module of one tensor; its qconfig is that of the stubs.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import QuantWrapper
        >>> [name for name, _ in QuantWrapper(torch.nn.Linear(4, 2)).named_children()]
        ['quant', 'dequant', 'module']
    """

    quant: QuantStub
    dequant: DeQuantStub
    module: nn.Module

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        qconfig = getattr(module, "qconfig", None)
        self.add_module("quant", QuantStub(qconfig))
        self.add_module("dequant", DeQuantStub(qconfig))
        self.add_module("module", module)
        self.train(module.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the module takes and gives."""
        return self.dequant(self.module(self.quant(x)))
