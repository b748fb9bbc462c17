"""Offsets of batch norms behind a relu move into the next bias: zeros stay exact zeros in int8."""

import pytest
import torch
import torch.nn.functional as functional
from flow_models import converted, export, quantizer
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e


class Block(nn.Module):
    """conv -> relu -> batch norm -> something -> conv or linear."""

    def __init__(self, after, product, act=torch.relu):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.after, self.product, self.act = after, product, act
        for name in ("weight", "bias"):
            nn.init.normal_(getattr(self.norm, name))  # negative factors among them
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.product(self.after(self.norm(self.act(self.conv(x)))))


def flat(x):
    return functional.max_pool2d(x, 2).permute(0, 2, 1, 3).flatten(1)


def mixed(x):
    """Windows over values of several channels."""
    return functional.max_pool2d(x.view(x.shape[0], 1, 8, -1), 2).flatten(1)


def twice(x):
    return (x + x.sigmoid()).flatten(1)


NOTHING = nn.Identity()
MOVED = {
    "conv": lambda: Block(NOTHING, nn.Conv2d(8, 5, 3)),
    "conv without bias": lambda: Block(NOTHING, nn.Conv2d(8, 5, 3, 2, bias=False)),
    "groups": lambda: Block(NOTHING, nn.Conv2d(8, 6, 3, groups=2)),
    "depthwise": lambda: Block(NOTHING, nn.Conv2d(8, 16, 3, groups=8), functional.relu6),
    "max_pool, linear": lambda: Block(flat, nn.Linear(128, 7)),
    "padded max_pool": lambda: Block(lambda x: functional.max_pool2d(x, 3, 2, 1), nn.Conv2d(8, 4, 2)),
    "average of parts": lambda: Block(
        lambda x: functional.avg_pool2d(x, 3, 2, 1).flatten(1), nn.Linear(128, 7)
    ),
    "average": lambda: Block(lambda x: x.mean((2, 3)), nn.Linear(8, 7, bias=False)),
    "average of a dtype": lambda: Block(lambda x: x.mean((2, 3), dtype=torch.float32), nn.Linear(8, 7)),
    "adaptive": lambda: Block(lambda x: functional.adaptive_avg_pool2d(x, 2).flatten(1), nn.Linear(32, 7)),
}
STAY = {
    "padding": lambda: Block(NOTHING, nn.Conv2d(8, 5, 3, padding=1)),
    "padding as a word": lambda: Block(NOTHING, nn.Conv2d(8, 5, 3, padding="same")),
    "padding as an operator": lambda: Block(lambda x: functional.pad(x, (1, 0)), nn.Conv2d(8, 5, 3)),
    "windows of several channels": lambda: Block(mixed, nn.Linear(128, 7)),
    "averages that a conv reads at borders": lambda: Block(
        lambda x: functional.avg_pool2d(x, 3, 2, 1), nn.Conv2d(8, 5, 3)
    ),
    "no relu": lambda: Block(NOTHING, nn.Conv2d(8, 5, 3), torch.tanh),
    "a clamp above 0": lambda: Block(NOTHING, nn.Conv2d(8, 5, 3), lambda x: functional.hardtanh(x, 0.5, 3)),
    "two readers": lambda: Block(twice, nn.Linear(512, 7)),
    "something else": lambda: Block(lambda x: torch.cat([x, x], 1), nn.Conv2d(16, 5, 3)),
}
IMAGES = (2, 3, 10, 10)


def norm_of(graph_module):
    return next(n for n in graph_module.graph.nodes if "batch_norm" in str(n.target))


def offset_moved(ready):
    """Whether the batch norm that stays gives 0 for 0."""
    norm = norm_of(ready)
    bias, mean = (ready.get_buffer(a.target) if "zeros" in a.target else None for a in norm.args[2:4])
    return bias is not None and bias is mean and not bias.any()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", MOVED)
def test_moved(name, dynamic, sqnr):
    model, x = MOVED[name]().eval(), torch.randn(IMAGES)
    free = {"dynamic_shapes": ({0: torch.export.Dim("batch", min=1, max=9)},)} if dynamic else {}
    ready = prepare_pt2e(export(model, (x,), **free), quantizer("x86"))
    assert offset_moved(ready)
    with torch.no_grad():
        for batch in (x, torch.randn(5, *IMAGES[1:])) if dynamic else (x,):
            assert sqnr(model(batch), ready(batch)) > 100


@pytest.mark.parametrize("name", STAY)
def test_stay(name):
    model, x = STAY[name]().eval(), torch.randn(IMAGES)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ready = prepare_pt2e(export(model, (x,)), quantizer("x86"))
    assert not offset_moved(ready)
    with torch.no_grad():
        torch.testing.assert_close(ready(x), model(x))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("how", ["x86", "xnnpack"])
def test_zeros_are_the_zero_point(how):
    """A dead channel gives the zero point, whatever its offset."""
    model, x = MOVED["max_pool, linear"]().eval(), torch.randn(IMAGES)
    model.conv.bias.data[3] = -100
    with torch.no_grad():
        ready = prepare_pt2e(export(model, (x,)), quantizer(how))
        ready(x)
        lowered = torch_ao_ext.lower(convert_pt2e(ready), islands=False)
        linear = next(n for n in lowered.graph.nodes if "torch_ao.linear" in str(n.target))
        lowered.graph.output_node().args = ((linear.args[0],),)
        lowered.recompile()
        integers = lowered(x).view(2, 4, 8, 4)
    assert (integers[:, :, 3] == linear.args[2]).all() and integers.unique().numel() > 20


class Crepe(nn.Module):
    """Two blocks of CREPE and its classifier."""

    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(1, 16, (8, 1), (2, 1)), nn.BatchNorm2d(16)
        self.c2, self.b2 = nn.Conv2d(16, 8, (6, 1)), nn.BatchNorm2d(8)
        self.classifier = nn.Linear(64, 9)

    def forward(self, x):
        x = functional.max_pool2d(self.b1(torch.relu(self.c1(x))), (2, 1))
        x = functional.pad(x, (0, 0, 2, 3))
        x = functional.max_pool2d(self.b2(torch.relu(self.c2(x))), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 64)))


@pytest.mark.parametrize("how", ["x86", "xnnpack", "xnnpack tensor"])
def test_one_rounding_between_products(how, sqnr):
    """Nothing is rounded between a conv and its pooling, nor before the last sigmoid."""
    model, x = Crepe().eval(), torch.randn(3, 1, 70, 1)
    for norm in (model.b1, model.b2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    with torch.no_grad():
        ready = prepare_pt2e(export(model, (x,)), quantizer(how))
        ready(x)
        quantized = convert_pt2e(ready)
        lowered = torch_ao_ext.lower(quantized, islands=False)
        assert sqnr(model(x), lowered(x)) > 35
    names = [str(n.target).split(".")[1] for n in lowered.graph.nodes if "torch_ao." in str(n.target)]
    assert names == ["quantize_per_tensor", *["conv2d", "max_pool2d"] * 2, "linear"]


def test_xnnpack_activations_come_before_the_rounding():
    quantized = converted("MobileCnn", "xnnpack")[2]
    hardswish = next(n for n in quantized.graph.nodes if "hardswish" in str(n.target))
    assert "conv2d" in str(hardswish.args[0].target)
