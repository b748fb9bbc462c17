"""Dynamic LSTMCell, GRUCell and RNNCell: the float cells' calls, every runtime, files."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.quantization import quantize_dynamic

CELLS = {
    "lstm": (nn.LSTMCell, {}),
    "gru": (nn.GRUCell, {}),
    "tanh": (nn.RNNCell, {}),
    "relu": (nn.RNNCell, {"nonlinearity": "relu"}),
    "no bias": (nn.LSTMCell, {"bias": False}),
}


class Steps(nn.Module):
    """A cell over [T, N, K], as decoders use it."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state = None
        for step in x.unbind(0):
            state = self.cell(step, state)
        return state[0] if isinstance(state, tuple) else state


@pytest.fixture(params=list(CELLS))
def cell(request):
    torch.manual_seed(0)
    kind, options = CELLS[request.param]
    return kind(12, 32, **options).eval()


def close(a, b):
    return (a - b).norm() / b.norm() < 0.03


def states_of(cell, *shape):
    state = torch.rand(*shape, 32) - 0.5
    return (state, state * 0.5) if isinstance(cell, nn.LSTMCell) else state


def test_quantize_dynamic_converts_packs_and_reports(cell):
    model, x = Steps(cell), torch.randn(4, 3, 12)
    q = quantize_dynamic(model, strict=True)
    assert isinstance(q.cell, dynamic.RNNCellBase) and not list(q.parameters())
    (row,) = torch_ao_ext.report(q).rows
    assert (row.fqn, row.status, row.engine) == ("cell", "int8", "native")
    assert row.macs == cell.weight_ih.numel() + cell.weight_hh.numel()
    assert close(q(x), model(x))
    assert torch_ao_ext.explain(q).weights["cell"]["pack_count"] == 1


def test_call_forms_follow_the_float_cell(cell):
    q = quantize_dynamic(cell)
    for args in (
        (torch.randn(3, 12),),
        (torch.randn(3, 12), states_of(cell, 3)),
        (torch.randn(12),),
        (torch.randn(12), states_of(cell)),
        (torch.randn(0, 12),),
    ):
        got, want = q(*args), cell(*args)
        pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
        for a, b in pairs:
            assert a.shape == b.shape and a.dtype == b.dtype
            assert close(a, b) or b.numel() == 0


def test_bfloat16(cell):
    x = torch.randn(3, 12).bfloat16()
    got, want = quantize_dynamic(copy.deepcopy(cell).bfloat16())(x), cell(x.float())
    got, want = (v[0] if isinstance(v, tuple) else v for v in (got, want))
    assert got.dtype == torch.bfloat16 and (got.float() - want).norm() / want.norm() < 0.05


def test_copies_and_files_give_the_same_bits(cell, tmp_path):
    q, x = quantize_dynamic(Steps(cell)), torch.randn(4, 3, 12)
    y, buffer = q(x), io.BytesIO()
    torch.save(q.state_dict(), buffer)
    buffer.seek(0)
    other = quantize_dynamic(Steps(copy.deepcopy(cell)))
    other.load_state_dict(torch.load(buffer, weights_only=True))
    path = tmp_path / "model.safetensors"
    torch_ao_ext.save_quantized(q, path)
    loaded = torch_ao_ext.load_quantized(path, lambda: Steps(copy.deepcopy(cell)))
    for copied in (other, copy.deepcopy(q), pickle.loads(pickle.dumps(q)), loaded):
        assert torch.equal(copied(x), y)


def test_every_runtime_gives_the_same_bits(cell):
    q, x = quantize_dynamic(Steps(cell)), torch.randn(2, 3, 12)
    y = q(x)
    exported = torch.export.export(q, (x,))
    assert str(exported.graph).count("_cell.default") == 2
    assert torch.equal(exported.module()(x), y)
    assert torch.equal(torch.jit.trace(q, x, check_trace=False)(x), y)
    scripted, state = torch.jit.script(q.cell), states_of(cell, 3)
    for args in ((x[0],), (x[0], state), (x[0, 0],)):
        got, want = scripted(*args), q.cell(*args)
        pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
        assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(torch.compile(q, fullgraph=True, backend="aot_eager")(x), y)


def test_float_and_newer_states_are_refused(cell):
    q = quantize_dynamic(cell)
    before = {name: value.clone() for name, value in q.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="weight_ih is a float weight; load it into the float model"):
            q.load_state_dict(cell.state_dict(), strict=strict)
        with pytest.raises(RuntimeError, match="format_version must be <= 1, got 2; upgrade torch_ao_ext"):
            q.load_state_dict({**before, "format_version": torch.tensor(2)}, strict=strict)
    assert all(torch.equal(value, before[name]) for name, value in q.state_dict().items())


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="RNNCell: argument 'nonlinearity' must be 'tanh' or 'relu'"):
        dynamic.RNNCell(3, 4, nonlinearity="gelu")
    with pytest.raises(ValueError, match="LSTMCell.from_float: argument 'mod' must have a qconfig"):
        dynamic.LSTMCell.from_float(nn.LSTMCell(3, 4))
    with pytest.raises(ValueError, match="torch_ao::gru_cell: argument 'input' must"):
        dynamic.GRUCell(3, 4)(torch.randn(2, 5))
