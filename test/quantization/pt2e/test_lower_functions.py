"""lower: functions of one value become tables, activations of floats give integers, cat is one operator."""

import pytest
import torch
import torch.nn.functional as functional
from flow_models import count, quantizer, targets
from test_lower import IMAGE, Function, flow, steps_apart
from test_lower_norms import Activations, Before
from torch import nn

FUNCTIONS = {
    "elu": lambda x: functional.elu(x, 0.7), "celu": lambda x: functional.celu(x, 1.3),
    "selu": functional.selu, "softplus": functional.softplus, "mish": functional.mish,
    "abs": torch.abs, "neg": torch.neg,
    "exp": torch.exp, "sin": torch.sin, "square": torch.square, "log_sigmoid": functional.logsigmoid,
    "add a number": lambda x: x + 0.7, "a number minus": lambda x: 1.5 - x,
    "mul a number": lambda x: -0.3 * x,
    "div": lambda x: x / 3, "pow": lambda x: x**2, "threshold": lambda x: functional.threshold(x, 0.1, -1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_value(name):
    quantized, lowered = flow(Function(FUNCTIONS[name]), (IMAGE,), Activations())
    made = [t for t in targets(lowered) if "contiguous" not in t]
    assert made == [
        "torch_ao.quantize_per_tensor.default", "torch_ao.lookup.default",
        "torch_ao.dequantize_per_tensor.default",
    ]  # fmt: skip
    assert steps_apart(quantized, lowered, (IMAGE,)) == 0


@pytest.mark.parametrize("slopes", [1, 6])
def test_prelu(slopes):
    layer = nn.PReLU(slopes)
    layer.weight.data.uniform_(-0.5, 0.9)
    quantized, lowered = flow(layer, (IMAGE,), Activations())
    assert count(lowered, "torch_ao.lookup") == 1 and count(lowered, "prelu") == 0
    assert steps_apart(quantized, lowered, (IMAGE,)) == 0


def test_several_functions_are_one_table():
    class Ends(Activations):
        """The input and the last result only."""

        def annotate(self, model):
            super().annotate(model)
            for node in model.graph.nodes:
                known = node.meta.get("quantization_annotation")
                if known is not None and node.name != "sin":
                    known.output_qspec = None
                if known is not None and node.name != "elu":
                    known.input_qspec_map = {}
            return model

    quantized, lowered = flow(Function(lambda x: torch.sin(functional.elu(x) * 2)), (IMAGE,), Ends())
    assert count(lowered, "torch_ao.lookup") == 1 and len(targets(lowered)) == 3
    assert steps_apart(quantized, lowered, (IMAGE,)) == 0


@pytest.mark.parametrize("act", [functional.gelu, functional.silu, torch.relu])
def test_activations_of_floats(act):
    front = Function(lambda x: act(torch.cumsum(x, 1)))  # no int8 form in front of it
    quantized, lowered = flow(Before(front, nn.Linear(16, 5)), (torch.randn(4, 16),), quantizer("x86"))
    made = targets(lowered)
    assert made == ["cumsum.default", "torch_ao.requantize.default", "torch_ao.linear.default"]
    x = torch.randn(4, 16)
    with torch.no_grad():
        assert torch.allclose(quantized(x), lowered(x), atol=0.02)


def test_cat_is_one_operator():
    example = (IMAGE, torch.randn(2, 6, 8, 9) * 0.3)
    quantized, lowered = flow(Function(lambda x, y: torch.cat([x, y], 1)), example)
    made = [t for t in targets(lowered) if "contiguous" not in t]
    assert made.count("torch_ao.cat.default") == 1 and "torch_ao.requantize.default" not in made
    assert steps_apart(quantized, lowered, example) <= 1.001


RESIZED = {
    "bilinear": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear corners": lambda x: functional.interpolate(x, (5, 13), mode="bilinear", align_corners=True),
}


@pytest.mark.parametrize("name", RESIZED)
def test_bilinear(name):
    quantized, lowered = flow(Function(RESIZED[name]), (IMAGE,))
    assert count(lowered, "torch_ao.interpolate") == 1 and count(lowered, "upsample") == 0
    assert steps_apart(quantized, lowered, (IMAGE,)) <= 1.001
    assert lowered(IMAGE).is_contiguous()


@pytest.mark.parametrize("size", [{"scale_factor": 2}, {"size": (5, 13)}])
def test_nearest(size):
    """int8, of which torch has no nearest interpolation."""
    quantized, lowered = flow(Function(lambda x: functional.interpolate(x, **size) * x.mean()), (IMAGE,))
    assert count(lowered, "torch_ao.interpolate") == 1 and count(lowered, "upsample") == 0
    assert steps_apart(quantized, lowered, (IMAGE,)) <= 1.001


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_moves_integers(mode):
    padded = Function(lambda x: torch.relu(functional.pad(x, (1, 2, 0, 3), mode=mode)))
    quantized, lowered = flow(padded, (IMAGE,))
    made = [t for t in targets(lowered) if "contiguous" not in t]
    assert made.index("pad.default") < made.index("torch_ao.dequantize_per_tensor.default")
    assert steps_apart(quantized, lowered, (IMAGE,)) <= 1.001
