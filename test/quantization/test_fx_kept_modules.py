"""FX graph mode: modules that stay whole, and integers at the borders of graphs."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import torch_ao_ext
from torch_ao_ext.nn import quantizable
from torch_ao_ext.nn import quantized as nnq
from torch_ao_ext.quantization import (
    QConfigMapping,
    default_dynamic_qconfig,
    get_default_qat_qconfig_mapping,
    get_default_qconfig,
    get_default_qconfig_mapping,
)
from torch_ao_ext.quantization.fx.custom_config import ConvertCustomConfig, PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    convert_to_reference_fx,
    prepare_fx,
    prepare_qat_fx,
)

STATIC = get_default_qconfig_mapping("onednn")


def sqnr(want, have):
    want, have = want.detach(), have.detach()
    return float(10 * torch.log10(want.pow(2).sum() / (want - have).pow(2).sum()))


def calibrated(model, mapping, *batches, **options):
    observed = prepare_fx(model, mapping, batches[0], **options)
    with torch.no_grad():
        for batch in batches:
            observed(*batch)
    return observed


class Gate(nn.Module):
    """Python looks at values: torch.export cannot."""

    def forward(self, x):
        return x * 2 if x.detach().sum().item() > 0 else -x


class Block(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Model(nn.Module):
    """A part of each kind between int8 layers."""

    def __init__(self, middle):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(8, 8), middle, nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.middle(torch.relu(self.first(x))))


class Recurrent(nn.Module):
    """A layer of torch.nn with states between linear layers."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Linear(8, 8), nn.Linear(16, 4)
        self.rnn = kind(8, 16, batch_first=True, **options)

    def forward(self, x):
        y, state = self.rnn(self.first(x))
        return self.last(y), state


def batches(*shape, count=4):
    torch.manual_seed(2)
    return [(torch.randn(*shape),) for _ in range(count)]


def int8(model):
    return [(r.fqn, r.op) for r in torch_ao_ext.report(model).rows if r.status == "int8" and r.macs]


@pytest.mark.parametrize("by", ["name", "class"])
def test_non_traceable_modules_stay_float(by):
    model = Model(Gate()).eval()
    config = PrepareCustomConfig()
    if by == "name":
        config.set_non_traceable_module_names(["middle"])
    else:
        config.set_non_traceable_module_classes([Gate])
    with pytest.raises(Exception, match="data-dependent"):
        prepare_fx(model, STATIC, batches(5, 8)[0])
    graph = convert_fx(calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config))
    assert int8(graph) == [("first", "linear"), ("last", "linear")]
    for size in (1, 3, 5):  # the batch stays free
        (x,) = batches(size, 8)[-1]
        assert sqnr(model(x), graph(x)) > 25
    assert sqnr(model(-x), graph(-x)) > 25  # the other branch


@pytest.mark.parametrize("inner", ["own mapping", "the model's"])
@pytest.mark.parametrize("by", ["name", "class"])
def test_standalone_modules_are_models_of_their_own(by, inner):
    model = Model(Block()).eval()
    mapping = QConfigMapping().set_global(get_default_qconfig("qnnpack")) if inner == "own mapping" else None
    entry = (mapping, (torch.randn(2, 8),), None)
    config = PrepareCustomConfig()
    if by == "name":
        config.set_standalone_module_name("middle", *entry)
    else:
        config.set_standalone_module_class(Block, *entry)
    outer = STATIC if inner == "the model's" else QConfigMapping()
    observed = calibrated(model, outer, *batches(5, 8), prepare_custom_config=config)
    graph = convert_fx(observed)
    whole = convert_fx(calibrated(model, STATIC, *batches(5, 8)))
    (x,) = batches(3, 8)[-1]
    assert sqnr(model(x), graph(x)) > sqnr(model(x), whole(x)) - 3
    names = {name.replace("module.graph_module.", "") for name, _ in int8(graph)}
    assert names == {"middle.a", "middle.b"} | ({"first", "last"} if inner == "the model's" else set())
    # The prepared model is left as it was.
    assert torch.equal(convert_fx(observed)(x), graph(x))
    assert sqnr(model(x), observed(x)) > 100


