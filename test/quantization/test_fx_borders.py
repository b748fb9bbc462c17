"""FX graph mode: integers at the borders of graphs."""

import copy

import pytest
import torch
from fx_models import (
    STATIC,
    Block,
    Model,
    batches,
    calibrated,
)

from torch_ao_ext.quantization import (
    QConfigMapping,
    get_default_qconfig,
)
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import (
    convert_fx,
    convert_to_reference_fx,
    prepare_fx,
)


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


def test_borders_that_stay_float_are_refused():
    model = Model(Block()).eval()
    mapping = QConfigMapping().set_module_name("middle", get_default_qconfig("onednn"))
    for config, message in (
        (PrepareCustomConfig().set_input_quantized_indexes([0]), "inputs that an int8 operator reads"),
        (PrepareCustomConfig().set_output_quantized_indexes([0]), "outputs that an int8 operator gives"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare_fx(model, mapping, batches(5, 8)[0], prepare_custom_config=config)
