"""Recurrent layers and cells that round their weights; arguments and input of the float classes."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized.reference.modules.utils import (
    ReferenceWeights,
    observed_qparams,
)

__all__ = [
    "GRU",
    "LSTM",
    "GRUCell",
    "LSTMCell",
    "RNNBase",
    "RNNCell",
    "RNNCellBase",
    "get_quantized_weight",
]


class _Recurrent(ReferenceWeights):
    """`weight_qparams_dict`: weight name -> what `ReferenceQuantizedModule` takes, and "is_decomposed"."""

    def __init__(
        self, *args: Any, weight_qparams_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._init_weight_qparams_dict(weight_qparams_dict)

    def _init_weight_qparams_dict(self, weight_qparams_dict: dict[str, Any] | None) -> None:
        names, given = self.weight_names(), weight_qparams_dict
        if given is None:
            given = dict.fromkeys(names)
        wrong = sorted((set(given) - {"is_decomposed"}) ^ set(names))
        if wrong:
            raise ValueError(
                f"{type(self).__name__}: argument 'weight_qparams_dict' must have the keys {names} and "
                f"'is_decomposed', missing or unknown: {wrong}"
            )
        self.is_decomposed = bool(given.get("is_decomposed", False))
        for name in names:
            self._set_qparams(name, given[name])

    @classmethod
    def from_float(
        cls,
        mod: nn.Module,
        weight_qparams_dict: dict[str, Any] | None = None,
        use_precomputed_fake_quant: bool = False,
    ) -> Any:
        """Reference copy of a float layer; the weights' memory is shared.

        Args:
            mod: layer of the float class.
            weight_qparams_dict: see the class; default what the weight observer of `mod.qconfig`
                finds, one observer per weight.
            use_precomputed_fake_quant: accepted, has no effect.

        Raises:
            ValueError: another type, weights that are not finite, qparams that do not fit.
        """
        new = cls._copy_of(mod)
        if weight_qparams_dict is None:
            names = new.weight_names()
            weight_qparams_dict = {name: observed_qparams(cls.__name__, mod, name) for name in names}
        new._init_weight_qparams_dict(weight_qparams_dict)
        return new


def get_quantized_weight(module: ReferenceWeights, wn: str) -> torch.Tensor | None:
    """Integers of the weight of this name; None when the layer has none.

    Args:
        module: reference layer or cell.
        wn: name of the parameter, "weight_ih_l0" for one.
    """
    return module._quantized(wn) if wn in module.weight_names() else None


class RNNCellBase(_Recurrent):
    """Base of the cells: put before the float class in the bases."""

    def weight_names(self) -> list[str]:
        """Of the input and of the hidden state."""
        return ["weight_ih", "weight_hh"]

    def get_weight_ih(self) -> torch.Tensor:
        """The rounded weight of the input."""
        return self._dequantized("weight_ih")

    def get_weight_hh(self) -> torch.Tensor:
        """The rounded weight of the hidden state."""
        return self._dequantized("weight_hh")

    def get_quantized_weight_ih(self) -> torch.Tensor:
        """Integers of the weight of the input."""
        return self._quantized("weight_ih")

    def get_quantized_weight_hh(self) -> torch.Tensor:
        """Integers of the weight of the hidden state."""
        return self._quantized("weight_hh")


class RNNCell(RNNCellBase, nn.RNNCell):
    """nn.RNNCell on rounded weights."""

    _FLOAT = nn.RNNCell


class LSTMCell(RNNCellBase, nn.LSTMCell):
    """nn.LSTMCell on rounded weights."""

    _FLOAT = nn.LSTMCell


class GRUCell(RNNCellBase, nn.GRUCell):
    """nn.GRUCell on rounded weights."""

    _FLOAT = nn.GRUCell


class RNNBase(_Recurrent):
    """Base of the layers: put before the float class in the bases."""

    def weight_names(self) -> list[str]:
        """Weights of all layers and directions."""
        return [name for name in self._flat_weights_names if name.startswith("weight")]

    def get_quantized_weight_bias_dict(self) -> dict[str, torch.Tensor | None]:
        """Parameter name -> integers of a weight, or the float bias."""
        own = self.weight_names()
        names = self._flat_weights_names
        return {n: self._quantized(n) if n in own else getattr(self, n, None) for n in names}


class LSTM(RNNBase, nn.LSTM):
    """nn.LSTM on rounded weights, with all of its arguments (projections, packed sequences too).

    Example:
        >>> import torch, torch_ao_ext
        >>> from torch_ao_ext.quantization import default_qconfig
        >>> layer = torch.nn.LSTM(4, 8)
        >>> layer.qconfig = default_qconfig
        >>> copy = torch_ao_ext.nn.quantized.reference.LSTM.from_float(layer)
        >>> copy(torch.randn(3, 1, 4))[0].shape
        torch.Size([3, 1, 8])
    """

    _FLOAT = nn.LSTM


class GRU(RNNBase, nn.GRU):
    """nn.GRU on rounded weights."""

    _FLOAT = nn.GRU
