"""torch.ao's packed weights of recurrent layers, on plain tensors."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._packed_linear import LinearPackedParams
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent_weights import check_int16

__all__ = ["PackedParameter", "pack_weight_bias"]


def pack_weight_bias(qweight: Any, bias: torch.Tensor | None, dtype: torch.dtype) -> LinearPackedParams:
    """One weight of a recurrent layer, W_ih or W_hh, with its bias.

    Its tensors are what `lstm`, `gru`, `rnn` and their cells take; they pack them on first use.

    Args:
        qweight: `[rows, K]`: quantized for int8 and int16 (at most 32639), else float; see
            `LinearPackedParams.set_weight_bias`.
        bias: float `[rows]`, or None.
        dtype: torch.qint8, int8, int16, bfloat16, or float16 (which no operator takes).

    Raises:
        NotImplementedError: another dtype.
        ValueError: a weight or bias that does not fit, a zero point that is not 0.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.quantized.dynamic.modules.rnn import pack_weight_bias
        >>> w, b = torch.randn(12, 4), torch.zeros(12)
        >>> packed = pack_weight_bias(w, b, torch.bfloat16)
        >>> weight, scale, _, bias = packed._packed_params
        >>> x, h = torch.randn(2, 4), torch.zeros(2, 4)
        >>> torch.ops.torch_ao.gru_cell(x, h, weight, scale, weight, scale, bias, bias).shape
        torch.Size([2, 4])
    """
    packed = LinearPackedParams(dtype)
    packed.set_weight_bias(qweight, bias)
    if packed.weight_zero_point is not None:
        raise ValueError(
            f"pack_weight_bias: argument 'qweight' must have zero point 0, got {packed.weight_zero_point}"
        )
    check_int16("pack_weight_bias: argument 'qweight'", packed.qweight)
    packed.weight_scale = packed.weight_scale.expand(len(packed.qweight)).clone()
    return packed


class PackedParameter(nn.Module):
    """Holds one packed weight, or a tensor, so that it is in the state_dict of a model.

    Args:
        param: what `pack_weight_bias` gives, another module that keeps its tensors in its state_dict
            (`nn.ModuleList` of several), or a tensor, whose place a state_dict may fill with any other.

    Raises:
        TypeError: anything else.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.quantized.dynamic.modules.rnn import PackedParameter
        >>> list(PackedParameter(torch.ones(2)).state_dict())
        ['param']
    """

    def __init__(self, param: nn.Module | torch.Tensor) -> None:
        super().__init__()
        if isinstance(param, (nn.Module, nn.Parameter)):
            self.param = param
        elif isinstance(param, torch.Tensor):
            self.register_buffer("param", param)
        else:
            raise TypeError(
                "PackedParameter: argument 'param' must be a module (pack_weight_bias) or a tensor, got "
                f"{type(param).__name__}"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        value = state_dict.get(prefix + "param")
        if isinstance(value, torch.Tensor) and "param" in self._buffers:
            self._buffers["param"] = torch.empty_like(value, device=self._buffers["param"].device)
        super()._load_from_state_dict(state_dict, prefix, *args)
