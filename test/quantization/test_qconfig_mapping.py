"""QConfigs and their mappings against torch.ao's: the same rules, the same observers."""

import pickle
import warnings

import pytest
import torch
from torch import nn
from torch_ao_peer import peer

from torch_ao_ext import quantization as q
from torch_ao_ext.quantization import qconfig, qconfig_mapping

FACTS = ("quant_min", "quant_max", "dtype", "qscheme", "ch_axis", "is_dynamic", "averaging_constant")


def assert_same_module(mine, theirs):
    assert type(mine).__name__ == type(theirs).__name__
    for fact in FACTS:
        assert getattr(mine, fact, None) == getattr(theirs, fact, None), (type(mine), fact)
    for name in ("eps", "scale", "zero_point"):
        a, b = getattr(mine, name, None), getattr(theirs, name, None)
        assert (a is None) == (b is None) and (
            a is None or torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        )
    if hasattr(theirs, "activation_post_process"):
        assert_same_module(mine.activation_post_process, theirs.activation_post_process)


def assert_same_qconfig(mine, theirs):
    if theirs is None:
        assert mine is None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for a, b in zip(mine, theirs, strict=True):
            assert_same_module(a(), b())


@pytest.mark.parametrize("name", [n for n in qconfig.__all__ if n.endswith("qconfig") and "get" not in n])
def test_constants_equal_torch_aos(name):
    if not hasattr(peer().qconfig, name):
        own = (
            "default_per_channel_dynamic_qconfig", "bfloat16_dynamic_qconfig", "int16_dynamic_qconfig",
            "mixed_dynamic_qconfig",
        )
        assert "row_dynamic" in name or name in own
        return
    assert_same_qconfig(getattr(q, name), getattr(peer().qconfig, name))


BACKENDS = ("x86", "fbgemm", "onednn", "qnnpack")


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_equal_torch_aos(backend):
    assert_same_qconfig(q.get_default_qconfig(backend), peer().get_default_qconfig(backend))
    for version in (0, 1):
        mine = q.get_default_qat_qconfig(backend, version)
        assert_same_qconfig(mine, peer().get_default_qat_qconfig(backend, version))


def assert_same_mapping(mine, theirs):
    assert_same_qconfig(mine.global_qconfig, theirs.global_qconfig)
    assert set(mine.object_type_qconfigs) == set(theirs.object_type_qconfigs)
    for op, expected in theirs.object_type_qconfigs.items():
        assert_same_qconfig(mine.object_type_qconfigs[op], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_mappings_equal_torch_aos(backend):
    ao = peer()
    assert_same_mapping(q.get_default_qconfig_mapping(backend), ao.get_default_qconfig_mapping(backend))
    mine = q.get_default_qat_qconfig_mapping(backend)
    assert_same_mapping(mine, ao.get_default_qat_qconfig_mapping(backend))


@pytest.mark.parametrize(
    "name", ["_get_symmetric_qnnpack_qconfig_mapping", "_get_symmetric_qnnpack_qat_qconfig_mapping"]
)
def test_symmetric_mappings_equal_torch_aos(name):
    theirs = getattr(peer().qconfig_mapping, name)()
    assert_same_mapping(getattr(qconfig_mapping, name)(), theirs)


def full_mapping():
    config = q.default_qconfig
    return (
        q.QConfigMapping()
        .set_global(config)
        .set_object_type(nn.Linear, config)
        .set_object_type("reshape", None)
        .set_module_name_regex("a.*", config)
        .set_module_name("a.b", None)
        .set_module_name_object_type_order("a", nn.functional.linear, 1, config)
    )


def test_dicts_go_both_ways():
    mapping = full_mapping()
    as_dict = mapping.to_dict()
    assert as_dict["module_name_object_type_order"] == [("a", nn.functional.linear, 1, q.default_qconfig)]
    assert as_dict["object_type"] == [(nn.Linear, q.default_qconfig), ("reshape", None)]
    assert q.QConfigMapping.from_dict(as_dict).to_dict() == as_dict
    assert q.QConfigMapping.from_dict({}).to_dict() == q.QConfigMapping().to_dict()
    text = repr(mapping)
    assert text.startswith("QConfigMapping (\n global_qconfig\n") and "\n  a.b: None" in text
    with pytest.raises(ValueError, match="must have keys of .*, got 'module'"):
        q.QConfigMapping.from_dict({"module": []})


def test_mappings_pickle():
    loaded = pickle.loads(pickle.dumps(q.get_default_qat_qconfig_mapping()))
    assert_same_mapping(loaded, peer().get_default_qat_qconfig_mapping())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: q.get_default_qconfig("arm"),
            "'backend' must be one of x86, fbgemm, onednn, qnnpack, got 'arm'",
        ),
        (lambda: q.get_default_qconfig("x86", 1), "'version' must be 0, got 1"),
        (lambda: q.get_default_qat_qconfig("x86", 2), "'version' must be 0 or 1, got 2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("backend", ["x86", "onednn", "fbgemm", "qnnpack"])
@pytest.mark.parametrize("name", ["get_default_qconfig_dict", "get_default_qat_qconfig_dict"])
def test_older_dicts(name, backend):
    mine = getattr(q, name)(backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(peer(), name)(backend)
    assert_same_qconfig(mine[""], theirs[""])
    assert {key: len(value) for key, value in mine.items() if key} == {
        key: len(value) for key, value in theirs.items() if key
    }
    make = qconfig_mapping.get_default_qat_qconfig_mapping
    if "qat" not in name:
        make = qconfig_mapping.get_default_qconfig_mapping
    again = q.QConfigMapping.from_dict(mine)
    assert q.qconfig_equals(again.global_qconfig, make(backend).global_qconfig)


def test_older_dynamic_qconfig():
    observer = q.default_dynamic_quant_observer
    config = q.QConfigDynamic(activation=observer, weight=q.default_weight_observer)
    model = nn.Sequential(nn.Linear(8, 4)).eval()
    plain = q.quantize_dynamic(model, {nn.Linear: q.default_dynamic_qconfig})
    x = torch.randn(3, 8)
    assert torch.equal(q.quantize_dynamic(model, {nn.Linear: config})(x), plain(x))
    assert q.QConfigDynamic().weight is nn.Identity
    assert q.qconfig_equals(pickle.loads(pickle.dumps(config)), config)
    with pytest.raises(ValueError, match="QConfigDynamic: argument 'weight'"):
        q.QConfigDynamic(weight=q.MinMaxObserver())
