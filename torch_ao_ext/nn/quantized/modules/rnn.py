"""LSTM between quantized tensors, on the int8 kernel of the dynamic one."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from torch_ao_ext._quantized_functions import quantize_per_tensor
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import qconfig_of
from torch_ao_ext.nn.quantized._static import QuantizedOutput, integers, observer_of, output_qparams
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent_weights import RecurrentRule, weight_dtype_of
from torch_ao_ext.nn.quantized.dynamic.modules.rnn import LSTM as DynamicLSTM
from torch_ao_ext.nn.quantized.modules.stubs import Quantize

__all__ = ["LSTM"]


def _float(x: Any) -> Any:
    return x.dequantize() if isinstance(x, QuantizedTensor) else x


class LSTM(QuantizedOutput):
    """nn.LSTM with int8 weights; input and output are quantized tensors.

    Inside, rows of the input and the hidden state are quantized by the kernel, finer than one
    scale for the tensor; the output gets the observed qparams.

    Args:
        input_size: see torch.nn.LSTM, as all that follow.
        hidden_size: see torch.nn.LSTM.
        num_layers: see torch.nn.LSTM.
        bias: see torch.nn.LSTM.
        batch_first: see torch.nn.LSTM.
        dropout: kept; a quantized model does not train.
        bidirectional: see torch.nn.LSTM.
        proj_size: see torch.nn.LSTM.

    Example:
        >>> import torch, torch_ao_ext
        >>> nnq = torch_ao_ext.nn.quantized
        >>> x = nnq.Quantize(0.1, 128)(torch.randn(5, 2, 4))
        >>> nnq.LSTM(4, 8)(x)[0].shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
    ) -> None:
        super().__init__()
        self.lstm = DynamicLSTM(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            proj_size=proj_size,
        )  # fmt: skip
        self.quant_hidden = Quantize()
        self.set_output(1.0, 0, torch.uint8)

    def forward(self, x: Any, hidden: Any = None) -> tuple[Any, tuple[QuantizedTensor, torch.Tensor]]:
        """As nn.LSTM.

        Args:
            x: QuantizedTensor `[L, N, K]`, `[N, L, K]` or `[L, K]`, or a PackedSequence of floats.
            hidden: (h, c), quantized or float; default zeros.

        Returns:
            The output with the module's qparams, and (h with those of `quant_hidden`, c in float32).

        Raises:
            TypeError: a float tensor.
        """
        if not isinstance(x, PackedSequence):
            x = QuantizedTensor(*integers(self, x)).dequantize()
        states = None if hidden is None else tuple(_float(state) for state in hidden)
        y, (h, c) = self.lstm(x, states)
        if not isinstance(y, PackedSequence):
            y = quantize_per_tensor(y, *self.qparams)
        return y, (self.quant_hidden(h), c)

    @classmethod
    def from_observed(cls, mod: nn.Module) -> "LSTM":
        """Of an `nn.quantizable.LSTM` that has observed its output, whose `qconfig` is set.

        Raises:
            ValueError: no qconfig or observer, a weight that is not finite or not symmetric.
        """
        names = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
        new = cls.__new__(cls)
        with torch.device("meta"):
            cls.__init__(new, mod.input_size, mod.hidden_size, *(getattr(mod, name) for name in names))
        qconfig = qconfig_of(DynamicLSTM, mod)
        # Its activation observer is that of the output; rows are finer than one scale for all of them.
        new.lstm = DynamicLSTM._of_float(mod, qconfig, RecurrentRule(weight_dtype_of(qconfig)))
        new.quant_hidden = Quantize.from_float(mod.quant_hidden)
        new.set_output(*output_qparams(observer_of(mod, "LSTM"), "LSTM"))
        return new.eval()

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "LSTM":
        """Refused: a float LSTM has no observer of its output.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("LSTM.from_float: use from_observed, on the module that prepare makes")

    def _get_name(self) -> str:
        return "QuantizedLSTM"

    def extra_repr(self) -> str:
        """Output qparams."""
        return self._output_repr()
