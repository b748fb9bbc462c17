"""Containers of float layers that convert as one."""

from torch import nn

__all__ = ["LinearReLU"]


class _FusedModule(nn.Sequential):
    """Marks a container that is swapped whole."""


class LinearReLU(_FusedModule):
    """A linear layer followed by a ReLU.

    Example:
        >>> from torch import nn
        >>> import torch_ao_ext
        >>> len(torch_ao_ext.nn.intrinsic.LinearReLU(nn.Linear(4, 2), nn.ReLU()))
        2
    """

    def __init__(self, linear: nn.Module, relu: nn.Module) -> None:
        if not isinstance(linear, nn.Linear) or not isinstance(relu, nn.ReLU):
            raise ValueError(
                "LinearReLU: arguments must be nn.Linear and nn.ReLU, "
                f"got {type(linear).__name__} and {type(relu).__name__}"
            )
        super().__init__(linear, relu)
