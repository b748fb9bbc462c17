"""Modules that record values: loggers, and a quantized module with the float one beside it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor

__all__ = ["Logger", "OutputLogger", "Shadow", "ShadowLogger"]


def _as_float(value: Any) -> Any:
    if isinstance(value, QuantizedTensor):
        return value.dequantize()
    if isinstance(value, (tuple, list)):
        return type(value)(_as_float(part) for part in value)
    return value.detach() if isinstance(value, torch.Tensor) else value


class Logger(nn.Module):
    """Base of what records values; `stats` is the record."""

    def __init__(self) -> None:
        super().__init__()
        self.stats: dict[str, list[Any]] = {}

    def forward(self, x: Any) -> Any:
        """Passes x."""
        return x


class ShadowLogger(Logger):
    """Records under "float" what the float layer gave, under "quantized" what the quantized one gave."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = {"float": [], "quantized": []}

    def forward(self, x: Any, y: Any) -> None:
        """Records x, of the quantized layer, and y, of the float one."""
        if isinstance(x, (tuple, list)):  # recurrent layers: the result without the states
            x, y = x[0], y[0]
        self.stats["quantized"].append(_as_float(x))
        self.stats["float"].append(_as_float(y))


class OutputLogger(Logger):
    """Records under "tensor_val" each value that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = {"tensor_val": []}

    def forward(self, x: Any) -> Any:
        """Records x, passes it."""
        self.stats["tensor_val"].append(_as_float(x))
        return x


class Shadow(nn.Module):
    """A quantized module with the float one beside it, both on the input of the quantized one.

    Args:
        q_module: its results count.
        float_module: gets the dequantized input.
        logger_cls: made once; gets both results.
    """

    def __init__(self, q_module: nn.Module, float_module: nn.Module, logger_cls: Callable[[], Any]) -> None:
        super().__init__()
        self.orig_module = q_module
        self.shadow_module = float_module
        self.logger = logger_cls()

    def _both(self, name: str, *args: Any, **kwargs: Any) -> Any:
        result = getattr(self.orig_module, name)(*args, **kwargs)
        shadow = getattr(self.shadow_module, name)(*map(_as_float, args), **kwargs)
        self.logger(result, shadow)
        return result

    def forward(self, *x: Any, **kwargs: Any) -> Any:
        """The quantized module's result."""
        return self._both("forward", *x, **kwargs)

    def add(self, x: Any, y: Any) -> Any:
        """As QFunctional.add."""
        return self._both("add", x, y)

    def add_scalar(self, x: Any, y: float) -> Any:
        """As QFunctional.add_scalar."""
        return self._both("add_scalar", x, y)

    def mul(self, x: Any, y: Any) -> Any:
        """As QFunctional.mul."""
        return self._both("mul", x, y)

    def mul_scalar(self, x: Any, y: float) -> Any:
        """As QFunctional.mul_scalar."""
        return self._both("mul_scalar", x, y)

    def cat(self, x: list[Any], dim: int = 0) -> Any:
        """As QFunctional.cat."""
        return self._both("cat", x, dim)

    def add_relu(self, x: Any, y: Any) -> Any:
        """As QFunctional.add_relu."""
        return self._both("add_relu", x, y)
