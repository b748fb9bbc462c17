"""Containers of float layers that convert as one; `fuse_modules` makes them.

Each is a Sequential of its layers, under the name and with the state_dict keys that
torch.ao gives it. The layers must be of the types named, not of subclasses: what those
compute is not known here. A parametrized layer counts as the layer it was.
"""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

__all__ = [
    "BNReLU2d",
    "BNReLU3d",
    "ConvAdd2d",
    "ConvAddReLU2d",
    "ConvBn1d",
    "ConvBn2d",
    "ConvBn3d",
    "ConvBnReLU1d",
    "ConvBnReLU2d",
    "ConvBnReLU3d",
    "ConvReLU1d",
    "ConvReLU2d",
    "ConvReLU3d",
    "LinearBn1d",
    "LinearLeakyReLU",
    "LinearReLU",
    "LinearTanh",
]


class _FusedModule(nn.Sequential):
    """Marks a container that is swapped whole; `_TYPES` are those of its layers, in order."""

    _TYPES: ClassVar[tuple[type[nn.Module], ...]] = ()

    def _check(self, *layers: Any) -> None:
        pairs = zip(layers, self._TYPES, strict=True)
        if any(type_before_parametrizations(layer) is not kind for layer, kind in pairs):
            raise ValueError(
                f"{type(self).__name__}: arguments must be "
                f"{' and '.join(f'nn.{kind.__name__}' for kind in self._TYPES)}, "
                f"got {' and '.join(type(layer).__name__ for layer in layers)}"
            )


class ConvReLU1d(_FusedModule):
    """A 1-D conv and a ReLU."""

    _TYPES = (nn.Conv1d, nn.ReLU)

    def __init__(self, conv: nn.Module, relu: nn.Module) -> None:
        self._check(conv, relu)
        super().__init__(conv, relu)


class ConvReLU2d(_FusedModule):
    """A 2-D conv and a ReLU."""

    _TYPES = (nn.Conv2d, nn.ReLU)

    def __init__(self, conv: nn.Module, relu: nn.Module) -> None:
        self._check(conv, relu)
        super().__init__(conv, relu)


class ConvReLU3d(_FusedModule):
    """A 3-D conv and a ReLU."""

    _TYPES = (nn.Conv3d, nn.ReLU)

    def __init__(self, conv: nn.Module, relu: nn.Module) -> None:
        self._check(conv, relu)
        super().__init__(conv, relu)


class ConvBn1d(_FusedModule):
    """A 1-D conv and its batch norm, which training still updates."""

    _TYPES = (nn.Conv1d, nn.BatchNorm1d)

    def __init__(self, conv: nn.Module, bn: nn.Module) -> None:
        self._check(conv, bn)
        super().__init__(conv, bn)


class ConvBn2d(_FusedModule):
    """A 2-D conv and its batch norm, which training still updates."""

    _TYPES = (nn.Conv2d, nn.BatchNorm2d)

    def __init__(self, conv: nn.Module, bn: nn.Module) -> None:
        self._check(conv, bn)
        super().__init__(conv, bn)


class ConvBn3d(_FusedModule):
    """A 3-D conv and its batch norm, which training still updates."""

    _TYPES = (nn.Conv3d, nn.BatchNorm3d)

    def __init__(self, conv: nn.Module, bn: nn.Module) -> None:
        self._check(conv, bn)
        super().__init__(conv, bn)


class ConvBnReLU1d(_FusedModule):
    """A 1-D conv, its batch norm, which training still updates, and a ReLU."""

    _TYPES = (nn.Conv1d, nn.BatchNorm1d, nn.ReLU)

    def __init__(self, conv: nn.Module, bn: nn.Module, relu: nn.Module) -> None:
        self._check(conv, bn, relu)
        super().__init__(conv, bn, relu)


