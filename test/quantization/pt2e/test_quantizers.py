"""What the quantizers annotate: configs by name, class and operator, and their composition."""

import pytest
import torch
import torch.nn.functional as functional
from flow_models import converted, count, export, make, quantizer
from torch import nn

from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch_ao_ext.quantization.quantizer import (
    ComposableQuantizer,
    EmbeddingQuantizer,
    QuantizationSpec,
    X86InductorQuantizer,
    XNNPACKQuantizer,
    XPUInductorQuantizer,
    embedding_quantizer,
    utils,
)
from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86
from torch_ao_ext.quantization.quantizer import xnnpack_quantizer as xnnpack
from torch_ao_ext.quantization.quantizer import xpu_inductor_quantizer as xpu

X86 = x86.get_default_x86_inductor_quantization_config()
XNNPACK = xnnpack.get_symmetric_quantization_config(is_per_channel=True)


def quantized_weights(how, name="ResidualCnn"):
    """Modules whose weight is int8."""
    model, example = make(name)
    ready = prepare_pt2e(export(model, example), how)
    with torch.no_grad():
        ready(*example)
    state = convert_pt2e(ready).state_dict()
    return {key.removesuffix(".qweight") for key in state if key.endswith(".qweight")}


CONVS = {"stem", *(f"layers.{b}.c{i}" for b in (0, 1) for i in (1, 2)), "layers.1.down.0"}


def test_default_configs():
    assert (X86.input_activation.dtype, X86.input_activation.quant_max) == (torch.uint8, 255)
    assert X86.weight.qscheme == torch.per_channel_symmetric and X86.weight.ch_axis == 0
    reduced = x86.get_default_x86_inductor_quantization_config(reduce_range=True)
    assert reduced.input_activation.quant_max == 127
    assert XNNPACK.input_activation.dtype == torch.int8
    assert (XNNPACK.weight.quant_min, XNNPACK.weight.quant_max) == (-127, 127)
    assert xnnpack.get_symmetric_quantization_config(is_dynamic=True).output_activation is None
    for qat in (x86.get_default_x86_inductor_quantization_config(is_qat=True),
                xnnpack.get_symmetric_quantization_config(is_qat=True)):  # fmt: skip
        assert qat.is_qat and hasattr(qat.weight.observer_or_fake_quant_ctr(), "fake_quant_enabled")


def test_x86_names_beat_operators_beat_global():
    how = X86InductorQuantizer().set_global(X86).set_module_name_qconfig("layers.1", None)
    assert quantized_weights(how) == {"stem", "head", "layers.0.c1", "layers.0.c2"}
    how = X86InductorQuantizer().set_module_name_qconfig("layers.1.c1", X86)
    assert quantized_weights(how) == {"layers.1.c1"}
    how = X86InductorQuantizer().set_global(X86).set_module_type_qconfig(nn.Linear, None)
    assert quantized_weights(how) == CONVS
    how.set_module_name_qconfig("head", X86)
    assert quantized_weights(how) == CONVS | {"head"}
    how = X86InductorQuantizer().set_function_type_qconfig(functional.linear, X86)
    assert quantized_weights(how) == {"head"}


def test_x86_type_of_a_users_block():
    from flow_models import Residual

    how = X86InductorQuantizer().set_global(X86).set_module_type_qconfig(Residual, None)
    assert quantized_weights(how) == {"stem", "head"}
    with pytest.raises(TypeError, match="'module_type' must be a class of modules, got 'Residual'"):
        how.set_module_type_qconfig("Residual", X86)


