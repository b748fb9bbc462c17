"""The module of an island: constants and the program that names them."""

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["Island"]


class Island(nn.Module):
    """Several operators of a lowered graph in one call (`ops.island`).

    Args:
        constants: weights, scales and biases by name, in the program's order, parameters first; a name
            that is taken gets an underscore.
        program: what runs.
    """

    def __init__(self, constants: Sequence[tuple[str, torch.Tensor]], program: str) -> None:
        super().__init__()
        self.program = program
        for name, value in constants:
            while hasattr(self, name):
                name += "_"
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    @property
    def constants(self) -> list[torch.Tensor]:
        """The tensors in the program's order."""
        return [*self._parameters.values(), *self._buffers.values()]

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Runs the program.

        Args:
            inputs: one tensor for each input of the program.

        Returns:
            One tensor for each result.
        """
        return torch.ops.torch_ao.island(inputs, self.constants, self.program)

    @property
    def operators(self) -> int:
        """How many operators the program runs."""
        return len(self.program.splitlines()) - 2

    def extra_repr(self) -> str:
        """The number of operators."""
        return f"{self.operators} operators"
