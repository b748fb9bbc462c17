"""Callbacks that sparsify the parameters of a Lightning module's `model`.

They work on a copy; the trained model is not changed. The copy is `sparsified`.
"""

from copy import deepcopy
from typing import Any

from torch import nn

from torch_ao_ext.pruning._experimental.data_sparsifier.lightning.callbacks._data_sparstity_utils import (
    _attach_model_to_data_sparsifier,
    _get_valid_name,
    _log_sparsified_level,
)

try:
    from pytorch_lightning.callbacks import Callback
except ModuleNotFoundError as error:
    _missing = error

    class Callback:  # type: ignore[no-redef]
        """Stands in for Lightning's class, so that the package imports without Lightning."""

        def __init__(self) -> None:
            raise ImportError("data_sparsity: pytorch_lightning must be installed") from _missing


__all__ = ["PostTrainingDataSparsity", "TrainingAwareDataSparsity"]


class PostTrainingDataSparsity(Callback):
    """Sparsifies once, when training ends.

    Args:
        data_sparsifier_class: Class of the data sparsifier.
        data_sparsifier_args: Its keyword arguments, without `data_list`.
    """

    def __init__(self, data_sparsifier_class: type, data_sparsifier_args: dict[str, Any]) -> None:
        super().__init__()
        self.data_sparsifier_class = data_sparsifier_class
        self.data_sparsifier_args = data_sparsifier_args
        self.data_sparsifier: Any = None
        self.sparsified: nn.Module | None = None

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Masks a copy of the trained model and squashes the masks."""
        self.sparsified = deepcopy(pl_module.model).eval()
        self.data_sparsifier = self.data_sparsifier_class(**self.data_sparsifier_args)
        _attach_model_to_data_sparsifier(self.sparsified, self.data_sparsifier)
        self.data_sparsifier.step()
        self.data_sparsifier.squash_mask()
        _log_sparsified_level(self.sparsified, self.data_sparsifier)


class TrainingAwareDataSparsity(Callback):
    """Recomputes the masks after every epoch, on a schedule.

    Args:
        data_sparsifier_class: Class of the data sparsifier.
        data_sparsifier_args: Its keyword arguments, without `data_list`.
        data_scheduler_class: Class of the data scheduler.
        data_scheduler_args: Its keyword arguments, without `data_sparsifier`.
    """

    def __init__(
        self,
        data_sparsifier_class: type,
        data_sparsifier_args: dict[str, Any],
        data_scheduler_class: type,
        data_scheduler_args: dict[str, Any],
    ) -> None:
        super().__init__()
        self.data_sparsifier_class = data_sparsifier_class
        self.data_sparsifier_args = data_sparsifier_args
        self.data_scheduler_class = data_scheduler_class
        self.data_scheduler_args = data_scheduler_args
        self.data_sparsifier: Any = None
        self.data_scheduler: Any = None
        self.sparsified: nn.Module | None = None
        self.data_sparsifier_state_dict: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Makes sparsifier and scheduler, with the parameters as they are now."""
        self.data_sparsifier = self.data_sparsifier_class(**self.data_sparsifier_args)
        self.sparsified = deepcopy(pl_module.model)
        _attach_model_to_data_sparsifier(self.sparsified, self.data_sparsifier)
        arguments = {**deepcopy(self.data_scheduler_args), "data_sparsifier": self.data_sparsifier}
        self.data_scheduler = self.data_scheduler_class(**arguments)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Restores masks and settings of the epoch before."""
        if self.data_sparsifier_state_dict is not None:
            self.data_sparsifier.load_state_dict(self.data_sparsifier_state_dict)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Takes the trained values over, computes the masks, moves the schedule on."""
        self.sparsified = deepcopy(pl_module.model)
        # Data of the same name is replaced; masks and scheduled settings stay.
        replaced = self.data_sparsifier.data_groups
        for name, parameter in self.sparsified.named_parameters():
            valid_name = _get_valid_name(name)
            if valid_name in replaced:
                settings, mask = replaced[valid_name], self.data_sparsifier.get_mask(valid_name)
                self.data_sparsifier._delete_data(valid_name)
                self.data_sparsifier.add_data(valid_name, parameter, **{**settings, "mask": mask})
                self.data_sparsifier.data_groups[valid_name].pop("mask", None)
        self.data_sparsifier.step()
        self.data_scheduler.step()
        self.data_sparsifier_state_dict = self.data_sparsifier.state_dict()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Multiplies the masks into the copy."""
        self.data_sparsifier.squash_mask()
