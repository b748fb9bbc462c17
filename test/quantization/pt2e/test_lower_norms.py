"""lower: normalizations between quantized tensors, and the float islands that one operator replaces."""

import pytest
import torch
import torch.nn.functional as functional
from flow_models import count, quantizer, targets
from test_lower import Everything, Function, flow, steps_apart
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.pt2e.representation import reference_representation_rewrite

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
    made = [t for t in targets(lowered) if "contiguous" not in t]
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


def _without_moves(lowered):
    return [t for t in targets(lowered) if "contiguous" not in t]


@pytest.mark.parametrize("backend", ["auto", "onednn", "native", "reference"])
def test_batch_norm_behind_a_relu(backend):
    """Not foldable into the convolution's weight: its post-op."""
    model = Before(
        nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), settled(nn.BatchNorm2d(8)), nn.MaxPool2d(2)),
        nn.Conv2d(8, 4, 3),
    )
    quantized, lowered = flow(model, (IMAGE,), quantizer("x86"))
    if backend != "auto":
        lowered = torch_ao_ext.lower(quantized, (IMAGE,), backend, islands=False)
    assert _without_moves(lowered) == [
        "torch_ao.quantize_per_tensor.default", "torch_ao.conv2d.default", "torch_ao.max_pool2d.default",
        "torch_ao.conv2d.default",
    ]  # fmt: skip
    with torch.no_grad():
        assert torch.allclose(quantized(IMAGE), lowered(IMAGE), atol=0.02)


class AddedTo(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.layer = nn.Conv2d(6, 6, 3, padding=1), settled(nn.BatchNorm2d(6))

    def forward(self, x):
        return self.layer(torch.relu(self.conv(x) + x))


FUSED_NORMS = {
    "conv": (lambda: (nn.Conv2d(6, 5, 3), nn.ReLU(), nn.BatchNorm2d(5)), IMAGE, "conv2d"),
    "conv1d gelu": (lambda: (nn.Conv1d(6, 5, 3), nn.GELU(), nn.BatchNorm1d(5)), IMAGE[..., 0], "conv1d"),
    "depthwise relu6": (
        lambda: (nn.Conv2d(6, 6, 3, groups=6), nn.ReLU6(), nn.BatchNorm2d(6)), IMAGE, "conv2d"
    ),
    "norm relu": (
        lambda: (nn.Conv2d(6, 5, 3), nn.ReLU(), nn.BatchNorm2d(5), nn.ReLU()), IMAGE, "conv2d"
    ),
    "prelu": (lambda: (nn.Conv2d(6, 5, 3), nn.PReLU(5), nn.BatchNorm2d(5, affine=False)), IMAGE, "conv2d"),
    "added to": (lambda: (AddedTo(),), IMAGE, "conv2d"),
    "linear": (lambda: (nn.Linear(16, 5), nn.ReLU(), nn.BatchNorm1d(5)), ROWS[0], "linear"),
    "dynamic linear": (lambda: (nn.Linear(16, 5), nn.ReLU(), nn.BatchNorm1d(5)), ROWS[0], "linear_dynamic"),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED_NORMS)
def test_batch_norms_inside_products(name):
    """Two operators, whose integers are those of the same formula in ATen operators."""
    build, x, operator = FUSED_NORMS[name]
    torch.manual_seed(3)
    model = nn.Sequential(*map(settled, build()))
    for norm in model.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) and norm.affine:
            nn.init.normal_(norm.weight)  # of both signs
            norm.weight.data[1] = 0
    dynamic = "dynamic" in name
    quantized, lowered = flow(model, (x,), quantizer("x86 dynamic" if dynamic else "x86"))
    first = [] if dynamic else ["torch_ao.quantize_per_tensor.default"]
    assert _without_moves(lowered) == [*first, f"torch_ao.{operator}.default"]
    product = next(n for n in lowered.graph.nodes if f"torch_ao.{operator}" in str(n.target))
    factor, offset = (getattr(lowered, node.target) for node in product.args[-2:])
    assert factor.dtype == offset.dtype == torch.float32 and not isinstance(factor, nn.Parameter)
    with torch.no_grad():
        torch.testing.assert_close(lowered(x), quantized(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(torch.jit.script(lowered)(x), lowered(x))


def test_batch_norms_of_other_channels_than_the_columns():
    model = nn.Sequential(nn.Linear(9, 5), nn.ReLU(), nn.BatchNorm2d(6))
    quantized, lowered = flow(model, (IMAGE,), quantizer("x86"))
    assert count(lowered, "batch_norm") == 1
    with torch.no_grad():
        torch.testing.assert_close(lowered(IMAGE), quantized(IMAGE), rtol=1e-4, atol=1e-5)


def test_a_batch_norm_without_a_finite_factor_stays():
    model = nn.Sequential(nn.Conv2d(6, 5, 3), nn.ReLU(), nn.BatchNorm2d(5))
    model[2].running_var[2] = -1
    quantized, lowered = flow(model, (IMAGE,), quantizer("x86"))
    assert count(lowered, "batch_norm") == 1
    with torch.no_grad():
        torch.testing.assert_close(lowered(IMAGE), quantized(IMAGE), rtol=1e-4, atol=1e-5, equal_nan=True)


def test_integers_of_a_fused_batch_norm_are_those_of_the_representation():
    model = Before(
        nn.Sequential(nn.Conv2d(6, 70, 3), nn.ReLU(), settled(nn.BatchNorm2d(70))), nn.Conv2d(70, 4, 3)
    )
    quantized, lowered = flow(model, (IMAGE,), quantizer("x86"))
    formula = reference_representation_rewrite(quantized)
    assert count(formula, "batch_norm") == 0
    with torch.no_grad():
        torch.testing.assert_close(lowered(IMAGE), formula(IMAGE), rtol=1e-6, atol=1e-6)


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
