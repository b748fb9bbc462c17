"""Writes in place, through views too: prepared, converted and lowered graphs compute what the model does."""

import pickle
import warnings

import pytest
import torch
import torch.nn.functional as functional
from flow_models import export
from test_lower import Everything
from torch import nn

import torch_ao_ext
from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import X86InductorQuantizer
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86


def view_read_later(layer, x):
    y = layer(x)
    turned = y.t()
    y.add_(x)
    return turned


def column(layer, x):
    y = layer(x)
    y[:, 0].mul_(0.0)
    return y


def flat(layer, x):
    y = layer(x)
    y.view(-1).relu_()
    return y * 1.0


def assigned(layer, x):
    y = layer(x)
    y[:, 2:5] = 1.0
    y[0] = x[1]
    y[:, 1] += 2
    return layer(y).t()


def mask_of_zeros(layer, x):
    mask = torch.zeros(8, 8)
    mask[2:4, :] = 3
    mask[4:, 2:] = 7
    return layer(x) + layer(mask)


def copy_is_no_view(layer, x):
    y = layer(x)
    y.transpose(0, 1).reshape(2, 4, 8)[0].relu_()
    other = y.view(2, 4, 8).transpose(0, 1).reshape(-1)
    other.neg_()
    return layer(y) + other.sum()


def turned(layer, x):
    y = layer(x)
    y.permute(1, 0).unsqueeze(0).clamp_(min=0.1)
    y.unflatten(1, (2, 4)).transpose(0, 2)[1].sub_(0.25)
    return layer(y)


def diagonal(layer, x):
    y = layer(x)
    y.diagonal().fill_(3.0)
    y.narrow(1, 2, 3).neg_()
    y.flatten()[3] = 1.5
    return layer(y)


def both_ways(layer, x):
    y = layer(x)
    other = y.t()
    y.mul_(2)
    other.add_(1)
    y.sub_(0.5)
    return layer(y) + other


def no_operation(layer, x):
    y = layer(x)
    same = functional.dropout(y, 0.5, False)
    same += x
    again = y.contiguous().to(torch.float32)
    again *= 0.5
    apart = y.to(torch.float32, copy=True)
    apart.zero_()
    return layer(y)


def parts(layer, x):
    y = layer(x)
    y.split(3, 1)[1].relu_()
    left, right = y.chunk(2, -1)
    right.abs_()
    y.unbind(1)[3].fill_(0.5)
    return layer(y) + left.sum()


def read_before(layer, x):
    y = layer(x)
    before = y.t().sum()
    y.relu_()
    return layer(y) + before


def written_input(layer, x):
    x[:, 2] = 0
    y = layer(x)
    x[1] = 3.0
    x.view(-1).abs_()
    x.t().add_(1)
    return y + layer(x)


FUNCTIONS = (
    view_read_later, column, flat, assigned, mask_of_zeros, copy_is_no_view, turned, diagonal, both_ways,
    no_operation, parts, read_before, written_input,
)  # fmt: skip


class Model(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.function(self.layer, x)


def linear_layers():
    config = x86.get_default_x86_inductor_quantization_config()
    return X86InductorQuantizer().set_module_type_qconfig(nn.Linear, config)


def flow(model, x, quantizer):
    """(prepared, converted, lowered)"""
    with torch.no_grad():
        ready = prepare_pt2e(export(model.eval(), (x.clone(),)), quantizer)
        ready(x.clone())
        quantized = convert_pt2e(ready)
        return ready, quantized, torch_ao_ext.lower(quantized)  # with islands


@pytest.mark.parametrize("quantizer", [linear_layers, Everything])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_values(function, quantizer, sqnr):
    torch.manual_seed(3)
    model, x = Model(function), torch.randn(8, 8)
    ready, quantized, lowered = flow(model, x, quantizer())
    with torch.no_grad():
        want = model(x.clone())
        assert torch.equal(ready(x.clone()), want)
        assert sqnr(want, quantized(x.clone())) > 33
        assert sqnr(want, lowered(x.clone())) > 33


def test_inputs_are_written():
    model, x = Model(written_input), torch.randn(8, 8)
    want = x.clone()
    with torch.no_grad():
        model(want)
        for graph in flow(model, x, linear_layers()):
            got = x.clone()
            graph(got)
            assert torch.equal(got, want)


class Cache(nn.Module):
    """A buffer written by slices, read whole behind each write."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("cache", torch.zeros(4, 8))

    def forward(self, x):
        before = self.layer(self.cache)
        self.cache[1:3] = self.layer(x)
        after = self.layer(self.cache)
        self.cache[0].add_(1)
        return before, after, self.layer(self.cache)


def test_buffers_are_written(sqnr):
    torch.manual_seed(4)
    model, x = Cache().eval(), torch.randn(2, 8)
    with torch.no_grad():
        start = {k: v.clone() for k, v in model.state_dict().items()}
        ready = prepare_pt2e(export(model, (x,)), linear_layers())
        for _ in range(2):
            ready(x)
        quantized = convert_pt2e(ready)
        lowered = torch_ao_ext.lower(quantized, islands=False)
        results = []
        for graph in (model, quantized, lowered, torch_ao_ext.lower(quantized)):
            buffer = graph.cache
            buffer.copy_(start["cache"])
            results.append([*graph(x), *graph(0.5 * x), buffer.clone()])
    for got in results[1:]:
        near = [sqnr(w, g) for w, g in zip(results[0], got, strict=True)]
        assert min(near) > 25, near


def test_pickles_remember_which_buffers_are_written():
    x = torch.randn(2, 8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own pytree specs
        ready = prepare_pt2e(export(Cache().eval(), (x,)), linear_layers())
        ready(x)
        loaded = pickle.loads(pickle.dumps(ready))
        for graph in (ready, loaded):
            kept = {str(n.target) for n in convert_pt2e(graph).graph.nodes if n.op == "get_attr"}
            assert "cache" in kept and not any(name.startswith("_cache") for name in kept), kept


def test_a_view_without_a_form_is_refused():
    class Folded(Model):
        def forward(self, x):
            y = self.layer(x)
            y.unfold(1, 2, 2).relu_()
            return self.layer(y)

    x = torch.randn(8, 8)
    with pytest.raises(
        ValueError, match=r"must not write in place to a view .*node 'unfold'.*test_in_place.py"
    ):
        prepare_pt2e(export(Folded(None).eval(), (x,)), linear_layers())
