"""Dropout between quantized tensors: nothing, as in evaluation mode."""

from torch import nn

__all__ = ["Dropout"]


class Dropout(nn.Dropout):
    """Passes its input; a quantized model does not train.

    Args:
        p: kept for print and state.
        inplace: kept for print.
    """

    def forward(self, input):
        """Any tensor -> itself."""
        return input

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Dropout":
        """Of an nn.Dropout."""
        return cls(mod.p, mod.inplace)

    @classmethod
    def from_reference(cls, mod: nn.Module, scale: float, zero_point: int) -> "Dropout":
        """Of an nn.Dropout; the qparams are those of its input."""
        return cls(mod.p, mod.inplace)

    def _get_name(self) -> str:
        return "QuantizedDropout"
