"""lower: functions of one value become tables, activations of floats give integers, cat is one operator."""

import pytest
import torch
import torch.nn.functional as functional
from flow_models import count, export, quantizer, targets
from test_lower import IMAGE, Everything, Function, flow, steps_apart
from test_lower_norms import Activations, Before
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e

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


@pytest.mark.parametrize("rank", [1, 3])
def test_nearest_of_lines_and_volumes(rank):
    x = torch.randn(2, 8, *[5] * rank)
    quantized, lowered = flow(Function(lambda x: torch.relu(functional.interpolate(x, scale_factor=2))), (x,))
    assert count(lowered, "torch_ao.interpolate") == 1 and count(lowered, "upsample") == 0
    assert steps_apart(quantized, lowered, (x,)) <= 1.001


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("factor", [2, 1.5])
def test_resizing_of_free_sizes(factor, mode, images):
    """The batch alone, or height and width as well, which leaves the resizing to torch, in float."""
    model = Function(lambda x: functional.interpolate(torch.relu(x), scale_factor=factor, mode=mode))
    free = dict.fromkeys([0, 2, 3] if images else [0], torch.export.Dim.AUTO)
    with torch.no_grad():
        ready = prepare_pt2e(export(model, (IMAGE,), dynamic_shapes={"inputs": (free,)}), Everything())
        ready(IMAGE)
        quantized = convert_pt2e(ready)
        lowered = torch_ao_ext.lower(quantized, islands=False)
        islands = torch_ao_ext.lower(quantized)
    assert count(lowered, "torch_ao.interpolate") == (not images) and count(lowered, "upsample") == images
    other = torch.randn(1, IMAGE.shape[1], 7, 12) if images else torch.randn(3, *IMAGE.shape[1:])
    for x in (IMAGE, other):
        assert steps_apart(quantized, lowered, (x,)) <= 1.001
        assert torch.equal(islands(x), lowered(x))
        assert torch.equal(torch.jit.script(islands)(x), lowered(x))


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_mean_over_tokens(rank, keepdim):
    """Channels last, as the tokens of a transformer lie."""
    x = torch.randn(2, *[4, 3, 5][:rank], 6)
    over = list(range(1, rank + 1))
    quantized, lowered = flow(Function(lambda x: torch.relu(x.mean(over, keepdim=keepdim))), (x,))
    assert count(lowered, "adaptive_avg_pool") == 1 and count(lowered, "mean") == 0
    assert lowered(x).shape == quantized(x).shape
    assert steps_apart(quantized, lowered, (x,)) <= 1.001


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_moves_integers(mode):
    padded = Function(lambda x: torch.relu(functional.pad(x, (1, 2, 0, 3), mode=mode)))
    quantized, lowered = flow(padded, (IMAGE,))
    made = [t for t in targets(lowered) if "contiguous" not in t]
    assert made.index("pad.default") < made.index("torch_ao.dequantize_per_tensor.default")
    assert steps_apart(quantized, lowered, (IMAGE,)) <= 1.001
