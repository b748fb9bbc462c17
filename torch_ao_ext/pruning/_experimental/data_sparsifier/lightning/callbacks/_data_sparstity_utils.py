"""Connects the parameters of a model with a data sparsifier."""

import logging
from typing import Any

from torch import nn

from torch_ao_ext.pruning._experimental.data_sparsifier.base_data_sparsifier import (
    SUPPORTED_TYPES,
    BaseDataSparsifier,
)

__all__: list[str] = []

logger = logging.getLogger(__name__)


def _get_valid_name(name: str) -> str:
    """A parameter's name as a data name, which has no dots."""
    return name.replace(".", "_")


def _attach_model_to_data_sparsifier(
    module: nn.Module, data_sparsifier: BaseDataSparsifier, config: dict[str, Any] | None = None
) -> None:
    """Adds every parameter; `config` holds settings by data name."""
    for name, parameter in module.named_parameters():
        if type(parameter) in SUPPORTED_TYPES:
            valid_name = _get_valid_name(name)
            data_sparsifier.add_data(valid_name, parameter, **(config or {}).get(valid_name, {}))


def _log_sparsified_level(model: nn.Module, data_sparsifier: BaseDataSparsifier) -> None:
    """Logs the fraction of zeros in each parameter's mask."""
    for name, parameter in model.named_parameters():
        if type(parameter) in SUPPORTED_TYPES:
            mask = data_sparsifier.get_mask(_get_valid_name(name))
            logger.info("sparsity in %s: %.2f %%", name, 100 * (1 - mask.float().mean().item()))
