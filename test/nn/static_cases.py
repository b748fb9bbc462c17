"""Activations and norms between quantized tensors, each with its float module and an input."""

import torch
from static_peer import ours
from torch import nn

from torch_ao_ext.nn import intrinsic
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import default_qconfig
from torch_ao_ext.quantization.observer import default_observer


def observed(mod, x):
    mod = mod.eval()
    mod.qconfig = default_qconfig
    mod.activation_post_process = default_observer()
    mod.activation_post_process(mod(x))
    return mod


def norm(kind, *args, **kwargs):
    mod = kind(*args, **kwargs)
    for tensor in (*mod.parameters(), *(b for b in mod.buffers() if b.is_floating_point())):
        tensor.data.uniform_(0.3, 2)
    return mod


# name -> float module, input sizes, whether torch.ao has this module
MODULES = {
    "SiLU": (lambda: nn.SiLU(), (3, 40), False),
    "CELU": (lambda: nn.CELU(0.7), (3, 40), False),
    "SELU": (lambda: nn.SELU(), (3, 40), False),
    "Mish": (lambda: nn.Mish(), (3, 40), False),
    "Softmax2d": (lambda: nn.Softmax2d(), (3, 4, 5, 5), False),
    "Softmax channels": (lambda: nn.Softmax(1), (3, 4, 5, 5), False),
    "BatchNorm1d": (lambda: norm(nn.BatchNorm1d, 6), (5, 6), False),
    "BatchNorm1d lines": (lambda: norm(nn.BatchNorm1d, 4, eps=1e-3), (3, 4, 9), False),
    "BatchNorm1d plain": (lambda: nn.BatchNorm1d(6, affine=False), (5, 6), False),
    "RMSNorm": (lambda: norm(nn.RMSNorm, (4, 6)), (3, 4, 6), False),
    "RMSNorm plain": (lambda: nn.RMSNorm(6, 1e-3, elementwise_affine=False), (3, 6), False),
    "Hardswish": (lambda: nn.Hardswish(), (3, 40), True),
    "Sigmoid": (lambda: nn.Sigmoid(), (3, 40), True),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.3), (3, 40), True),
    "ELU": (lambda: nn.ELU(0.7), (3, 40), True),
    "Softmax": (lambda: nn.Softmax(-1), (3, 40), True),
    "PReLU": (lambda: nn.PReLU(4, 0.2), (3, 4, 5), False),  # torch.ao rounds its slopes to 8 bits
    "LayerNorm": (lambda: norm(nn.LayerNorm, (4, 6)), (3, 4, 6), True),
    "GroupNorm": (lambda: norm(nn.GroupNorm, 2, 4, eps=1e-3), (3, 4, 6), True),
    "BatchNorm2d": (lambda: norm(nn.BatchNorm2d, 4), (3, 4, 5, 5), True),
    "BatchNorm3d": (lambda: norm(nn.BatchNorm3d, 4), (3, 4, 3, 3, 3), True),
    "InstanceNorm1d": (lambda: norm(nn.InstanceNorm1d, 4, affine=True), (3, 4, 9), True),
    "InstanceNorm2d": (lambda: norm(nn.InstanceNorm2d, 4, affine=True), (3, 4, 5, 5), True),
    "InstanceNorm3d": (lambda: norm(nn.InstanceNorm3d, 4, affine=True), (3, 4, 3, 3, 3), True),
    "LayerNorm plain": (lambda: nn.LayerNorm(6, elementwise_affine=False), (3, 6), False),
    "LayerNorm no bias": (lambda: norm(nn.LayerNorm, 6, bias=False), (3, 6), False),
    "InstanceNorm1d plain": (lambda: nn.InstanceNorm1d(4), (3, 4, 9), False),
    "BNReLU2d": (lambda: intrinsic.BNReLU2d(norm(nn.BatchNorm2d, 4), nn.ReLU()), (3, 4, 5, 5), False),
    "BNReLU3d": (lambda: intrinsic.BNReLU3d(norm(nn.BatchNorm3d, 4), nn.ReLU()), (3, 4, 3, 3, 3), False),
}


def make(name):
    build, sizes, has_peer = MODULES[name]
    torch.manual_seed(0)
    q = ours(*sizes)
    mod = observed(build(), q.dequantize())
    home = intrinsic.quantized if name.startswith("BNReLU") else nnq
    return mod, getattr(home, name.split()[0]).from_float(mod), q, has_peer
