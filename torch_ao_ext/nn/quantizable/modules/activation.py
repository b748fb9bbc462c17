"""Multi-head attention whose projections are layers that can be observed."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn._stubs import DeQuantStub, QuantStub
from torch_ao_ext.nn.quantized._attention import Attention

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Attention):
    """nn.MultiheadAttention as three linear layers, attention, a linear layer, with stubs between.

    `prepare` puts it in the place of nn.MultiheadAttention and observes its parts; `convert`
    makes an `nn.quantized.MultiheadAttention` of it: int8 projections, float attention.

    Args:
        embed_dim: E.
        num_heads: divides E.
        dropout: of the attention weights, in training mode.
        bias: with biases of the projections.
        add_bias_kv: appends a learned key and value.
        add_zero_attn: appends a key and value of zeros.
        kdim: features of the key; default E.
        vdim: features of the value; default E.
        batch_first: `[B, L, E]` instead of `[L, B, E]`.
        device: of the parameters.
        dtype: of the float parameters.

    Raises:
        ValueError: num_heads does not divide embed_dim.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.quantizable import MultiheadAttention
        >>> x = torch.randn(5, 2, 8)
        >>> MultiheadAttention(8, 2)(x, x, x)[0].shape
        torch.Size([5, 2, 8])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._set_sizes(embed_dim, num_heads, dropout, add_zero_attn, kdim, vdim, batch_first)
        self._make_layers(bias)
        self.bias_k = nn.Parameter(torch.zeros(1, 1, embed_dim)) if add_bias_kv else None
        self.bias_v = nn.Parameter(torch.zeros(1, 1, embed_dim)) if add_bias_kv else None
        if add_bias_kv:
            nn.init.xavier_normal_(self.bias_k)
            nn.init.xavier_normal_(self.bias_v)
        self.to(device, dtype)

    def _make_layers(self, bias: bool) -> None:
        self.linear_Q = nn.Linear(self.embed_dim, self.embed_dim, bias)
        self.linear_K = nn.Linear(self.kdim, self.embed_dim, bias)
        self.linear_V = nn.Linear(self.vdim, self.embed_dim, bias)
        self.out_proj = nn.Linear(self.embed_dim, self.embed_dim, bias)
        self.quant_attn_output, self.quant_attn_output_weights = QuantStub(), QuantStub()
        self.dequant_q, self.dequant_k, self.dequant_v = DeQuantStub(), DeQuantStub(), DeQuantStub()

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Any, Any]:
        """See nn.MultiheadAttention.forward: same arguments, shapes and results.

        Raises:
            ValueError: a mask of the wrong shape or dtype.
            RuntimeError: `is_causal` without `attn_mask`.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("MultiheadAttention: is_causal needs attn_mask")
        q = self.dequant_q(self.linear_Q(query))
        k = self.dequant_k(self.linear_K(key))
        v = self.dequant_v(self.linear_V(value))
        y, weights = self._attend(
            q, k, v, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
        y = self.out_proj(self.quant_attn_output(y))
        return y, None if weights is None else self.quant_attn_output_weights(weights)

    @classmethod
    def from_float(cls, mod: nn.Module) -> "MultiheadAttention":
        """Of an nn.MultiheadAttention; the parameters are copied.

        Raises:
            ValueError: another type.
        """
        if type(mod) is not nn.MultiheadAttention:
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.MultiheadAttention, "
                f"got {type(mod).__name__}"
            )
        has_bias = mod.in_proj_bias is not None
        new = cls(
            mod.embed_dim, mod.num_heads, mod.dropout, has_bias, mod.bias_k is not None, mod.add_zero_attn,
            mod.kdim, mod.vdim, mod.batch_first,
        )  # fmt: skip
        if mod._qkv_same_embed_dim:
            weights = mod.in_proj_weight.chunk(3)
        else:
            weights = (mod.q_proj_weight, mod.k_proj_weight, mod.v_proj_weight)
        biases = mod.in_proj_bias.chunk(3) if has_bias else (None, None, None)
        sources = [*zip(weights, biases, strict=True), (mod.out_proj.weight, mod.out_proj.bias)]
        layers = (new.linear_Q, new.linear_K, new.linear_V, new.out_proj)
        with torch.no_grad():
            for layer, (weight, bias) in zip(layers, sources, strict=True):
                layer.weight.copy_(weight)
                if bias is not None:
                    layer.bias.copy_(bias)
            if mod.bias_k is not None:
                new.bias_k.copy_(mod.bias_k)
                new.bias_v.copy_(mod.bias_v)
        return new.train(mod.training)

    def dequantize(self) -> nn.MultiheadAttention:
        """The nn.MultiheadAttention with these parameters, copied; int8 ones as the floats they stand for."""
        layers = (self.linear_Q, self.linear_K, self.linear_V, self.out_proj)
        has_bias = _weight_and_bias(self.out_proj)[1] is not None
        mod = nn.MultiheadAttention(
            self.embed_dim, self.num_heads, self.dropout, has_bias, self.bias_k is not None,
            self.add_zero_attn, self.kdim, self.vdim, self.batch_first,
        )  # fmt: skip
        parts = [_weight_and_bias(layer) for layer in layers]
        with torch.no_grad():
            if mod._qkv_same_embed_dim:
                mod.in_proj_weight.copy_(torch.cat([weight for weight, _ in parts[:3]]))
            else:
                for name, (weight, _) in zip("qkv", parts[:3], strict=True):
                    getattr(mod, f"{name}_proj_weight").copy_(weight)
            mod.out_proj.weight.copy_(parts[3][0])
            if has_bias:
                mod.in_proj_bias.copy_(torch.cat([bias for _, bias in parts[:3]]))
                mod.out_proj.bias.copy_(parts[3][1])
            if self.bias_k is not None:
                mod.bias_k.copy_(self.bias_k)
                mod.bias_v.copy_(self.bias_v)
        return mod.train(self.training)

    def _get_name(self) -> str:
        return "QuantizableMultiheadAttention"


def _weight_and_bias(layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Float values of a layer, int8 or not."""
    if isinstance(layer, nn.Linear):
        return layer.weight, layer.bias
    return layer.weight().dequantize(), layer.bias()
