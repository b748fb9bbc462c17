"""Structured pruning: whole rows of weights leave the model."""

from torch_ao_ext.pruning._experimental.pruner.base_structured_sparsifier import BaseStructuredSparsifier
from torch_ao_ext.pruning._experimental.pruner.FPGM_pruner import FPGMPruner
from torch_ao_ext.pruning._experimental.pruner.lstm_saliency_pruner import LSTMSaliencyPruner
from torch_ao_ext.pruning._experimental.pruner.parametrization import BiasHook, FakeStructuredSparsity
from torch_ao_ext.pruning._experimental.pruner.saliency_pruner import SaliencyPruner

__all__ = [
    "BaseStructuredSparsifier",
    "BiasHook",
    "FPGMPruner",
    "FakeStructuredSparsity",
    "LSTMSaliencyPruner",
    "SaliencyPruner",
]
