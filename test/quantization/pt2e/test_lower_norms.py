"""lower: normalizations between quantized tensors, and the float islands that one operator replaces."""

import pytest
import torch
import torch.nn.functional as functional
from flow_models import count, quantizer, targets
from test_lower import Everything, Function, flow, steps_apart
from torch import nn

IMAGE = torch.randn(2, 6, 8, 9)
ROWS = torch.randn(4, 7, 16)


def settled(module):
    """Statistics and factors that are not 0 and 1."""
    torch.manual_seed(3)
    for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
        tensor.data.uniform_(0.3, 2)
    return module.eval()


class Activations(Everything):
    """Every float tensor but the parameters."""

    def annotate(self, model):
        super().annotate(model)
        for node in model.graph.nodes:
            known = node.meta.get("quantization_annotation")
            if known is not None:
                known.input_qspec_map = {n: s for n, s in known.input_qspec_map.items() if n.op != "get_attr"}
        return model


BETWEEN = {
    "layer_norm": (lambda: nn.LayerNorm(16), ROWS, "torch_ao.layer_norm"),
    "layer_norm plain": (lambda: nn.LayerNorm((7, 16), 1e-3, False), ROWS, "torch_ao.layer_norm"),
    "rms_norm": (lambda: nn.RMSNorm(16), ROWS, "torch_ao.rms_norm"),
    "rms_norm eps": (lambda: nn.RMSNorm(16, 1e-3, False), ROWS, "torch_ao.rms_norm"),
    "group_norm": (lambda: nn.GroupNorm(3, 6), IMAGE, "torch_ao.group_norm"),
    "instance_norm": (lambda: nn.InstanceNorm2d(6, affine=True), IMAGE, "torch_ao.instance_norm"),
    "instance_norm tracked": (
        lambda: nn.InstanceNorm2d(6, track_running_stats=True), IMAGE, "torch_ao.batch_norm"
    ),
    "batch_norm": (lambda: nn.BatchNorm2d(6), IMAGE, "torch_ao.batch_norm"),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_between_quantized_tensors(name):
    build, x, target = BETWEEN[name]
    quantized, lowered = flow(settled(build()), (x,), Activations())
    made = [t for t in targets(lowered) if t != "contiguous.default"]
    assert len(made) == 3 and made[1].startswith(target), made
    assert steps_apart(quantized, lowered, (x,)) <= 1.001


class Before(nn.Module):
    """What is in front of a linear layer or convolution that the x86 quantizer takes."""

    def __init__(self, front, layer):
        super().__init__()
        self.front, self.layer = front, layer

    def forward(self, *inputs):
        return self.layer(self.front(*inputs))


ISLANDS = {
    "layer_norm": (lambda: nn.LayerNorm(16), (ROWS,), "torch_ao.layer_norm"),
    "layer_norm gelu": (lambda: nn.Sequential(nn.LayerNorm(16), nn.GELU()), (ROWS,), "torch_ao.layer_norm"),
    "rms_norm": (lambda: nn.RMSNorm(16), (ROWS,), "torch_ao.rms_norm"),
    "batch_norm relu": (
        lambda: nn.Sequential(nn.BatchNorm1d(16), nn.ReLU()), (ROWS[0],), "torch_ao.batch_norm"
    ),
    "residual": (
        lambda: Function(lambda x, y: functional.layer_norm(x + y, (16,))), (ROWS, torch.randn(4, 7, 16)),
        "torch_ao.add_layer_norm",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ISLANDS)
def test_floats_in_front_of_a_linear_layer(name):
    build, example, target = ISLANDS[name]
    model = Before(settled(build()), nn.Linear(16, 5))
    quantized, lowered = flow(model, example, quantizer("x86"))
    made = targets(lowered)
    assert len(made) == 2 and made[0].startswith(target) and made[1] == "torch_ao.linear.default", made
    with torch.no_grad():
        assert torch.allclose(quantized(*example), lowered(*example), atol=0.02)


def test_batch_norm_behind_a_relu():
    """Not foldable into the convolution in front of it: one pass to the integers of the next."""
    model = Before(
        nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), settled(nn.BatchNorm2d(8)), nn.MaxPool2d(2)),
        nn.Conv2d(8, 4, 3),
    )
    quantized, lowered = flow(model, (IMAGE,), quantizer("x86"))
    assert [t for t in targets(lowered) if t != "contiguous.default"] == [
        "torch_ao.quantize_per_tensor.default", "torch_ao.conv2d.default", "torch_ao.batch_norm.default",
        "torch_ao.max_pool2d.default", "torch_ao.conv2d.default",
    ]  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(quantized(IMAGE), lowered(IMAGE), atol=0.02)


class PreNorm(nn.Module):
    """A transformer block's tail: the sum goes on beside what is normalized."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = settled(nn.LayerNorm(16)), nn.Linear(16, 16)

    def forward(self, x, y):
        x = x + y
        return x + self.layer(self.norm(x))


def test_a_sum_with_other_readers():
    example = (ROWS, torch.randn(4, 7, 16))
    quantized, lowered = flow(PreNorm(), example, quantizer("x86"))
    assert count(lowered, "torch_ao.add_layer_norm_sum") == 1
    assert "layer_norm.default" not in targets(lowered)
    with torch.no_grad():
        assert torch.allclose(quantized(*example), lowered(*example), atol=0.02)


def test_what_stays_with_torch():
    """No integers on either side, or statistics of the batch."""
    example = (ROWS,)
    both = nn.Sequential(nn.LayerNorm(16), Function(torch.sin), nn.Linear(16, 5))
    _, lowered = flow(both, example, quantizer("x86"))
    assert count(lowered, "layer_norm.default") == 1 and count(lowered, "torch_ao.layer_norm") == 0


def test_report_lists_the_norm():
    import torch_ao_ext

    _, lowered = flow(Before(settled(nn.LayerNorm(16)), nn.Linear(16, 5)), (ROWS,), quantizer("x86"))
    rows = torch_ao_ext.report(lowered).rows
    assert [(r.fqn, r.op, r.status, r.macs) for r in rows] == [
        ("front", "layer_norm", "int8", 0), ("layer", "linear", "int8", 80)
    ]  # fmt: skip
