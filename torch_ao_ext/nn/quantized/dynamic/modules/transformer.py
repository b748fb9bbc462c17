"""Encoder classes without core's fused float path.

nn.TransformerEncoderLayer hands its weights to a fused float operator when no
gradient is needed; nn.TransformerEncoder turns padded batches into nested
tensors for it. Both read `linear1.weight` and `self_attn.in_proj_weight`, which
int8 layers do not have. These subclasses compute the same layer from its
submodules, always.

`disable_fused_path(model)` switches every encoder that holds int8 layers.
"""

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["TransformerEncoder", "TransformerEncoderLayer", "disable_fused_path"]


def _causal_hint(mask: torch.Tensor | None, is_causal: bool | None, length: int) -> bool:
    """Core's rule: a given hint is taken; otherwise the mask is compared."""
    if is_causal is not None:
        return is_causal
    if mask is None:
        return False
    if mask.dim() != 2 or mask.shape[0] != length or mask.shape[1] != length:
        return False
    causal = torch.full(
        [length, length], float("-inf"), dtype=mask.dtype, device=mask.device
    ).triu(1)
    return bool((mask == causal).all())


def _batch_first(encoder: nn.TransformerEncoder) -> bool:
    attention = getattr(encoder.layers[0], "self_attn", None) if len(encoder.layers) else None
    return bool(getattr(attention, "batch_first", False))


class TransformerEncoderLayer(nn.TransformerEncoderLayer):
    """nn.TransformerEncoderLayer that always runs its submodules.

    Source: Xiong et al. 2020, figure 1 (post-norm and pre-norm).
    """

    def forward(
        self,
        src: torch.Tensor,
        src_mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """See nn.TransformerEncoderLayer.forward."""
        mask = F._canonical_mask(src_mask, "src_mask", None, "", src.dtype, False)
        padding = F._canonical_mask(
            src_key_padding_mask, "src_key_padding_mask", None, "", src.dtype, False
        )
        x = src
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), mask, padding, is_causal)
            x = x + self._ff_block(self.norm2(x))
        else:
            x = self.norm1(x + self._sa_block(x, mask, padding, is_causal))
            x = self.norm2(x + self._ff_block(x))
        return x


class TransformerEncoder(nn.TransformerEncoder):
    """nn.TransformerEncoder that never builds nested tensors.

    Outputs at padded positions are therefore what the layers give there, as in
    core with gradients on, and not the zeros of core's nested path.

    Args:
        encoder_layer: repeated `num_layers` times.
        num_layers: count of layers.
        norm: applied last, or None.
        enable_nested_tensor: core's argument; no effect.
        mask_check: core's argument; no effect.
    """

    def __init__(
        self,
        encoder_layer: nn.Module,
        num_layers: int,
        norm: nn.Module | None = None,
        enable_nested_tensor: bool = False,
        mask_check: bool = True,
    ) -> None:
        del enable_nested_tensor
        super().__init__(encoder_layer, num_layers, norm, False, mask_check)
        self.batch_first = _batch_first(self)

    def forward(
        self,
        src: torch.Tensor,
        mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool | None = None,
    ) -> torch.Tensor:
        """See nn.TransformerEncoder.forward."""
        mask = F._canonical_mask(mask, "mask", None, "", src.dtype, False)
        padding = F._canonical_mask(
            src_key_padding_mask, "src_key_padding_mask", None, "", src.dtype, False
        )
        length = src.shape[0]
        if self.batch_first and src.dim() == 3:
            length = src.shape[1]
        causal = _causal_hint(mask, is_causal, length)
        x = src
        for layer in self.layers:
            x = layer(x, src_mask=mask, src_key_padding_mask=padding, is_causal=causal)
        if self.norm is not None:
            x = self.norm(x)
        return x


def disable_fused_path(model: nn.Module, is_quantized) -> None:
    """Makes every encoder of the model that holds int8 layers run them.

    The plain core classes become the subclasses above, in place: identity, hooks and
    state stay. A user's subclass keeps its class and gets the attributes by which
    core itself refuses the fused path.

    Args:
        model: walked with all its submodules, the root included.
        is_quantized: tells whether a module is an int8 layer.
    """
    for module in model.modules():
        if not isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerEncoder)):
            continue
        if not any(is_quantized(child) for child in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoderLayer):
            if type(module) is nn.TransformerEncoderLayer:
                module.__class__ = TransformerEncoderLayer
            # 0 = "neither relu nor gelu", read by core's fused path only.
            module.activation_relu_or_gelu = 0
        else:
            module.use_nested_tensor = False
            if type(module) is nn.TransformerEncoder:
                module.__class__ = TransformerEncoder
                module.batch_first = _batch_first(module)
