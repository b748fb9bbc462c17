"""prepare_qat: a float model that is trained with the rounding of its int8 form."""

from collections.abc import Callable
from typing import Any

from torch import nn

from torch_ao_ext.quantization._convert import convert, place_qat_modules
from torch_ao_ext.quantization._copy import copied
from torch_ao_ext.quantization._prepare import check_model, prepare, propagate_qconfig_
from torch_ao_ext.quantization.quantization_mappings import get_default_qat_module_mappings

__all__ = ["prepare_qat", "quantize_qat"]


def prepare_qat(
    model: nn.Module, mapping: dict[Any, Any] | None = None, inplace: bool = False
) -> nn.Module:
    """Fake quantization of weights and activations, for training; `convert` afterwards.

    Args:
        model: in training mode, layers fused by `fuse_modules_qat`, with qconfigs such as
            `get_default_qat_qconfig("onednn")`. Its parameters are shared with the result
            when inplace.
        mapping: float class -> class with `from_float`; default
            `get_default_qat_module_mappings()`.
        inplace: change `model` instead of a copy.

    Raises:
        ValueError: not a Python module, evaluation mode, a qconfig without fake quantization.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import QuantWrapper, get_default_qat_qconfig, prepare_qat
        >>> model = QuantWrapper(torch.nn.Linear(4, 2)).train()
        >>> model.qconfig = get_default_qat_qconfig("onednn")
        >>> prepare_qat(model)(torch.randn(3, 4)).shape
        torch.Size([3, 2])
    """
    check_model("prepare_qat", model)
    if not model.training:
        raise ValueError(
            "prepare_qat: argument 'model' must be in training mode, got training=False (call model.train())"
        )
    table = get_default_qat_module_mappings() if mapping is None else mapping
    model = model if inplace else copied("prepare_qat", model)
    propagate_qconfig_(model)
    model = place_qat_modules(model, table)
    return prepare(model, inplace=True, observer_non_leaf_module_list=set(table.values()))


def quantize_qat(
    model: nn.Module, run_fn: Callable[..., Any], run_args: Any, inplace: bool = False
) -> nn.Module:
    """prepare_qat, `run_fn(model, *run_args)` that trains it, convert.

    Args:
        model: float model with qconfigs, set to training mode.
        run_fn: called with the prepared model.
        run_args: further arguments of run_fn.
        inplace: change `model` instead of a copy.

    Raises:
        ValueError: as `prepare_qat` and `convert`.
    """
    check_model("quantize_qat", model)
    model = model if inplace else copied("quantize_qat", model)
    model.train()
    model = prepare_qat(model, inplace=True)
    run_fn(model, *run_args)
    return convert(model, inplace=True)
