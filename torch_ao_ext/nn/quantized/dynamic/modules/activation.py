"""Multi-head attention whose four projections run in int8."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._attention import Attention
from torch_ao_ext.nn.quantized._observed import QuantizedWeight, qconfig_of, quantize_weight
from torch_ao_ext.nn.quantized._state import LOAD_FLOAT_FIRST
from torch_ao_ext.nn.quantized.dynamic.modules import _in_proj_state
from torch_ao_ext.nn.quantized.dynamic.modules.linear import Linear, dynamic_quant_of

__all__ = ["MultiheadAttention"]


def _concatenate(parts: list[QuantizedWeight]) -> QuantizedWeight:
    """One [sum N, K] weight of several; a per-tensor scale is repeated for its rows."""
    scales = [part.scale.expand(part.data.shape[0]) for part in parts]
    points = None
    if any(part.zero_point is not None for part in parts):
        points = torch.cat(
            [
                torch.zeros(part.data.shape[0], dtype=torch.int32)
                if part.zero_point is None
                else part.zero_point.expand(part.data.shape[0])
                for part in parts
            ]
        )
    return QuantizedWeight(torch.cat([part.data for part in parts]), torch.cat(scales), points)


class MultiheadAttention(Attention):
    """nn.MultiheadAttention with int8 projections, float attention.

    Takes and returns what nn.MultiheadAttention does: `batch_first`, `kdim` /
    `vdim`, `bias_k` / `bias_v`, `add_zero_attn`, both masks, weights averaged or
    per head. Attention itself is `ops.scaled_dot_product_attention` when weights
    are not asked for, torch's in other dtypes than float32.

    The state is that of the projections, `out_proj` and either `q_proj`,
    `k_proj`, `v_proj` or, when `packed_in_proj` is set, one `in_proj` of `3 * embed_dim`
    rows. Both give the same numbers. The packed form quantizes the input once, for
    self-attention; a cross-attention call on it computes rows that it drops.
    `load_state_dict` takes either form. A state_dict of float weights belongs into
    the float module, before conversion.

    Made by `from_float`; the constructor gives zero weights for `load_state_dict`.
    """

    # Constants: TorchScript must not compile the branch whose layers do not exist.
    __constants__ = ["packed_in_proj", "batch_first", "add_zero_attn"]

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
        packed_in_proj: bool = False,
    ) -> None:
        super().__init__()
        self._set_sizes(embed_dim, num_heads, dropout, add_zero_attn, kdim, vdim, batch_first)
        self.packed_in_proj = packed_in_proj
        # Core's TransformerEncoderLayer asks these to choose its fused float
        # path, which must not run: it reads float weights.
        self._qkv_same_embed_dim = False
        self.in_proj_weight = None
        self.in_proj_bias = None
        if packed_in_proj:
            if self.kdim != embed_dim or self.vdim != embed_dim:
                raise ValueError(
                    "MultiheadAttention: argument 'packed_in_proj' must be False when kdim or "
                    f"vdim differ from embed_dim, got kdim={kdim}, vdim={vdim}"
                )
            self.in_proj = Linear(embed_dim, 3 * embed_dim, bias)
        else:
            self.q_proj = Linear(embed_dim, embed_dim, bias)
            self.k_proj = Linear(self.kdim, embed_dim, bias)
            self.v_proj = Linear(self.vdim, embed_dim, bias)
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        self.register_buffer("bias_k", torch.zeros(1, 1, embed_dim) if add_bias_kv else None)
        self.register_buffer("bias_v", torch.zeros(1, 1, embed_dim) if add_bias_kv else None)
        self.eval()

    @classmethod
    def from_float(
        cls,
        mod: nn.Module,
        use_precomputed_fake_quant: bool = False,
        packed_in_proj: bool = False,
    ) -> "MultiheadAttention":
        """Quantized copy of an nn.MultiheadAttention whose `qconfig` is set.

        Each of the query, key and value weights gets its own qparams, so that
        per-tensor qconfigs do not share one scale between them.

        Args:
            mod: the float module.
            use_precomputed_fake_quant: torch.ao's flag; not used here.
            packed_in_proj: keep one input projection, see the class.

        Raises:
            ValueError: no qconfig, or a weight that is not finite.
        """
        del use_precomputed_fake_quant
        qconfig = qconfig_of(cls, mod)
        has_bias = mod.in_proj_bias is not None
        packed_in_proj = packed_in_proj and mod._qkv_same_embed_dim
        # meta: the projections are replaced below.
        with torch.device("meta"):
            new = cls(
                mod.embed_dim,
                mod.num_heads,
                mod.dropout,
                has_bias,
                mod.bias_k is not None,
                mod.add_zero_attn,
                mod.kdim,
                mod.vdim,
                mod.batch_first,
                packed_in_proj,
            )
        if mod._qkv_same_embed_dim:
            weights = mod.in_proj_weight.detach().chunk(3)
        else:
            weights = (mod.q_proj_weight, mod.k_proj_weight, mod.v_proj_weight)
        biases = mod.in_proj_bias.detach().chunk(3) if has_bias else (None, None, None)
        rule = dynamic_quant_of(qconfig)
        parts = [quantize_weight(weight, qconfig) for weight in weights]
        if packed_in_proj:
            new.in_proj = Linear._from_parts(_concatenate(parts), mod.in_proj_bias, rule)
        else:
            for name, part, bias in zip(("q_proj", "k_proj", "v_proj"), parts, biases, strict=True):
                setattr(new, name, Linear._from_parts(part, bias, rule))
        new.out_proj = Linear._from_parts(
            quantize_weight(mod.out_proj.weight, qconfig), mod.out_proj.bias, rule
        )
        if mod.bias_k is not None:
            new.bias_k = mod.bias_k.detach().clone()
            new.bias_v = mod.bias_v.detach().clone()
        return new.eval()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for key in _in_proj_state.float_keys(state_dict, prefix):
            error_msgs.append(f"{key} is a float weight; {LOAD_FLOAT_FIRST}")
            del state_dict[key]
        if self.packed_in_proj:
            problem = _in_proj_state.join(state_dict, prefix)
            if problem is not None:
                error_msgs.append(problem)
        else:
            _in_proj_state.split(state_dict, prefix)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _project(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.packed_in_proj:
            size = self.embed_dim
            q_all = self.in_proj(query)
            k_all = q_all if key is query else self.in_proj(key)
            v_all = k_all if value is key else self.in_proj(value)
            return (
                q_all.narrow(-1, 0, size),
                k_all.narrow(-1, size, size),
                v_all.narrow(-1, 2 * size, size),
            )
        return self.q_proj(query), self.k_proj(key), self.v_proj(value)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See nn.MultiheadAttention.forward: same arguments, shapes and results.

        Raises:
            ValueError: a nested tensor, or a mask of the wrong shape or dtype.
            RuntimeError: `is_causal` without `attn_mask`.
        """
        if query.is_nested or key.is_nested or value.is_nested:
            raise ValueError("MultiheadAttention: argument 'query' must not be a nested tensor")
        if is_causal and attn_mask is None:
            raise RuntimeError("MultiheadAttention: is_causal needs attn_mask")
        q, k, v = self._project(query, key, value)
        y, weights = self._attend(
            q, k, v, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
        return self.out_proj(y), weights

    def _get_name(self) -> str:
        return "DynamicQuantizedMultiheadAttention"

    def extra_repr(self) -> str:
        """Sizes and the layout of the input projection."""
        return (
            f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, "
            f"batch_first={self.batch_first}, packed_in_proj={self.packed_in_proj}"
        )


def is_self_attention(parent: nn.Module, name: str) -> bool:
    """Whether `parent.name` only ever gets query, key and value from one tensor."""
    layers: tuple[Any, ...] = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    return isinstance(parent, layers) and name == "self_attn"