def test_a_standalone_module_takes_its_inputs_from_the_model():
    model = Model(Block()).eval()
    config = PrepareCustomConfig().set_standalone_module_name("middle", None, (), None)
    graph = convert_fx(calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config))
    assert len(int8(graph)) == 4


def test_a_standalone_module_with_integer_borders():
    model = Model(Block()).eval()
    inner = PrepareCustomConfig().set_input_quantized_indexes([0]).set_output_quantized_indexes([0])
    config = PrepareCustomConfig().set_standalone_module_name("middle", None, (), inner)
    plain = PrepareCustomConfig().set_standalone_module_name("middle", None, (), None)
    (x,) = batches(3, 8)[-1]
    graphs = [
        convert_fx(calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=c))
        for c in (config, plain)
    ]
    assert torch.equal(graphs[0](x), graphs[1](x))


def test_integers_at_the_borders_of_a_model():
    model = Model(Block()).eval()
    config = PrepareCustomConfig().set_input_quantized_indexes([0]).set_output_quantized_indexes([0])
    observed = calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config)
    usual = convert_fx(calibrated(model, STATIC, *batches(5, 8)))
    (x,) = batches(3, 8)[-1]
    for make in (convert_fx, convert_to_reference_fx):
        graph = make(observed)
        scale, zero_point, low, high, dtype = graph.input_qparams[0]
        q = torch.ops.torch_ao.quantize_per_tensor(x, scale, zero_point, low, high, dtype)
        y = graph(q)
        assert y.dtype == torch.uint8
        out_scale, out_zero_point = graph.output_qparams[0][:2]
        assert ((y.float() - out_zero_point) * out_scale - usual(x)).abs().max() <= 1.01 * out_scale
    graph = convert_fx(observed)
    assert [n.name for n in graph.graph.nodes if "quantize" in str(n.target)] == []
    with pytest.raises(TypeError, match="input 'x' must have dtype torch.uint8"):
        graph(x)
    assert copy.deepcopy(graph).input_qparams == graph.input_qparams


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dynamic_recurrent_layers(kind):
    model = Recurrent(kind).eval()
    mapping = QConfigMapping().set_global(default_dynamic_qconfig)
    graph = convert_fx(prepare_fx(model, mapping, batches(3, 6, 8)[0]))
    alone = torch_ao_ext.quantization.quantize_dynamic(model, {kind: default_dynamic_qconfig})
    assert [op for _, op in int8(graph)].count("linear_dynamic") == 2
    assert any("rnn" in name for name, _ in int8(graph))
    for size in (1, 3, 4):
        (x,) = batches(size, 6, 8)[-1]
        assert sqnr(model(x)[0], graph(x)[0]) > 25
        y = alone.first(x)
        assert torch.equal(alone.rnn(y)[0], graph.get_submodule("rnn").module(y)[0])
    assert graph(x)[1][0].shape == model(x)[1][0].shape if kind is nn.LSTM else True


