"""The Lightning callbacks, driven by hand: Lightning itself only calls their hooks."""

import importlib
import logging
import sys
import types

import pytest
import torch
from torch import nn

from torch_ao_ext.pruning._experimental.data_scheduler import BaseDataScheduler
from torch_ao_ext.pruning._experimental.data_sparsifier import DataNormSparsifier

PACKAGE = "torch_ao_ext.pruning._experimental.data_sparsifier.lightning.callbacks"


@pytest.fixture
def callbacks(monkeypatch):
    lightning = types.ModuleType("pytorch_lightning")
    lightning.callbacks = types.ModuleType("pytorch_lightning.callbacks")
    lightning.callbacks.Callback = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", lightning)
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", lightning.callbacks)
    monkeypatch.delitem(sys.modules, f"{PACKAGE}.data_sparsity", raising=False)
    yield importlib.import_module(f"{PACKAGE}.data_sparsity")
    sys.modules.pop(f"{PACKAGE}.data_sparsity", None)


class Halve(BaseDataScheduler):
    def get_schedule_param(self):
        if self.last_epoch == 0:
            return {}
        return {n: c[self.schedule_param] / 2 for n, c in self.data_sparsifier.data_groups.items()}


def module():
    return types.SimpleNamespace(model=nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)))


def zeros(model):
    return (model[0].weight == 0).float().mean().item()


def test_post_training(callbacks, caplog):
    pl_module = module()
    callback = callbacks.PostTrainingDataSparsity(DataNormSparsifier, {"sparsity_level": 0.5})
    with caplog.at_level(logging.INFO):
        callback.on_fit_end(None, pl_module)
    assert zeros(callback.sparsified) == 0.5 and zeros(pl_module.model) == 0
    assert "sparsity in 0.weight: 50.00 %" in caplog.text


def test_training_aware(callbacks):
    pl_module = module()
    callback = callbacks.TrainingAwareDataSparsity(
        DataNormSparsifier, {"sparsity_level": 0.5}, Halve, {"schedule_param": "sparsity_level"}
    )
    callback.on_train_start(None, pl_module)
    found = []
    for _ in range(3):
        callback.on_train_epoch_start(None, pl_module)
        with torch.no_grad():
            pl_module.model[0].weight.add_(1)
        callback.on_train_epoch_end(None, pl_module)
        found.append(1 - callback.data_sparsifier.get_mask("0_weight").mean().item())
    assert found == [0.5, 0.25, 0.125]
    callback.on_train_end(None, pl_module)
    assert zeros(callback.sparsified) == 0.125 and zeros(pl_module.model) == 0
    kept = callback.sparsified[0].weight != 0
    assert torch.equal(callback.sparsified[0].weight[kept], pl_module.model[0].weight[kept])
