"""Base class of the schedules of one setting of a data sparsifier."""

import abc
import copy
from typing import Any

from torch_ao_ext.pruning._experimental.data_sparsifier import BaseDataSparsifier
from torch_ao_ext.pruning.scheduler._step_order import check_step_order, count_steps

__all__ = ["BaseDataScheduler"]


class BaseDataScheduler:
    """Changes a setting of the data groups at each `step`.

    A subclass writes `get_schedule_param`. Making the scheduler takes the first step.
    Call `data_sparsifier.step()` before each later one.

    Args:
        data_sparsifier: The sparsifier, with its data added.
        schedule_param: Name of the setting, as `sparsity_level`.
        last_epoch: Epoch before the first step.
        verbose: Print each new value.
    """

    def __init__(
        self,
        data_sparsifier: BaseDataSparsifier,
        schedule_param: str,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        if not isinstance(data_sparsifier, BaseDataSparsifier):
            raise TypeError(
                f"{type(self).__name__}: argument 'data_sparsifier' must be a BaseDataSparsifier, "
                f"got {type(data_sparsifier).__name__}"
            )
        self.data_sparsifier = data_sparsifier
        self.schedule_param = schedule_param
        self.base_param = self._current()
        self.last_epoch = last_epoch
        count_steps(data_sparsifier)
        self._step_count = 0
        self.verbose = verbose
        self._get_sp_called_within_step = False
        self.step()

    def _current(self) -> dict[str, Any]:
        return {name: c.get(self.schedule_param) for name, c in self.data_sparsifier.data_groups.items()}

    @abc.abstractmethod
    def get_schedule_param(self) -> dict[str, Any]:
        """New value of the setting for each data name; a name left out keeps its value."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__} (\nData Sparsifier {self.data_sparsifier}\n"
            f"    {self.schedule_param}: {self.base_param}\n)"
        )

    def state_dict(self) -> dict[str, Any]:
        """A copy of every attribute except the sparsifier, which saves itself."""
        return {key: copy.deepcopy(value) for key, value in self.__dict__.items() if key != "data_sparsifier"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict()` returned; restore the sparsifier first."""
        self.__dict__.update({key: copy.deepcopy(value) for key, value in state_dict.items()})

    def get_last_param(self) -> dict[str, Any]:
        """The values of the last step by data name."""
        return self._last_param

    def step(self) -> None:
        """Moves one epoch on and writes the new values."""
        if self._step_count == 1:
            check_step_order(self.data_sparsifier, "data_sparsifier")
        self._step_count += 1
        self._get_sp_called_within_step = True
        try:
            self.last_epoch += 1
            values = self.get_schedule_param()
        finally:
            self._get_sp_called_within_step = False
        unknown = sorted(set(values) - set(self.data_sparsifier.data_groups))
        if unknown:
            raise ValueError(f"get_schedule_param: names must be data of the sparsifier, got {unknown}")
        for name, value in values.items():
            self.data_sparsifier.data_groups[name][self.schedule_param] = value
            if self.verbose:
                print(f"{self.schedule_param} of {name} is now {value}")
        self._last_param = self._current()
        self.data_sparsifier.enable_mask_update = True
