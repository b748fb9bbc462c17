"""This library's own rules for weights and for rows that are quantized at run time."""

import torch

from torch_ao_ext.nn.quantized._weight import symmetric_row_scale
from torch_ao_ext.nn.quantized.dynamic.modules.linear import DynamicQuant
from torch_ao_ext.quantization.observer._base import _QINT8, _QUINT8, _SIGNED
from torch_ao_ext.quantization.observer._min_max import PerChannelMinMaxObserver
from torch_ao_ext.quantization.observer._plain import PlaceholderObserver


class ChannelWeightObserver(PerChannelMinMaxObserver):
    """This library's weight rule: `scale[n] = max_k |w[n][k]| / 127.5`, zeros give 1.

    PerChannelMinMaxObserver's symmetric rule without its floor eps (rows of tiny
    weights keep their resolution). `[N, K] -> scale [N]`. Sees one weight, not a stream.

    Args:
        search: "max", or "mse" for the fraction of that scale with the least
            squared error per channel (33 candidates from 0.6 to 1).
        dtype: torch.int8 or qint8.
    """

    def __init__(self, search: str = "max", dtype: torch.dtype = _QINT8) -> None:
        super().__init__(dtype=dtype, qscheme=torch.per_channel_symmetric)
        if dtype not in _SIGNED:
            raise ValueError(f"ChannelWeightObserver: argument 'dtype' must be int8 or qint8, got {dtype}")
        if search not in ("max", "mse"):
            raise ValueError(
                f"ChannelWeightObserver: argument 'search' must be 'max' or 'mse', got {search!r}"
            )
        self.search = search
        self.register_buffer("scale", torch.tensor([]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the scales of the weight x `[N, K]`; a later call replaces them."""
        self.scale = symmetric_row_scale(x.detach().flatten(1), self.search)
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale float32 `[N]` and zero points 0 `[N]`."""
        return self.scale, torch.zeros(self.scale.shape, dtype=torch.int64)


class MixedWeightObserver(ChannelWeightObserver):
    """ChannelWeightObserver, but 16 bits for those weights of recurrent layers that they slow down little.

    For a layer with H units, G gates, R outputs and K inputs: W_hh and W_hr are int16 where
    G * H * R <= 2**18 (an LSTM of 256 units, a GRU of 295), and W_ih then, too, but in a first layer
    only where K <= R / 2, as there its second part is multiplied at every step. Everything else,
    also in cells, which see one step a call, is int8. Sizes alone decide, the same on every CPU.
    Beside an activation observer without a scale for each row, which is every one but
    RowPlaceholderObserver, x and h follow torch.ao's rule, and all weights are int8.
    """

    by_size = True


class RowPlaceholderObserver(PlaceholderObserver):
    """Names this library's run-time quantization of activations.

    Args:
        per_row: one scale and zero point per row `[*, K]`; else one for the tensor.
        symmetric: zero point 0 and values -127..127; else 0..255.
        reduce_range: half the values.
    """

    def __init__(self, per_row: bool = True, symmetric: bool = False, reduce_range: bool = False) -> None:
        super().__init__(dtype=_QINT8 if symmetric else _QUINT8, is_dynamic=True)
        self.dynamic_quant = DynamicQuant(per_row, symmetric, reduce_range)