def test_lstm_alone():
    class Only(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(8, 16)

        def forward(self, x):
            return self.rnn(x)[0]

    model = Only().eval()
    mapping = QConfigMapping().set_object_type(nn.LSTM, default_dynamic_qconfig)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = convert_fx(prepare_fx(model, mapping, batches(6, 3, 8)[0]))
    (x,) = batches(9, 3, 8)[0]  # the first dimension is free
    assert sqnr(model(x), graph(x)) > 25
    warnings.filterwarnings("ignore", message="The tensor attributes self.rnn._flat_weights")
    with pytest.raises(ValueError, match="must annotate a node"):
        prepare_fx(model, QConfigMapping().set_object_type(nn.GRU, default_dynamic_qconfig), (x,))


def test_lstm_of_observed_custom_modules_equals_eager_mode():
    model = Recurrent(num_layers=2, bidirectional=False).eval()
    config = PrepareCustomConfig().set_float_to_observed_mapping(nn.LSTM, quantizable.LSTM)
    mapping = QConfigMapping().set_object_type(nn.LSTM, get_default_qconfig("onednn"))
    observed = calibrated(model, mapping, *batches(3, 6, 8), prepare_custom_config=config)
    assert type(observed.rnn.module.custom) is quantizable.LSTM
    to = ConvertCustomConfig().set_observed_to_quantized_mapping(quantizable.LSTM, nnq.LSTM)
    graph = convert_fx(observed, convert_custom_config=to)
    assert type(graph.rnn.module.custom) is nnq.LSTM
    eager = nn.Sequential(torch_ao_ext.quantization.QuantStub(), copy.deepcopy(model.rnn)).eval()
    eager.qconfig = get_default_qconfig("onednn")
    eager = torch_ao_ext.quantization.prepare(eager)
    for (x,) in batches(3, 6, 8):
        eager(model.first(x))
    eager = torch_ao_ext.quantization.convert(eager)
    for size in (1, 3, 4):
        (x,) = batches(size, 6, 8)[-1]
        y, (h, c) = graph(x)
        want, (want_h, want_c) = eager(model.first(x))
        assert torch.equal(y, model.last(want.dequantize()))
        assert torch.equal(h, want_h.dequantize()) and torch.equal(c, want_c)
    assert sqnr(model(x)[0], y) > 25


def test_attention_as_a_custom_module():
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    model = Attend().eval()
    config = PrepareCustomConfig().set_float_to_observed_mapping(
        nn.MultiheadAttention, quantizable.MultiheadAttention
    )
    graph = convert_fx(calibrated(model, STATIC, *batches(3, 6, 8), prepare_custom_config=config))
    (x,) = batches(4, 6, 8)[-1]
    assert sqnr(model(x), graph(x)) > 20
    assert len(int8(graph)) == 4


class Scaled(nn.Module):
    """A layer of the user: y = 2 W x."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x) * 2


class ObservedScaled(Scaled):
    """Its observed class."""

    @classmethod
    def from_float(cls, mod):
        new = cls(mod.linear)
        new.qconfig = mod.qconfig
        return new


class QuantizedScaled(nn.Module):
    """Its int8 class."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_observed(cls, mod):
        linear = copy.deepcopy(mod.linear)
        with torch.no_grad():
            linear.weight *= 2
            linear.bias *= 2
        linear.qconfig, linear.activation_post_process = mod.qconfig, mod.activation_post_process
        return cls(nnq.Linear.from_float(linear))


def test_custom_modules_of_users():
    model = Model(Scaled(nn.Linear(8, 8))).eval()
    config = PrepareCustomConfig().set_float_to_observed_mapping(Scaled, ObservedScaled)
    observed = calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config)
    with pytest.raises(ValueError, match="must name the quantized class of ObservedScaled"):
        convert_fx(observed)
    to = ConvertCustomConfig().set_observed_to_quantized_mapping(ObservedScaled, QuantizedScaled)
    graph = convert_fx(observed, convert_custom_config=to)
    (x,) = batches(3, 8)[-1]
    assert len(int8(graph)) == 3 and sqnr(model(x), graph(x)) > 25


