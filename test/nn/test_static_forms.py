"""Activations and norms between quantized tensors: dtypes, memory orders, copies, graphs, conversion."""

import copy
import pickle
import warnings

import pytest
import torch
from static_cases import MODULES, make
from static_peer import ours
from torch import nn

from torch_ao_ext import report
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.ns.fx.mappings import get_base_name_for_op, get_base_name_to_sets_of_related_ops
from torch_ao_ext.quantization import (
    DeQuantStub,
    QuantStub,
    QuantWrapper,
    convert,
    default_qconfig,
    get_default_qat_qconfig,
    get_default_qconfig,
    prepare,
    prepare_qat,
)

# Those that torch.ao has no module for.
OWN = ["BatchNorm1d", "BatchNorm1d lines", "CELU", "Mish", "RMSNorm", "SELU", "SiLU", "Softmax2d"]


def shifted(q):
    """The same values in int8."""
    data = (q.int_repr().int() - 128).to(torch.int8)
    return QuantizedTensor(data, q.q_scale(), q.q_zero_point() - 128)


def same(y, want):
    assert (y.q_scale(), y.q_zero_point(), y.dtype) == (want.q_scale(), want.q_zero_point(), want.dtype)
    return torch.equal(y.int_repr(), want.int_repr())


def channels_last(q):
    data = q.int_repr().movedim(1, -1).contiguous().movedim(-1, 1)
    return QuantizedTensor(data, q.q_scale(), q.q_zero_point())


@pytest.mark.parametrize("name", MODULES)
def test_int8_is_uint8_moved_by_128(name):
    _, module, q, _ = make(name)
    want = module(q)
    assert len(want.int_repr().unique()) > 10 and same(module(shifted(q)), want)
    module.set_output(module.scale, module.zero_point - 128, torch.qint8)
    assert same(module(q), shifted(want)) and same(module(shifted(q)), shifted(want))


@pytest.mark.parametrize("name", MODULES)
def test_a_batch_without_samples(name):
    _, module, q, _ = make(name)
    y = module(q[:0])
    assert y.shape == q[:0].shape and (y.dtype, y.q_scale()) == (torch.uint8, module.scale)


@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if len(case[1]) > 2])
def test_memory_orders(name):
    _, module, q, _ = make(name)
    last = channels_last(q)
    assert not last.int_repr().is_contiguous()
    want, y = module(q), module(last)
    assert same(y, want) and want.int_repr().is_contiguous()
    contiguous = ("LayerNorm", "RMSNorm", "Softmax")  # whatever comes
    assert name.startswith(contiguous) or y.int_repr().stride() == last.int_repr().stride()


@pytest.mark.parametrize("name", MODULES)
def test_copies_and_state(name):
    mod, module, q, _ = make(name)
    want = module(q)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert same(other(q), want) and repr(other) == repr(module)
    assert repr(module).startswith("Quantized") and f"scale={module.scale}, zero_point=" in repr(module)
    other = copy.deepcopy(module)
    other.set_output(3.0, 7, torch.int8)
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(module.state_dict())
    assert same(other(q), want)
    assert same(type(module).from_reference(mod, module.scale, module.zero_point)(q), want)


@pytest.mark.parametrize("name", MODULES)
def test_graphs(name):
    _, module, q, _ = make(name)
    model = nn.Sequential(nnq.Quantize(0.05, 120), module, nnq.DeQuantize()).eval()
    x, other = q.dequantize(), -q.dequantize()
    want = model(other)
    assert torch.equal(torch.jit.trace(model, x)(other), want)
    if name in OWN:
        assert torch.equal(torch.export.export(model, (x,)).module()(other), want)


def built(name):
    torch.manual_seed(0)
    return MODULES[name][0]().eval()


def converted(name, x, auto_edges):
    model = nn.Sequential(built(name))
    model = model if auto_edges else QuantWrapper(model)
    model.qconfig = get_default_qconfig("onednn")
    observed = prepare(model.eval(), auto_edges=auto_edges)
    observed(x)
    return convert(observed)


@pytest.mark.parametrize("name", MODULES)
def test_converted_models(name):
    """With stubs, and without: the same integers."""
    _, module, q, _ = make(name)
    mod, x = built(name), q.dequantize() * 1.1
    model = converted(name, x, False)
    (layer,) = model.module
    assert type(layer) is type(module)
    quantized = model.quant(x)
    exact = (mod(quantized.dequantize()) / layer.scale + layer.zero_point).clamp(0, 255)
    y = model(x)
    assert (y / layer.scale + layer.zero_point - exact).abs().max() <= 1
    assert torch.equal(converted(name, x, True)(x), y)
    (row,) = (row for row in report(model).rows if row.fqn == "module.0")
    reason = "int8 in and out, computed in float32" if name.startswith("Softmax") else ""
    where = ("float", "torch") if reason else ("int8", "native")
    assert (row.op, row.status, row.engine, row.reason) == (type(layer).__name__, *where, reason)


