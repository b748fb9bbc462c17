"""Float attention between projections: heads, masks, softmax. TorchScript compiles it."""

import math

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["Attention"]


def _float_mask(mask: torch.Tensor | None, name: str, dtype: torch.dtype) -> torch.Tensor | None:
    """Additive mask of the query's dtype: True (ignore this key) becomes -inf."""
    if mask is None or mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise ValueError(
            f"MultiheadAttention: argument '{name}' must be bool or float, got {mask.dtype}"
        )
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
        mask, float("-inf")
    )


def _needs_grad(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> bool:
    needs = q.requires_grad or k.requires_grad or v.requires_grad
    return torch.is_grad_enabled() and (needs or (mask is not None and mask.requires_grad))


class Attention(nn.Module):
    """Methods of modules with the sizes and options of nn.MultiheadAttention, and `head_dim`."""

    def _set_sizes(
        self, embed_dim: int, num_heads: int, dropout: float, add_zero_attn: bool, kdim: int | None,
        vdim: int | None, batch_first: bool,
    ) -> None:  # fmt: skip
        """What constructors keep of torch's arguments."""
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads != 0:
            raise ValueError(
                "MultiheadAttention: argument 'embed_dim' must be a multiple of num_heads, "
                f"got embed_dim={embed_dim}, num_heads={num_heads}"
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.kdim = kdim if kdim is not None else embed_dim
        self.vdim = vdim if vdim is not None else embed_dim
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """[B, L, E] -> [B, H, L, E / H], a view."""
        return x.unflatten(-1, [self.num_heads, self.head_dim]).transpose(1, 2)

    def _mask(
        self,
        attn_mask: torch.Tensor | None,
        key_padding_mask: torch.Tensor | None,
        query: torch.Tensor,
        batch: int,
        keys: int,
    ) -> torch.Tensor | None:
        """Both masks and the appended keys as one additive [B | 1, H | 1, L | 1, S'] mask."""
        queries = query.shape[1]
        extra = int(self.bias_k is not None) + int(self.add_zero_attn)
        merged: torch.Tensor | None = None
        if attn_mask is not None:
            mask = _float_mask(attn_mask, "attn_mask", query.dtype)
            assert mask is not None
            if mask.dim() == 2:
                if mask.shape[0] != queries or mask.shape[1] != keys:
                    raise ValueError(
                        f"MultiheadAttention: argument 'attn_mask' must be [{queries}, {keys}], "
                        f"got {mask.shape}"
                    )
                merged = mask.unsqueeze(0).unsqueeze(0)
            else:
                heads = batch * self.num_heads
                if mask.dim() != 3 or mask.shape[0] != heads or mask.shape[1] != queries or (
                    mask.shape[2] != keys
                ):
                    raise ValueError(
                        "MultiheadAttention: argument 'attn_mask' must be "
                        f"[{heads}, {queries}, {keys}], got {mask.shape}"
                    )
                merged = mask.unflatten(0, [batch, self.num_heads])
        if key_padding_mask is not None:
            pad = _float_mask(key_padding_mask, "key_padding_mask", query.dtype)
            assert pad is not None
            if pad.dim() != 2 or pad.shape[0] != batch or pad.shape[1] != keys:
                raise ValueError(
                    f"MultiheadAttention: argument 'key_padding_mask' must be [{batch}, {keys}], "
                    f"got {pad.shape}"
                )
            pad = pad.unsqueeze(1).unsqueeze(1)
            merged = pad if merged is None else merged + pad
        if merged is not None and extra > 0:
            merged = F.pad(merged, [0, extra])  # appended keys are never masked
        return merged

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        key_padding_mask: torch.Tensor | None,
        need_weights: bool,
        attn_mask: torch.Tensor | None,
        average_attn_weights: bool,
        is_causal: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Projected tensors -> attention in the layout of the module's input, weights or None."""
        batched = q.dim() == 3
        if not batched:
            q, k, v = q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        batch, keys = k.shape[0], k.shape[1]

        # The hint may replace the mask only when nothing else enters the mask.
        appended = self.bias_k is not None or self.add_zero_attn
        use_hint = is_causal and key_padding_mask is None and not need_weights and not appended
        mask: torch.Tensor | None = None
        if not use_hint:
            mask = self._mask(attn_mask, key_padding_mask, q, batch, keys)

        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.to(k.dtype).expand(batch, 1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.to(v.dtype).expand(batch, 1, -1)], dim=1)
        if self.add_zero_attn:
            k = torch.cat([k, k.new_zeros(batch, 1, k.shape[2])], dim=1)
            v = torch.cat([v, v.new_zeros(batch, 1, v.shape[2])], dim=1)
        q, k, v = self._heads(q), self._heads(k), self._heads(v)

        weights: torch.Tensor | None = None
        if need_weights:
            scores = torch.matmul(q * math.sqrt(1.0 / self.head_dim), k.transpose(-2, -1))
            if mask is not None:
                scores = scores + mask
            weights = F.dropout(scores.softmax(dim=-1), self.dropout, self.training)
            y = torch.matmul(weights, v)
            if average_attn_weights:
                weights = weights.mean(dim=1)
            if not batched:
                weights = weights.squeeze(0)
        elif (
            q.dtype != torch.float32 or (self.training and self.dropout > 0) or _needs_grad(q, k, v, mask)
        ):  # fmt: skip
            y = F.scaled_dot_product_attention(
                q, k, v, mask, self.dropout if self.training else 0.0, use_hint
            )
        else:  # twice as fast as torch's
            y = torch.ops.torch_ao.scaled_dot_product_attention(q, k, v, mask, use_hint)
        y = y.transpose(1, 2).flatten(-2)  # [B, H, L, D] -> [B, L, E]
        if not batched:
            y = y.squeeze(0)
        elif not self.batch_first:
            y = y.transpose(0, 1)
        return y, weights
