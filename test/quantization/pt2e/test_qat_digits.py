"""scikit-learn's digits through prepare_qat_pt2e: accuracy of int8, and what training saw."""

import pytest
import torch
from digits import accuracy, digits, fit
from flow_models import count
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.fake_quantize import disable_observer
from torch_ao_ext.quantization.pt2e.export_utils import (
    move_exported_model_to_eval,
    move_exported_model_to_train,
)
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torch_ao_ext.quantization.quantizer import X86InductorQuantizer, XNNPACKQuantizer
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack

QUANTIZERS = {
    "x86": lambda: X86InductorQuantizer().set_global(
        x86.get_default_x86_inductor_quantization_config(is_qat=True)
    ),
    "xnnpack": lambda: XNNPACKQuantizer().set_global(
        xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    ),
}


class Cnn(nn.Module):
    """Batch norms behind convs and one behind a relu."""

    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.c2, self.b2 = nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32, eps=1e-3)
        self.c3, self.b3 = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32, momentum=0.2)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(128, 10)

    def forward(self, x):
        x = torch.relu(self.b1(self.c1(x)))
        x = torch.relu(self.b2(self.c2(x)))
        x = nn.functional.max_pool2d(self.b3(torch.relu(self.c3(x))), 2)
        return self.head(self.drop(x.flatten(1)))


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    train_data, test_data = digits()
    model = Cnn().train()
    fit(model, train_data, 6, 3e-3)
    return model, train_data, test_data


@pytest.mark.parametrize("how", QUANTIZERS)
def test_digits(trained, how):
    model, train_data, test_data = trained
    x = test_data[0]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    wanted = accuracy(model.eval(), test_data)
    assert wanted > 0.94
    free = ({0: torch.export.Dim("batch", min=2)},)
    graph = torch.export.export(model.train(), (x[:64],), dynamic_shapes=free).module()
    tuned = prepare_qat_pt2e(graph, QUANTIZERS[how]())
    fit(move_exported_model_to_train(tuned), train_data, 2, 3e-4)
    move_exported_model_to_eval(tuned)
    tuned.apply(disable_observer)
    with torch.no_grad():
        seen, converted = tuned(x), convert_pt2e(tuned)
        lowered = torch_ao_ext.lower(converted, strict=True)
        answers = lowered(x)
    assert accuracy(lowered, test_data) >= wanted - 0.005
    head = next(n for n in converted.graph.nodes if "linear" in str(n.target))
    # xnnpack's results have steps; those of x86 are floats: 8 bits of their range.
    last = next((n for n in head.users if "quantize_per_tensor" in str(n.target)), None)
    step = float(seen.max() - seen.min()) / 255 if last is None else last.args[1]
    assert (answers - seen).abs().max() <= 1.01 * step
    assert (converted(x) - seen).abs().max() <= 1.01 * step
    report = torch_ao_ext.report(lowered)
    assert (report.int8["conv2d"], report.int8["linear"]) == (3, 1)
    # The batch norm behind a relu is a post-op.
    operators = torch_ao_ext.lower(converted, islands=False)
    convs = [n for n in operators.graph.nodes if "conv2d" in str(n.target)]
    assert count(operators, "batch_norm") == 0
    assert sum("affine" in str(n.args) for n in convs) == 1
    model.load_state_dict(state)