def test_x86_warns_of_what_has_no_effect():
    how = X86InductorQuantizer().set_global(X86).set_module_name_qconfig("layer.1", None)
    with pytest.warns(UserWarning, match="no node lies in module 'layer.1'"):
        quantized_weights(how)
    with pytest.warns(UserWarning, match="unable to customize quantization config for softmax"):
        how.set_function_type_qconfig(torch.softmax, X86)
    with pytest.warns(UserWarning, match="has no global config"):
        assert X86InductorQuantizer().get_global_quantization_config() is None
    dynamic = x86.get_default_x86_inductor_quantization_config(is_dynamic=True)
    with pytest.warns(UserWarning, match="Mixed dynamic and static .* for head"):
        how.set_module_name_qconfig("head", dynamic)
    with pytest.warns(UserWarning, match="Mixed QAT and Non-QAT"):
        how.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    assert how.get_global_quantization_config() is X86 and "head" not in how.module_name_qconfig


def test_x86_pooling_follows_quantized_nodes_only():
    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return functional.max_pool2d(self.conv(functional.max_pool2d(x, 2)), 2)

    how = quantizer("x86")
    ready = prepare_pt2e(export(Pools().eval(), (torch.randn(1, 3, 8, 8),)), how)
    with torch.no_grad():
        ready(torch.randn(1, 3, 8, 8))
    quantized = convert_pt2e(ready)
    pools = [n for n in quantized.graph.nodes if "max_pool2d" in str(n.target)]
    reads = ["dequantize" in str(n.args[0].target) for n in pools]
    assert reads == [False, True]


def test_matmul_needs_its_own_config():
    for how, expected in (("x86", 0), ("x86 matmul", 8)):
        graph = converted("Encoder", how)[2].graph
        inputs = [a for n in graph.nodes if "matmul" in str(n.target) for a in n.args]
        assert sum("dequantize" in str(a.target) for a in inputs) == expected


def test_xpu_annotates_products_only():
    how = XPUInductorQuantizer().set_global(xpu.get_default_xpu_inductor_quantization_config())
    model, example = make("ResidualCnn")
    ready = prepare_pt2e(export(model, example), how)
    with torch.no_grad():
        ready(*example)
    quantized = convert_pt2e(ready)
    pool = next(n for n in quantized.graph.nodes if "max_pool2d" in str(n.target))
    assert "dequantize" not in str(pool.args[0].target)
    assert count(quantized, "quantize_per_channel") == 7
    how.set_global(None)
    how._table.default = x86.get_default_x86_inductor_quantization_config(is_qat=True)
    with pytest.raises(ValueError, match="must not be for QAT"):
        how.annotate(export(model, example))


def test_xnnpack_names_types_and_operators():
    from flow_models import Residual

    how = XNNPACKQuantizer().set_global(XNNPACK).set_module_type(Residual, None)
    assert quantized_weights(how) == {"stem", "head"}
    how = XNNPACKQuantizer().set_module_name("layers.0", XNNPACK)
    assert quantized_weights(how) == {"layers.0.c1", "layers.0.c2"}
    how = XNNPACKQuantizer().set_operator_type(torch.ops.aten.linear.default, XNNPACK)
    assert quantized_weights(how) == {"head"}
    with pytest.raises(TypeError, match="'module_type' must be a class"):
        how.set_module_type(functional.linear, XNNPACK)
    with pytest.warns(UserWarning, match="no node lies in module 'nowhere'"):
        quantized_weights(XNNPACKQuantizer().set_global(XNNPACK).set_module_name("nowhere", None))


def test_xnnpack_numbers_become_tensors():
    class Scaled(nn.Module):
        def forward(self, x):
            return (x + 1.5) * 0.25

    x = torch.randn(4, 5)
    ready = prepare_pt2e(export(Scaled(), (x,)), quantizer("xnnpack"))
    ready(x)
    quantized = convert_pt2e(ready)
    assert count(quantized, "add.Tensor") == count(quantized, "mul.Tensor") == 1
    assert (quantized(x) - Scaled()(x)).abs().max() < 0.05
    operands = [a for n in quantized.graph.nodes if "Tensor" in str(n.target) for a in n.args]
    assert all("dequantize" in str(a.target) for a in operands)


