"""Multi-head attention between quantized tensors: int8 projections, float attention."""

from torch import nn

from torch_ao_ext.nn.quantizable.modules.activation import MultiheadAttention as Quantizable
from torch_ao_ext.nn.quantized._static import saw_data
from torch_ao_ext.nn.quantized.modules.linear import Linear
from torch_ao_ext.nn.quantized.modules.stubs import DeQuantize, Quantize

__all__ = ["MultiheadAttention"]

_PROJECTIONS = ("linear_Q", "linear_K", "linear_V", "out_proj")
_QUANTS = ("quant_attn_output", "quant_attn_output_weights")
_DEQUANTS = ("dequant_q", "dequant_k", "dequant_v")


class MultiheadAttention(Quantizable):
    """`nn.quantizable.MultiheadAttention` with int8 projections; takes and gives quantized tensors.

    Attention itself, from scores to the weighted sum, is computed in float32. Masks are float
    or bool tensors.
    """

    def _make_layers(self, bias: bool) -> None:
        self.linear_Q = Linear(self.embed_dim, self.embed_dim, bias)
        self.linear_K = Linear(self.kdim, self.embed_dim, bias)
        self.linear_V = Linear(self.vdim, self.embed_dim, bias)
        self.out_proj = Linear(self.embed_dim, self.embed_dim, bias)
        for name in _QUANTS:
            setattr(self, name, Quantize())
        for name in _DEQUANTS:
            setattr(self, name, DeQuantize())

    @classmethod
    def from_observed(cls, mod: nn.Module) -> "MultiheadAttention":
        """Of an `nn.quantizable.MultiheadAttention` whose parts have observed.

        Attention weights that were never asked for stay float.

        Raises:
            ValueError: a part without observer, a weight that is not finite, an unsupported qconfig.
        """
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.__dict__.update({k: v for k, v in mod.__dict__.items() if not k.startswith("_")})
        new._parameters.update(mod._parameters)
        for name in _PROJECTIONS:
            setattr(new, name, Linear.from_float(getattr(mod, name)))
        for name in _QUANTS:
            stub = getattr(mod, name)
            observer = getattr(stub, "activation_post_process", None)
            setattr(new, name, Quantize.from_float(stub) if saw_data(observer) else nn.Identity())
        for name in _DEQUANTS:
            setattr(new, name, DeQuantize())
        new.__dict__.pop("qconfig", None)
        return new.eval()

    def _get_name(self) -> str:
        return "QuantizedMultiheadAttention"
