"""Names that torch.ao has beside the flows: observers by default, functions of tables, types of hints."""

import importlib
import typing
import warnings

import pytest
import torch
import torch.nn.functional as F
from test_qconfig_mapping import assert_same_module
from torch import fx, nn
from torch_ao_peer import peer

from torch_ao_ext import quantization as tq
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import intrinsic, quantizable
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.nn.quantized import reference
from torch_ao_ext.nn.quantized.reference.modules.utils import ReferenceQuantizedModule
from torch_ao_ext.quantization import fuser_method_mappings, observer
from torch_ao_ext.quantization import utils as tq_utils
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig, StandaloneModuleConfigEntry
from torch_ao_ext.quantization.fx.quantize_handler import QuantizeHandler
from torch_ao_ext.quantization.fx.utils import NON_OBSERVABLE_ARG_DICT, NodeInfo


@pytest.fixture(autouse=True)
def _quiet():
    """torch's quantized tensors are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


OBSERVERS = [name for name in observer.__all__ if name.startswith("default_") and hasattr(peer(), name)]


@pytest.mark.parametrize("name", OBSERVERS)
def test_default_observers(name):
    """Of one kind, with equal settings, and equal qparams of equal data."""
    mine, other = getattr(tq, name)(), getattr(peer(), name)()
    assert_same_module(mine, other)
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mine(x), other(x))
    if name == "default_debug_observer":
        assert torch.equal(mine.get_tensor_value()[0], x) and len(mine.get_tensor_value()) == 1
        return
    found, want = [], []
    for module, qparams in ((mine, found), (other, want)):
        try:
            qparams += module.calculate_qparams()
        except Exception as error:  # placeholders have none, of either library
            assert "qparams" in str(error)
    assert len(found) == len(want)
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0, check_dtype=False)


def test_the_list_of_observers_is_whole():
    theirs = {name for name in dir(peer().observer) if name.startswith("default_")}
    assert theirs == set(OBSERVERS) and len(OBSERVERS) == 14


def test_observers_of_one_scale_have_one_base():
    kinds = (tq.MinMaxObserver, tq.PerChannelMinMaxObserver, tq.HistogramObserver)
    assert all(issubclass(kind, tq.UniformQuantizationObserverBase) for kind in kinds)
    assert not issubclass(tq.PlaceholderObserver, tq.UniformQuantizationObserverBase)
    theirs = peer().observer.UniformQuantizationObserverBase
    assert all(issubclass(getattr(peer(), kind.__name__), theirs) for kind in kinds)


def pair(kind):
    torch.manual_seed(0)
    first, norm, x = {
        "fuse_conv_bn": (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), torch.randn(2, 3, 5, 5)),
        "fuse_linear_bn": (nn.Linear(3, 4), nn.BatchNorm1d(4), torch.randn(5, 3)),
        "fuse_convtranspose_bn": (nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4), torch.randn(2, 3, 5, 5)),
    }[kind]
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    return first, norm, x


@pytest.mark.parametrize("name", ["fuse_conv_bn", "fuse_linear_bn", "fuse_convtranspose_bn"])
def test_fuser_functions(name):
    first, norm, x = pair(name)
    want = norm.eval()(first.eval()(x))
    fused = getattr(tq, name)(False, first, norm)
    torch.testing.assert_close(fused(x), want)
    assert type(fused) is type(first)
    assert getattr(fuser_method_mappings, name) is getattr(tq, name)
    first, norm, _ = pair(name)
    if name == "fuse_convtranspose_bn":
        with pytest.raises((ValueError, NotImplementedError, RuntimeError)):
            tq.fuse_convtranspose_bn(True, first.train(), norm.train())
    else:
        kind = {"fuse_conv_bn": intrinsic.ConvBn2d, "fuse_linear_bn": intrinsic.LinearBn1d}[name]
        assert type(getattr(tq, name)(True, first.train(), norm.train())) is kind


def quantized(x, scale, point):
    data = torch.quantize_per_tensor(x, scale, point, torch.quint8)
    return data, QuantizedTensor(data.int_repr(), scale, point)


@pytest.mark.parametrize(
    "function, shape, arguments",
    [
        (F.elu, (3, 8), (0.03, 40)), (F.hardswish, (3, 8), (0.03, 40)),
        (F.layer_norm, (3, 8), ([8], torch.linspace(0.5, 1, 8), torch.linspace(-1, 1, 8), 1e-5, 0.03, 120)),
        (F.layer_norm, (3, 8), ([8], None, None, 1e-5, 0.03, 120)),
        (F.instance_norm, (2, 3, 5, 4), (torch.ones(3) / 2, torch.linspace(-1, 1, 3), 1e-5, 0.03, 120)),
        (F.dropout, (3, 8), (0.03, 40)),
    ],
    ids=["elu", "hardswish", "layer_norm", "layer_norm without factors", "instance_norm", "dropout"],
)  # fmt: skip
def test_quantized_operators(function, shape, arguments):
    """torch.ao's operators take the same arguments; sums of squares may round to the next integer."""
    theirs, ours = quantized(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), 0.02, 110)
    want = peer().get_quantized_operator(function)(theirs, *arguments)
    found = tq.get_quantized_operator(function)(ours, *arguments)
    assert (found.q_scale(), found.q_zero_point()) == (pytest.approx(want.q_scale()), want.q_zero_point())
    assert (found.int_repr().int() - want.int_repr().int()).abs().max() <= 1
    with pytest.raises(TypeError, match="argument 'input' must be a QuantizedTensor, got a torch.float32"):
        tq.get_quantized_operator(function)(ours.dequantize(), *arguments)


