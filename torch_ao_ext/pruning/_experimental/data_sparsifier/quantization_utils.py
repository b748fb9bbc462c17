"""Embedding tables made sparse and 8 bit in one step."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.pruning.sparsifier.utils import fqn_to_module, module_to_fqn
from torch_ao_ext.quantization import float_qparams_weight_only_qconfig, quantize_dynamic

__all__ = ["post_training_sparse_quantize"]

SUPPORTED_MODULES = {nn.Embedding, nn.EmbeddingBag}


def post_training_sparse_quantize(
    model: nn.Module, data_sparsifier_class: type, sparsify_first: bool = True,
    select_embeddings: list[nn.Module] | None = None, **sparse_config: Any,
) -> None:  # fmt: skip
    """Makes the embedding tables of a model sparse, and 8 bit by rows, in place.

    Args:
        model: float model; its tables become modules of `nn.quantized`.
        data_sparsifier_class: makes masks, for one `DataNormSparsifier`.
        sparsify_first: zeros are chosen among float values; else among those that 8 bits hold, and
            scales and zero points stay those of the whole table.
        select_embeddings: nn.Embedding and nn.EmbeddingBag of the model; None: all.
        sparse_config: arguments of data_sparsifier_class.

    Raises:
        ValueError: no table, or one that is not in the model.

    Example:
        >>> from torch import nn
        >>> from torch_ao_ext.pruning._experimental.data_sparsifier import DataNormSparsifier
        >>> from torch_ao_ext.pruning._experimental.data_sparsifier.quantization_utils import (
        ...     post_training_sparse_quantize,
        ... )
        >>> model = nn.Sequential(nn.Embedding(10, 8))
        >>> post_training_sparse_quantize(model, DataNormSparsifier, sparsity_level=0.5)
        >>> int((model[0].weight().dequantize().abs() < 1e-2).sum()) >= 40
        True
    """
    tables = _tables(model, select_embeddings)
    sparsifier = data_sparsifier_class(**sparse_config)
    spec = dict.fromkeys(tables, float_qparams_weight_only_qconfig)
    if sparsify_first:
        _sparsify(sparsifier, tables)
        quantize_dynamic(model, spec, inplace=True)
        return
    quantize_dynamic(model, spec, inplace=True)
    weights = {name: fqn_to_module(model, name).weight() for name in tables}
    floats = {name: weight.dequantize() for name, weight in weights.items()}
    _sparsify(sparsifier, floats)
    for name, weight in weights.items():
        scale, point = weight.q_per_channel_scales(), weight.q_per_channel_zero_points()
        steps = floats[name] / scale.reshape(-1, 1) + point.reshape(-1, 1)
        data = steps.round().clamp(0, 255).to(torch.uint8)
        fqn_to_module(model, name).set_weight(QuantizedTensor(data, scale, point))


def _tables(model: nn.Module, chosen: list[nn.Module] | None) -> dict[str, Any]:
    """Name -> table."""
    if chosen is None:
        found = {n: m for n, m in model.named_modules() if type(m) in SUPPORTED_MODULES}
    else:
        found = {module_to_fqn(model, module): module for module in chosen}
    wrong = [name for name, m in found.items() if not name or type(m) not in SUPPORTED_MODULES]
    if wrong or not found:
        raise ValueError(
            "post_training_sparse_quantize: argument 'select_embeddings' must hold nn.Embedding or "
            f"nn.EmbeddingBag of the model, got {wrong or 'none'}"
        )
    return found


def _sparsify(sparsifier: Any, data: dict[str, Any]) -> None:
    for name, values in data.items():
        sparsifier.add_data(name=name.replace(".", "_"), data=values)
    sparsifier.step()
    sparsifier.squash_mask()