def test_xnnpack_lists_what_it_supports():
    configs = XNNPACKQuantizer.get_supported_quantization_configs()
    assert XNNPACK in configs and len(configs) == 4
    operators = XNNPACKQuantizer.get_supported_operator_for_quantization_config(XNNPACK)
    assert [nn.Linear] in operators and [torch.add, nn.ReLU] in operators
    strange = xnnpack.get_symmetric_quantization_config(act_qmax=7)
    assert XNNPACKQuantizer.get_supported_operator_for_quantization_config(strange) == []


def test_composition():
    how = ComposableQuantizer([EmbeddingQuantizer(), quantizer("x86")])
    model, example = make("Encoder")
    ready = prepare_pt2e(export(model, example), how)
    with torch.no_grad():
        ready(*example)
    state = convert_pt2e(ready).state_dict()
    assert state["embedding.qweight"].dtype == torch.uint8
    assert sum(key.endswith("qweight") for key in state) == 13


def test_a_later_quantizer_may_not_change_an_annotation():
    class Meddler(X86InductorQuantizer):
        def annotate(self, model):
            for node in model.graph.nodes:
                if node.op == "call_function" and "embedding" in str(node.target):
                    node.meta["quantization_annotation"].output_qspec = X86.input_activation
            return model

    model, example = make("Encoder")
    with pytest.raises(ValueError, match="Meddler must leave the annotation of node 'embedding'"):
        prepare_pt2e(export(model, example), ComposableQuantizer([EmbeddingQuantizer(), Meddler()]))


def test_embedding_config():
    config = embedding_quantizer.get_embedding_operators_config().config
    assert EmbeddingQuantizer.get_supported_quantization_configs() == [config]
    operators = EmbeddingQuantizer.get_supported_operator_for_quantization_config(config)
    assert [nn.Embedding] in operators
    assert EmbeddingQuantizer.get_supported_operator_for_quantization_config(X86) == []


def test_utilities():
    node = export(*make("ResidualCnn")).graph.find_nodes(
        op="call_function", target=torch.ops.aten.linear.default
    )[0]
    assert utils.get_module_name_filter("head")(node) and not utils.get_module_name_filter("stem")(node)
    assert utils.get_module_type_filter(nn.Linear)(node) and not utils.get_module_type_filter(nn.Conv2d)(node)
    node.meta["nn_module_stack"] = {"k": ("getattr(L['self'].layers, '0')", "torch.nn.modules.linear.Linear")}
    assert utils.get_module_name_filter("layers.0")(node)
    assert not utils.is_valid_annotation(None)
    utils.annotate_output_qspec(node, X86.weight)
    utils.annotate_input_qspec_map(node, node.args[0], X86.input_activation)
    assert utils.is_valid_annotation(node.meta["quantization_annotation"])
    assert (
        utils.get_input_act_qspec(None) is utils.get_weight_qspec(None) is utils.get_bias_qspec(None) is None
    )
    assert utils.get_output_act_qspec(X86) is X86.output_activation
    assert utils.get_bias_qspec(X86).dtype == torch.float
    bad = utils.QuantizationConfig(
        None, None, QuantizationSpec(torch.int8, None, qscheme=torch.per_tensor_affine), X86.weight
    )
    with pytest.raises(ValueError, match="symmetric weight scheme.*got torch.per_tensor_affine"):
        utils.get_weight_qspec(bad)
    with pytest.raises(ValueError, match="must have a bias of dtype torch.float32, got torch.int8"):
        utils.get_bias_qspec(bad)
    with pytest.raises(ValueError, match="'quant_min' must be at most quant_max 1, got 2"):
        QuantizationSpec(torch.int8, None, 2, 1)
    with pytest.raises(ValueError, match="'ch_axis' must be at least 0, got -1"):
        QuantizationSpec(torch.int8, None, ch_axis=-1)
