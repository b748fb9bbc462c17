"""LSTM and LSTM cell whose result is observed."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from torch_ao_ext.nn._stubs import QuantStub

__all__ = ["LSTM", "LSTMCell"]


def _observed(module: nn.Module, value: Any) -> Any:
    observer = module._modules.get("activation_post_process")
    if observer is None:
        return value
    if isinstance(value, PackedSequence):
        observer(value.data)
        return value
    return observer(value)


class _Shared:
    """from_float that takes the parameters over."""

    _NAMES: tuple[str, ...] = ()

    @classmethod
    def from_float(cls, mod: nn.Module) -> Any:
        """Of torch's module of this name; the parameters are shared.

        Raises:
            ValueError: another type.
        """
        base = cls.__mro__[2]
        if type(mod) is not base:
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.{base.__name__}, "
                f"got {type(mod).__name__}"
            )
        new = cls(**{name: getattr(mod, name) for name in cls._NAMES})
        for name, parameter in mod._parameters.items():
            setattr(new, name, parameter)
        return new.train(mod.training)


class LSTM(_Shared, nn.LSTM):
    """nn.LSTM whose output is observed; `convert` makes an `nn.quantized.LSTM` of it.

    `prepare` puts it in the place of nn.LSTM. Gates and states need no observers: the int8
    kernel quantizes them by itself.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.quantizable import LSTM
        >>> LSTM(4, 8)(torch.randn(5, 2, 4))[0].shape
        torch.Size([5, 2, 8])
    """

    _NAMES = (
        "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional",
        "proj_size",
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quant_hidden = QuantStub()  # h of all layers: its range is not that of the output

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, tuple[torch.Tensor, torch.Tensor]]:
        """As nn.LSTM."""
        y, (h, c) = super().forward(input, hx)
        return _observed(self, y), (self.quant_hidden(h), c)


class LSTMCell(_Shared, nn.LSTMCell):
    """nn.LSTMCell whose hidden state is observed.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.quantizable import LSTMCell
        >>> LSTMCell(4, 8)(torch.randn(2, 4))[0].shape
        torch.Size([2, 8])
    """

    _NAMES = ("input_size", "hidden_size", "bias")

    def forward(self, input: torch.Tensor, hx: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """As nn.LSTMCell."""
        h, c = super().forward(input, hx)
        return _observed(self, h), c
