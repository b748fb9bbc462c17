"""Networks with batch norms for the tests of training, and the steps that they share."""

import torch
from torch import nn

from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack


def quantizer(name, is_qat=True):
    if name == "x86":
        return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_qat))
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=name == "channel", is_qat=is_qat)
    return xnnpack.XNNPACKQuantizer().set_global(config)


def conv(rank, transposed=False, relu=True, **options):
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{rank}d")
    parts = [kind(4, 6, 3, **options), getattr(nn, f"BatchNorm{rank}d")(6, eps=1e-3, momentum=0.3)]
    return nn.Sequential(*parts, *([nn.ReLU()] if relu else [])), (5, 4, *[6] * rank)


NETS = {
    "conv1d": lambda: conv(1),
    "conv2d": lambda: conv(2, padding=1),
    "conv2d plain": lambda: conv(2, relu=False, bias=False, stride=2),
    "conv2d groups": lambda: conv(2, groups=2),
    "conv3d": lambda: conv(3),
    "transposed": lambda: conv(2, True, groups=2, stride=2),
    "linear": lambda: (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()), (9, 4)),
    "linear no bias": lambda: (nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6)), (9, 4)),
}


def exported(model, x):
    return torch.export.export(model, (x,)).module()


def make(name):
    torch.manual_seed(0)
    model, shape = NETS[name]()
    with torch.no_grad():
        for module in model.modules():
            if "BatchNorm" in type(module).__name__:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.train(), torch.randn(*shape)


def switch(graph, method):
    for module in graph.modules():
        if hasattr(module, method):
            getattr(module, method)()


def steps(graph, x, count=3):
    optimizer = torch.optim.SGD(graph.parameters(), 0.05)
    losses = []
    for i in range(count):
        loss = (graph(x + i) - 1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
