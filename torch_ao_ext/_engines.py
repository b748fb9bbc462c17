"""Packing of weights and choice of engines, for whole models."""

import torch
from torch import nn

from torch_ao_ext._graph_ops import graph_ops
from torch_ao_ext._report import RECURRENT, SPARSE
from torch_ao_ext.nn.quantized import Embedding, LinearWeightOnly
from torch_ao_ext.nn.quantized._weighted import WeightedModule
from torch_ao_ext.nn.quantized.dynamic import Linear
from torch_ao_ext.nn.sparse import quantized as sparse

__all__ = ["prepack", "repack", "set_deterministic", "set_engine"]

# Layers whose packed form does not depend on the qparams of an input.
_PACKED_AHEAD = (Linear, LinearWeightOnly, *RECURRENT, sparse.dynamic.Linear)


def _layers(model: nn.Module, op: str, kind: type | tuple) -> list:
    if not isinstance(model, nn.Module):
        raise ValueError(f"{op}: argument 'model' must be an nn.Module, got {type(model).__name__}")
    return [module for module in model.modules() if isinstance(module, kind)]


def prepack(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Packs every int8 layer now, so that the first request does not.

    Needed after `load_state_dict` or unpickling; `quantize_dynamic` does it itself.
    Packs what is not packed yet; moves large embedding tables to huge pages. Static layers,
    whose packed form has the qparams of their input in it, are packed by the first call; a
    lowered graph by `lower(model, example_inputs)` or its first call.

    Args:
        model: any module.
        dtype: of the inputs to come, torch.float32 or torch.bfloat16.

    Returns:
        The same model.

    Example:
        >>> import torch, torch_ao_ext
        >>> model = torch.nn.Sequential(torch_ao_ext.nn.quantized.dynamic.Linear(8, 4))
        >>> torch_ao_ext.prepack(model) is model
        True
    """
    for layer in _layers(model, "prepack", _PACKED_AHEAD):
        layer.prepack(dtype)
    for table in _layers(model, "prepack", Embedding):
        table.prepack()
    return model


def repack(model: nn.Module) -> nn.Module:
    """Drops every packed form; the next call (or `prepack`) packs the weights as they are now.

    Needed after writes that torch does not count: through `.data`, `.numpy()` or
    into inference tensors.

    Args:
        model: any module.

    Returns:
        The same model.
    """
    for layer in _layers(model, "repack", (WeightedModule, LinearWeightOnly, *SPARSE)):
        torch.ops.torch_ao._repack(layer.qweight)
    for layer in _layers(model, "repack", RECURRENT):
        for weight in layer._side()[0]:  # the packed form hangs on the first of each layer and direction
            torch.ops.torch_ao._repack(weight)
    for module in model.modules():
        for call in graph_ops(module, ""):
            for weight in (call.weight, *call.more_weights):
                if weight is not None:
                    torch.ops.torch_ao._repack(weight)
    return model


def set_engine(name: str) -> None:
    """Forces one engine for weights packed from now on; "" chooses by itself again.

    Args:
        name: "onednn", "xnnpack", "native", "reference" or "". See also the
            environment variable TORCH_AO_EXT_ENGINE.

    Raises:
        ValueError: unknown name.
    """
    torch.ops.torch_ao._set_engine(name)


def set_deterministic(enabled: bool) -> None:
    """Keeps to engines that follow the numeric rule exactly: equal integers on every machine.

    Args:
        enabled: also settable by TORCH_AO_EXT_DETERMINISTIC=1.
    """
    torch.ops.torch_ao._set_deterministic(enabled)