def test_copies_and_pickles():
    """Prepared and converted graphs with parts of each kind."""
    model = nn.Sequential(Model(Gate()), Model(Block()), Scaled(nn.Linear(4, 8)), Block()).eval()
    config = PrepareCustomConfig().set_non_traceable_module_classes([Gate])
    config.set_standalone_module_class(Block, None, (), None)
    config.set_float_to_observed_mapping(Scaled, ObservedScaled)
    model[1].first = nn.Linear(4, 8)
    to = ConvertCustomConfig().set_observed_to_quantized_mapping(ObservedScaled, QuantizedScaled)
    observed = calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config)
    (x,) = batches(3, 8)[-1]
    graph = convert_fx(observed, convert_custom_config=to)
    want = graph(x)
    assert sqnr(model(x), want) > 15
    for copied in (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        assert torch.equal(copied(graph)(x), want)
        again = copied(observed)
        assert torch.equal(convert_fx(again, convert_custom_config=to)(x), want)
        again(x * 10)
        assert not torch.equal(convert_fx(again, convert_custom_config=to)(x), want)
    assert torch.equal(convert_fx(observed, convert_custom_config=to)(x), want)


def test_one_module_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.block, self.fc = Gate(), Block(), nn.Linear(8, 8)

        def forward(self, x):
            return self.block(self.gate(self.fc(self.block(self.gate(x)))))

    torch.manual_seed(0)
    model = Twice().eval()
    config = PrepareCustomConfig().set_non_traceable_module_classes([Gate])
    config.set_standalone_module_name("block", None, (), None)
    graph = convert_fx(calibrated(model, STATIC, *batches(5, 8), prepare_custom_config=config))
    (x,) = batches(5, 8)[0]
    assert sqnr(model(x), graph(x)) > 20
    assert graph.block.module is graph.block_1.module


def test_training_around_kept_modules():
    model = Model(Gate()).train()
    config = PrepareCustomConfig().set_non_traceable_module_names(["middle"])
    mapping = get_default_qat_qconfig_mapping("onednn")
    graph = prepare_qat_fx(model, mapping, batches(5, 8)[0], prepare_custom_config=config)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    for (x,) in batches(5, 8, count=1) * 30:
        loss = graph(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and model.first.weight.grad is not None
    assert len(int8(convert_fx(graph))) == 2


def test_statistics_and_random_numbers_stay():
    model = Model(nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5))).train()
    config = PrepareCustomConfig().set_non_traceable_module_names(["middle"])
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    prepare_qat_fx(model, get_default_qat_qconfig_mapping("onednn"), batches(5, 8)[0], config)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_dict_forms_go_both_ways():
    inner = PrepareCustomConfig().set_preserved_attributes(["a"])
    config = PrepareCustomConfig().set_standalone_module_name("x", STATIC, (torch.ones(1),), inner)
    config.set_standalone_module_class(Block, None, (), None).set_non_traceable_module_names(["y"])
    config.set_float_to_observed_mapping(nn.LSTM, quantizable.LSTM).set_input_quantized_indexes([0])
    again = PrepareCustomConfig.from_dict(config.to_dict())
    assert again.standalone_module_names["x"].prepare_custom_config.preserved_attributes == ["a"]
    one, two = (c.standalone_module_names["x"].qconfig_mapping.to_dict() for c in (config, again))
    assert one == two
    assert again.standalone_module_classes.keys() == {Block}
    assert again.float_to_observed_mapping == config.float_to_observed_mapping
    assert (again.non_traceable_module_names, again.input_quantized_indexes) == (["y"], [0])
    to = ConvertCustomConfig().set_observed_to_quantized_mapping(quantizable.LSTM, nnq.LSTM)
    assert to.to_dict() == {
        "observed_to_quantized_custom_module_class": {"static": {quantizable.LSTM: nnq.LSTM}}
    }
    assert ConvertCustomConfig.from_dict(to.to_dict()).to_dict() == to.to_dict()


REFUSED = {
    "a name": (
        PrepareCustomConfig().set_non_traceable_module_names(["nope"]), "names must be those of modules"
    ),
    "a standalone name": (
        PrepareCustomConfig().set_standalone_module_name("nope", None, (), None), "names must be those of"
    ),
    "an input index": (PrepareCustomConfig().set_input_quantized_indexes([1]), "must be less than 1, got 1"),
    "an output index": (
        PrepareCustomConfig().set_output_quantized_indexes([3]), "must be less than 1, got 3"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    config, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        prepare_fx(Model(Block()).eval(), STATIC, batches(5, 8)[0], prepare_custom_config=config)


def test_borders_that_stay_float_are_refused():
    model = Model(Block()).eval()
    mapping = QConfigMapping().set_module_name("middle", get_default_qconfig("onednn"))
    for config, message in (
        (PrepareCustomConfig().set_input_quantized_indexes([0]), "inputs that an int8 operator reads"),
        (PrepareCustomConfig().set_output_quantized_indexes([0]), "outputs that an int8 operator gives"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare_fx(model, mapping, batches(5, 8)[0], prepare_custom_config=config)


def test_setters_check():
    config = PrepareCustomConfig()
    with pytest.raises(ValueError, match="classes must be subclasses of nn.Module, got 3"):
        config.set_non_traceable_module_classes([3])
    with pytest.raises(ValueError, match="must hold integers >= 0, got -1"):
        config.set_input_quantized_indexes([-1])
    with pytest.raises(ValueError, match="'observed_class' must have from_float"):
        config.set_float_to_observed_mapping(Gate, Gate)
    with pytest.raises(ValueError, match="'quantized_class' must have from_observed"):
        ConvertCustomConfig().set_observed_to_quantized_mapping(Gate, Gate)
    with pytest.raises(ValueError, match="keys must be among"):
        PrepareCustomConfig.from_dict({"prepare": 1})