def test_tables_of_functions_and_embeddings():
    mine = tq.quantization_mappings.DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS
    assert mine == tq.get_default_float_to_quantized_operator_mappings()
    assert set(mine) >= set(peer().quantization_mappings.DEFAULT_FLOAT_TO_QUANTIZED_OPERATOR_MAPPINGS)
    with pytest.raises(ValueError, match="dropout: argument 'training' must be False, got True"):
        mine[F.dropout](quantized(torch.ones(2), 0.1, 0)[1], training=True)
    table = tq.get_embedding_static_quant_module_mappings()
    theirs = peer().get_embedding_static_quant_module_mappings()
    assert {k for k in theirs if k.__module__.startswith("torch.nn.")} <= set(table)
    assert table[nn.Embedding] is nnq.Embedding and table[nn.EmbeddingBag] is nnq.EmbeddingBag


def test_custom_modules_by_default():
    def path(kind):
        return kind.__module__.rpartition(".modules")[0].replace("torch_ao_ext", "torch.ao"), kind.__name__

    def names(table):
        return {key: {path(k): path(v) for k, v in inner.items()} for key, inner in table.items()}

    mine = tq.get_default_custom_config_dict()
    assert names(mine) == names(peer().get_default_custom_config_dict())
    assert mine["float_to_observed_custom_module_class"][nn.LSTM] is quantizable.LSTM
    mine.clear()
    assert tq.get_default_custom_config_dict()  # a copy


def test_standalone_entries():
    entry = StandaloneModuleConfigEntry(None, (1,), None, None)
    theirs = importlib.import_module("torch.ao.quantization.fx.custom_config").StandaloneModuleConfigEntry
    assert list(typing.get_type_hints(StandaloneModuleConfigEntry)) == list(theirs.__annotations__)
    config = PrepareCustomConfig().set_standalone_module_name("part", None, (1,), None, None)
    assert config.standalone_module_names == {"part": entry}
    assert (entry.example_inputs, entry.backend_config) == ((1,), None)


def test_keys_of_arguments_that_are_no_values():
    key = NodeInfo("call_method", "view")
    assert (key.op, key.target) == ("call_method", "view") and key in NON_OBSERVABLE_ARG_DICT


def test_handlers_know_their_nodes():
    """The root, how many of its arguments are values, what kind of module it is: as torch.ao's."""
    theirs = importlib.import_module("torch.ao.quantization.fx.quantize_handler")
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    linear, relu = (n for n in graph.graph.nodes if n.op == "call_module")
    other = fx.symbolic_trace(lambda x, y: (x + y, x + 2))
    both, one = (n for n in other.graph.nodes if n.op == "call_function")
    modules = dict(graph.named_modules())
    cases = [((relu, linear), {}), (both, {"is_custom_module": True}), (one, {"is_standalone_module": True})]
    for nodes, kinds in cases:
        mine, peers = (kind(nodes, modules, **kinds) for kind in (QuantizeHandler, theirs.QuantizeHandler))
        assert mine.root_node is peers.root_node and mine.num_tensor_args == peers.num_tensor_args
        for method in ("is_custom_module", "is_standalone_module", "is_general_tensor_value_op"):
            assert getattr(mine, method)() == getattr(peers, method)(), method
    assert QuantizeHandler((relu, linear), modules, lambda nodes: nodes[0]).root_node is relu


def test_reference_layers_have_one_base():
    """It has the rounded weight, as torch.ao's."""
    import torch.ao.nn.quantized.reference as theirs

    qparams = {"qscheme": torch.per_tensor_affine, "dtype": torch.qint8, "scale": 0.02, "zero_point": 3}
    mine, other = (package.Linear(4, 3, weight_qparams=qparams) for package in (reference, theirs))
    other.weight.data.copy_(mine.weight.data)
    assert isinstance(mine, ReferenceQuantizedModule) and mine._get_name() == other._get_name()
    assert isinstance(reference.Conv2d(3, 4, 1), ReferenceQuantizedModule)
    torch.testing.assert_close(mine.get_weight(), other.get_weight())
    assert torch.equal(mine.get_quantized_weight(), other.get_quantized_weight().int_repr())


def test_types_of_hints():
    """What programs write behind colons: unions that hold what they say."""
    qconfig, fake = tq.default_qconfig, tq.FakeQuantize()
    assert isinstance(qconfig, tq.QConfigAny) and isinstance(None, tq.QConfigAny)
    assert not isinstance(3, tq.QConfigAny)
    assert isinstance(fake, tq.ObserverOrFakeQuantize)
    assert isinstance(tq.MinMaxObserver(), tq.ObserverOrFakeQuantize)
    assert not isinstance(nn.Linear(2, 2), tq.ObserverOrFakeQuantize)
    assert tq.Pattern is tq_utils.Pattern and tq_utils.NodePattern is typing.Any
