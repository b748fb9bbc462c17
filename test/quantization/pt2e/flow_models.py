"""Float models for the flow tests, and the flow itself."""

import torch
import torch.nn.functional as functional
from torch import nn

from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import (
    EmbeddingQuantizer,
    X86InductorQuantizer,
    XNNPACKQuantizer,
)
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack

# Of the examples, which are drawn in the import: the same whatever was drawn before.
_SEED = torch.Generator().manual_seed(0)


class Residual(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.c1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.b1 = nn.BatchNorm2d(width)
        self.c2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.b2 = nn.BatchNorm2d(width)
        same = channels == width and stride == 1
        self.down = (
            None if same else nn.Sequential(nn.Conv2d(channels, width, 1, stride), nn.BatchNorm2d(width))
        )

    def forward(self, x):
        y = self.b2(self.c2(torch.relu(self.b1(self.c1(x)))))
        return torch.relu(y + (x if self.down is None else self.down(x)))


class ResidualCnn(nn.Module):
    """A small ResNet."""

    example = (torch.randn(2, 3, 32, 32, generator=_SEED),)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.bn = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.Sequential(Residual(16, 16, 1), Residual(16, 32, 2))
        self.average = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.layers(self.pool(torch.relu(self.bn(self.stem(x)))))
        return self.head(self.drop(torch.flatten(self.average(x), 1)))


class MobileCnn(nn.Module):
    """Depthwise, padding as an operator, relu6, hardswish, cat, avg_pool, mean."""

    example = (torch.randn(1, 3, 24, 24, generator=_SEED),)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.expand = nn.Conv2d(8, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, groups=24)
        self.project = nn.Conv2d(24, 8, 1)
        self.left = nn.Conv2d(8, 8, 3, padding="same")
        self.right = nn.Conv2d(8, 12, 5, padding=2, dilation=1)
        self.head = nn.Linear(20, 6)

    def forward(self, x):
        x = functional.hardswish(self.stem(functional.pad(x, (0, 1, 0, 1))))
        y = functional.relu6(self.expand(x))
        y = functional.relu6(self.depthwise(functional.pad(y, (1, 1, 1, 1))))
        x = x + self.project(y)
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        x = functional.avg_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


class Layer(nn.Module):
    """A transformer layer with attention as matmuls."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def _heads(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x):
        q, k, v = self._heads(self.q(x)), self._heads(self.k(x)), self._heads(self.v(x))
        weights = torch.softmax(torch.matmul(q, k.transpose(-1, -2)) / 4, -1)
        y = torch.matmul(weights, v).transpose(1, 2).reshape(x.shape)
        x = self.norm1(x + self.o(y))
        return self.norm2(x + self.down(functional.gelu(self.up(x))))


class Encoder(nn.Module):
    """Two transformer layers behind an embedding."""

    example = (torch.randint(0, 50, (2, 6), generator=_SEED),)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.layers = nn.ModuleList([Layer(32, 4), Layer(32, 4)])

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return x


class Attention(nn.Module):
    """scaled_dot_product_attention with a mask of booleans, of floats, and causal; bmm."""

    example = (
        torch.randn(2, 6, 32, generator=_SEED),
        torch.zeros(2, 1, 1, 6).index_fill(3, torch.tensor([5]), -torch.inf),
    )

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.register_buffer("keep", torch.rand(6, 6) > 0.3)
        self.keep |= torch.eye(6, dtype=torch.bool)

    def forward(self, x, mask):
        heads = [p(x).view(2, 6, 4, 8).transpose(1, 2) for p in (self.q, self.k, self.v)]
        y = functional.scaled_dot_product_attention(*heads, attn_mask=self.keep)
        y = y + functional.scaled_dot_product_attention(*heads, attn_mask=mask, scale=0.5)
        y = y + functional.scaled_dot_product_attention(*heads, is_causal=True)
        y = self.o(y.transpose(1, 2).reshape(2, 6, 32))
        return torch.bmm(y, y.transpose(1, 2))


class OtherConvs(nn.Module):
    """conv1d, grouped conv_transpose1d, conv3d, conv_transpose2d and what surrounds them."""

    example = (torch.randn(2, 4, 18, generator=_SEED),)

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv1d(4, 8, 3, padding=1)
        self.t1 = nn.ConvTranspose1d(8, 6, 4, 2, 1, groups=2)
        self.bn = nn.BatchNorm1d(6)
        self.t2 = nn.ConvTranspose2d(6, 4, 2, 2, bias=False)
        self.c3 = nn.Conv3d(2, 3, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.bn(self.t1(torch.relu(self.c1(x)))))
        x = torch.relu(self.t2(x.view(2, 6, 6, 6)))
        return self.c3(x.view(2, 2, 2, 12, 12))


class Reused(nn.Module):
    """One linear called three times, a weight with two readers."""

    example = (torch.randn(4, 16, generator=_SEED),)

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        for _ in range(3):
            x = torch.relu(self.linear(x))
        return functional.linear(x, self.linear.weight)


MODELS = {m.__name__: m for m in (ResidualCnn, MobileCnn, Encoder, Attention, OtherConvs, Reused)}


def make(name):
    """(model in evaluation mode with lively batch norms, example inputs)."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight)  # negative ones among them
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model, MODELS[name].example


def quantizer(name):
    if name == "embedding":
        return EmbeddingQuantizer()
    if name.startswith("x86"):
        config = x86.get_default_x86_inductor_quantization_config
        if name == "x86 row dynamic":
            return X86InductorQuantizer().set_global(x86.get_x86_inductor_row_dynamic_config())
        result = X86InductorQuantizer().set_global(config(is_dynamic="dynamic" in name))
        if "matmul" in name:
            result.set_function_type_qconfig(torch.matmul, config())
        return result
    config = xnnpack.get_symmetric_quantization_config(
        is_per_channel="tensor" not in name, is_dynamic="dynamic" in name
    )
    return XNNPACKQuantizer().set_global(config)


def export(model, example, **kwargs):
    with torch.no_grad():
        return torch.export.export(model, example, **kwargs).module()


def prepared(name, how="x86", calibrate=True):
    model, example = make(name)
    result = prepare_pt2e(export(model, example), quantizer(how))
    if calibrate:
        with torch.no_grad():
            result(*example)
    return model, example, result


def converted(name, how="x86", **kwargs):
    model, example, ready = prepared(name, how)
    return model, example, convert_pt2e(ready, **kwargs)


def targets(graph_module):
    """Names of the operators that a graph calls, with repeats."""
    return [str(n.target).removeprefix("aten.") for n in graph_module.graph.nodes if n.op == "call_function"]


def count(graph_module, text):
    return sum(text in target for target in targets(graph_module))
