"""The visitor that replaces modules."""

from torch import nn

from torch_ao_ext.quantization._walk import children, replaced


def test_each_module_once_and_parts_first():
    shared, kept = nn.ReLU(), nn.Sequential(nn.ReLU())
    model = nn.Sequential(nn.Sequential(nn.Linear(1, 1), shared), shared, kept)
    model.register_module("none", None)
    seen, places = [], []

    def make(module, name):
        seen.append(name)
        return nn.Identity() if isinstance(module, nn.ReLU) else module

    root = replaced(model, make, lambda module, _: module is kept, lambda *place: places.append(place))
    assert root is model and seen == ["0.0", "0.1", "0", "2", ""]
    assert [(parent, key) for parent, key, _ in places] == [(model[0], "1"), (model, "1")]
    assert places[0][2] is places[1][2] and isinstance(places[0][2], nn.Identity)
    assert model[1] is shared  # who places decides
    assert replaced(shared, make, lambda *_: False, None).__class__ is nn.Identity


def test_children():
    model = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Linear(1, 1)})
    assert [(key, path) for key, path, _ in children(model, "")] == [("a", "a"), ("b", "b")]
    for key, path, child in children(model, "x.y"):
        assert path == f"x.y.{key}" and model[key] is child
        model.pop(key)
    assert len(model) == 0