class ConvBnReLU2d(_FusedModule):
    """A 2-D conv, its batch norm, which training still updates, and a ReLU."""

    _TYPES = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)

    def __init__(self, conv: nn.Module, bn: nn.Module, relu: nn.Module) -> None:
        self._check(conv, bn, relu)
        super().__init__(conv, bn, relu)


class ConvBnReLU3d(_FusedModule):
    """A 3-D conv, its batch norm, which training still updates, and a ReLU."""

    _TYPES = (nn.Conv3d, nn.BatchNorm3d, nn.ReLU)

    def __init__(self, conv: nn.Module, bn: nn.Module, relu: nn.Module) -> None:
        self._check(conv, bn, relu)
        super().__init__(conv, bn, relu)


class BNReLU2d(_FusedModule):
    """A 2-D batch norm and a ReLU."""

    _TYPES = (nn.BatchNorm2d, nn.ReLU)

    def __init__(self, batch_norm: nn.Module, relu: nn.Module) -> None:
        self._check(batch_norm, relu)
        super().__init__(batch_norm, relu)


class BNReLU3d(_FusedModule):
    """A 3-D batch norm and a ReLU."""

    _TYPES = (nn.BatchNorm3d, nn.ReLU)

    def __init__(self, batch_norm: nn.Module, relu: nn.Module) -> None:
        self._check(batch_norm, relu)
        super().__init__(batch_norm, relu)


class LinearReLU(_FusedModule):
    """A linear layer followed by a ReLU.

    Example:
        >>> from torch import nn
        >>> import torch_ao_ext
        >>> len(torch_ao_ext.nn.intrinsic.LinearReLU(nn.Linear(4, 2), nn.ReLU()))
        2
    """

    _TYPES = (nn.Linear, nn.ReLU)

    def __init__(self, linear: nn.Module, relu: nn.Module) -> None:
        self._check(linear, relu)
        super().__init__(linear, relu)


class LinearBn1d(_FusedModule):
    """A linear layer and its batch norm, which training still updates."""

    _TYPES = (nn.Linear, nn.BatchNorm1d)

    def __init__(self, linear: nn.Module, bn: nn.Module) -> None:
        self._check(linear, bn)
        super().__init__(linear, bn)


class LinearLeakyReLU(_FusedModule):
    """A linear layer and a leaky ReLU."""

    _TYPES = (nn.Linear, nn.LeakyReLU)

    def __init__(self, linear: nn.Module, leaky_relu: nn.Module) -> None:
        self._check(linear, leaky_relu)
        super().__init__(linear, leaky_relu)


class LinearTanh(_FusedModule):
    """A linear layer and a tanh."""

    _TYPES = (nn.Linear, nn.Tanh)

    def __init__(self, linear: nn.Module, tanh: nn.Module) -> None:
        self._check(linear, tanh)
        super().__init__(linear, tanh)


class ConvAdd2d(_FusedModule):
    """add(conv(x1), x2): a 2-D conv and a residual sum.

    Args:
        conv: `nn.Conv2d`.
        add: callable of two tensors, as `torch.add` or `FloatFunctional().add`.
    """

    _TYPES = (nn.Conv2d,)

    def __init__(self, conv: nn.Module, add: Any) -> None:
        self._check(conv)
        super().__init__(conv)
        self.add = add

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """`x1` `[N, C, H, W]` through the conv, `x2` of the conv's output shape added."""
        return self.add(self[0](x1), x2)


class ConvAddReLU2d(_FusedModule):
    """relu(add(conv(x1), x2)): a 2-D conv, a residual sum and a ReLU.

    Args:
        conv: `nn.Conv2d`.
        add: callable of two tensors.
        relu: callable of one tensor, as `nn.ReLU()`.
    """

    _TYPES = (nn.Conv2d,)

    def __init__(self, conv: nn.Module, add: Any, relu: Any) -> None:
        self._check(conv)
        super().__init__(conv)
        self.add = add
        self.relu = relu

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """`x1` `[N, C, H, W]` through the conv, `x2` of the conv's output shape added."""
        return self.relu(self.add(self[0](x1), x2))
