"""Float attention modules and their inputs."""

import torch
from torch import nn

from torch_ao_ext.quantization import row_dynamic_qconfig

E, H, L, S, B = 16, 4, 5, 7, 3


def float_mha(**options):
    mha = nn.MultiheadAttention(E, H, **options).eval()
    with torch.no_grad():  # the default bias is zero
        for p in mha.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    mha.qconfig = row_dynamic_qconfig
    return mha


def inputs(options, self_attention=False, batched=True):
    """query, key, value in the layout of the options."""

    def one(length, size):
        shape = (length, size) if not batched else (length, B, size)
        if batched and options.get("batch_first"):
            shape = (B, length, size)
        return torch.randn(shape)

    query = one(L, E)
    if self_attention:
        return query, query, query
    return query, one(S, options.get("kdim", E)), one(S, options.get("vdim", E))


OPTIONS = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no bias": {"bias": False},
    "kdim vdim": {"kdim": 12, "vdim": 10},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True, "batch_first": True},
    "all": {"add_bias_kv": True, "add_zero_attn": True, "kdim": 12, "vdim": 10, "batch_first": True},
}


def encoder_layer(**options):
    return nn.TransformerEncoderLayer(E, H, 32, **options).eval()