@pytest.mark.parametrize("name", OWN)
def test_trained_models(name):
    build, sizes, _ = MODULES[name]
    torch.manual_seed(0)
    model = QuantWrapper(nn.Sequential(build())).train()
    model.qconfig = get_default_qat_qconfig("onednn")
    model = prepare_qat(model)
    x = torch.randn(*sizes)
    model(x)
    want = model.eval()(x)
    int8 = convert(model)
    assert type(int8.module[0]) is getattr(nnq, name.split()[0])
    assert (int8(x) - want).abs().max() <= 1.01 * int8.module[0].scale


@pytest.mark.parametrize("name", OWN)
def test_numeric_suite_knows_them(name):
    kind = name.split()[0]
    sets = get_base_name_to_sets_of_related_ops()
    home = get_base_name_for_op(sets, getattr(nn, kind))
    assert home is not None and getattr(nnq, kind) in sets[home]


@pytest.mark.parametrize("rank, ranks", [(1, "2 or 3"), (2, "4"), (3, "5")])
def test_batch_norm_of_another_rank(rank, ranks):
    with pytest.raises(ValueError, match=f"'input' must have {ranks} dimensions, got 6"):
        getattr(nnq, f"BatchNorm{rank}d")(4)(ours(2, 4, 1, 1, 1, 1))


def test_softmax2d_of_images_and_other_ranks():
    q = ours(2, 4, 5, 5)
    batch = nnq.Softmax2d()(q)
    assert same(nnq.Softmax2d()(q[1]), batch[1])
    for wrong in (q.flatten(1), q.unsqueeze(0)):
        with pytest.raises(ValueError, match=f"Softmax2d: expected input to be 3D or 4D, got {wrong.dim()}D"):
            nnq.Softmax2d()(wrong)


def test_batch_norm_of_lines_without_statistics():
    module = nnq.BatchNorm1d(4, track_running_stats=False, scale=0.05, zero_point=120)
    assert module.float_reason() == "no running statistics"
    q = ours(3, 4, 9)
    exact = nn.BatchNorm1d(4, track_running_stats=False)(q.dequantize()) / 0.05 + 120
    assert (module(q).int_repr() - exact.clamp(0, 255)).abs().max() <= 0.501


def test_arguments_of_constructors():
    weight = torch.rand(6) + 0.5
    module = nnq.RMSNorm(6, weight, 0.1, 100, 1e-3)
    assert torch.equal(module.weight, weight) and module.eps == 1e-3 and module.qparams[:2] == (0.1, 100)
    with pytest.raises(ValueError, match=r"RMSNorm: argument 'weight' must be \[6\], got \[5\]"):
        nnq.RMSNorm(6, weight[:5])
    assert nnq.RMSNorm(6, elementwise_affine=False).weight is None and nnq.RMSNorm(6).eps is None
    assert nnq.CELU(0.1, 3, 0.5).alpha == 0.5 and nnq.SiLU(0.1, 3).qparams == (0.1, 3, torch.uint8)
    for kind in (nnq.SELU, nnq.Mish, nnq.SiLU, nnq.Softmax2d):
        assert kind(0.1, -3, torch.qint8).qparams == (0.1, -3, torch.int8)
    assert nnq.Softmax2d().qparams == (1 / 256, 0, torch.uint8)


class Behind(nn.Module):
    """A layer in the float part of a model with stubs."""

    def __init__(self, layer):
        super().__init__()
        self.stub, self.fc, self.back, self.layer = QuantStub(), nn.Linear(6, 6), DeQuantStub(), layer

    def forward(self, x):
        return self.layer(self.back(self.fc(self.stub(x))))


@pytest.mark.parametrize("kind", ["BatchNorm1d", "CELU", "Mish", "SELU", "SiLU", "Sigmoid", "Softmax"])
def test_layers_that_torch_ao_leaves_float(kind):
    layer = getattr(nn, kind)(*{"BatchNorm1d": (6,), "Softmax": (-1,)}.get(kind, ()))
    model = Behind(layer).eval()
    model.qconfig = default_qconfig
    prepared = prepare(model)
    x = torch.randn(5, 6)
    prepared(x)
    converted = convert(prepared)
    with pytest.warns(UserWarning, match=f"nn.quantized.{kind} 'layer' got floats and computes in floats"):
        y = converted(x)
    assert torch.equal(y, layer(converted.back(converted.fc(converted.stub(x)))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(converted(x), y)  # said once
    row = next(row for row in report(converted).rows if row.fqn == "layer")
    assert (row.status, row.reason) == ("float", "its input was float")


def test_a_layer_that_torch_ao_knows_refuses_floats():
    with pytest.raises(TypeError, match="nn.quantized.ELU: argument 'input' must be a QuantizedTensor"):
        nnq.ELU()(torch.ones(2))
