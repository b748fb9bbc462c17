"""Converted graphs, whatever they call whole: plain tensors, and every form that programs travel in."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from fx_nets import Attention, Net, Parts, Recurrent, Tables
from torch import nn

import torch_ao_ext
from torch_ao_ext import quantization as tq
from torch_ao_ext.nn import quantizable
from torch_ao_ext.quantization.fx import _equalize
from torch_ao_ext.quantization.fx.custom_config import PrepareCustomConfig
from torch_ao_ext.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx

STATIC, DYNAMIC = tq.get_default_qconfig_mapping("onednn"), tq.QConfigMapping()
DYNAMIC.set_global(tq.default_dynamic_qconfig)


def rows_of(qconfig):
    mapping = tq.get_default_qconfig_mapping("onednn").set_object_type(nn.Embedding, qconfig)
    return mapping.set_object_type(nn.EmbeddingBag, qconfig)


def kept():
    config = PrepareCustomConfig().set_standalone_module_name("alone", None, (), None, None)
    return config.set_non_traceable_module_names(["whole"])


def integers():
    return PrepareCustomConfig().set_input_quantized_indexes([0]).set_output_quantized_indexes([0])


def custom(kind, observed):
    return PrepareCustomConfig().set_float_to_observed_mapping(kind, observed)


EQUAL = tq.QConfigMapping().set_global(_equalize.default_equalization_qconfig)
IMAGES, ROWS, WORDS = (4, 3, 8, 8), (5, 8), (5, 2, 8)
CASES = {
    "layers and functions": (Net, IMAGES, STATIC, None, None),
    "inputs quantized at run time": (Parts, ROWS, DYNAMIC, None, None),
    "equalized": (Parts, ROWS, STATIC, None, EQUAL),
    "integers in and out": (Parts, ROWS, STATIC, integers(), None),
    "parts": (Parts, ROWS, STATIC, kept(), None),
    "tables": (Tables, (4, 3), rows_of(tq.float_qparams_weight_only_qconfig), None, None),
    "tables of 4 bits": (Tables, (4, 3), rows_of(tq.float_qparams_weight_only_qconfig_4bit), None, None),
    "dynamic LSTM": (Recurrent, WORDS, DYNAMIC, None, None),
    "static LSTM": (Recurrent, WORDS, STATIC, custom(nn.LSTM, quantizable.LSTM), None),
    "static attention": (
        Attention, WORDS, STATIC, custom(nn.MultiheadAttention, quantizable.MultiheadAttention), None
    ),
}  # fmt: skip


def saved_script(model):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    return torch.jit.load(file)


FORMS = {
    "pickle": lambda model, x: pickle.loads(pickle.dumps(model)),
    "copy": lambda model, x: copy.deepcopy(model),
    "script": lambda model, x: saved_script(model),
    "script of a pickle": lambda model, x: torch.jit.script(pickle.loads(pickle.dumps(model))),
    "trace": lambda model, x: torch.jit.trace(model, x, check_trace=False),
    "export": lambda model, x: torch.export.export(model, (x,)).module(),
    "compile": lambda model, x: torch.compile(model, fullgraph=True, backend="aot_eager"),
}


def inputs(name, *shape):
    if "tables" in name:
        return torch.randint(10, shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8) if "integers" in name else torch.randn(*shape)


@pytest.mark.parametrize("name", CASES)
def test_every_form_computes_the_same(name):
    kind, shape, mapping, config, equal = CASES[name]
    model = kind().eval()
    x = inputs("" if "integers" in name else name, *shape)
    observed = prepare_fx(model, mapping, (x,), config, _equalization_config=equal)
    observed(x)
    torch._dynamo.reset()
    for make in (convert_fx, convert_to_reference_fx):
        graph = make(observed)
        assert all(isinstance(v, torch.Tensor) and not v.is_quantized for v in graph.state_dict().values())
        x = inputs(name, *shape)
        more = inputs(name, shape[0] + 2, *shape[1:])
        for form, make_form in FORMS.items():
            if make is convert_to_reference_fx and form in ("trace", "compile"):
                continue  # torch.export's checks of inputs are Python
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, of exports inside of compilers
                made = make_form(graph, x)
            assert torch.equal(made(x), graph(x)), form
            if form in ("pickle", "copy", "script", "script of a pickle"):
                assert torch.equal(made(more), graph(more)), form  # the batch is free
        assert torch_ao_ext.report(convert_fx(observed)).int8


def test_scripts_refuse_other_inputs():
    observed = prepare_fx(Recurrent().eval(), DYNAMIC, (torch.randn(*WORDS),))
    observed(torch.randn(*WORDS))
    for graph in (convert_fx(observed), convert_to_reference_fx(observed)):
        script = torch.jit.script(graph)
        with pytest.raises(torch.jit.Error, match="input 'x' must have sizes .*got .*5, 2, 9"):
            script(torch.randn(5, 2, 9))
        with pytest.raises(torch.jit.Error, match="input 'x' must have c10::ScalarType"):
            script(torch.randn(*WORDS).double())
