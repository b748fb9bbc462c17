"""Base class of the schedules of `sparsity_level`."""

import copy
import warnings
from typing import Any, TypeVar

from torch_ao_ext.pruning.scheduler._step_order import check_step_order, count_steps
from torch_ao_ext.pruning.sparsifier.base_sparsifier import BaseSparsifier

__all__ = ["BaseScheduler"]

_T = TypeVar("_T")


class BaseScheduler:
    """Sets the sparsity level of every group at each `step`; a subclass writes `get_sl`.

    The levels that the groups hold when the scheduler is made are the base levels.
    Making it takes the first step. Call `sparsifier.step()` before each later one.

    Args:
        sparsifier: A prepared sparsifier.
        last_epoch: Epoch before the first step.
        verbose: Print each new level.
    """

    def __init__(self, sparsifier: BaseSparsifier, last_epoch: int = -1, verbose: bool = False) -> None:
        if not isinstance(sparsifier, BaseSparsifier):
            raise TypeError(
                f"{type(self).__name__}: argument 'sparsifier' must be a BaseSparsifier, "
                f"got {type(sparsifier).__name__}"
            )
        self.sparsifier = sparsifier
        self.base_sl = [group["sparsity_level"] for group in sparsifier.groups]
        self.last_epoch = last_epoch
        count_steps(sparsifier)
        self._step_count = 0
        self.verbose = verbose
        self._get_sl_called_within_step = False
        self.step()

    def state_dict(self) -> dict[str, Any]:
        """A copy of every attribute except the sparsifier, which saves itself."""
        return {key: copy.deepcopy(value) for key, value in self.__dict__.items() if key != "sparsifier"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict()` returned."""
        self.__dict__.update({key: copy.deepcopy(value) for key, value in state_dict.items()})

    def get_last_sl(self) -> list[float]:
        """The levels of the last step, one per group."""
        return self._last_sl

    def get_sl(self) -> list[float]:
        """The levels of the current epoch; for subclasses, called by `step`."""
        self._warn_outside_step()
        raise NotImplementedError

    def _warn_outside_step(self) -> None:
        if not self._get_sl_called_within_step:
            warnings.warn(
                "get_sl() is for step() alone; get_last_sl() returns the last levels",
                UserWarning,
                stacklevel=3,
            )

    def print_sl(self, is_verbose: bool, group: int, sl: float, epoch: int | None = None) -> None:
        """Prints the level of a group when `is_verbose`."""
        if is_verbose:
            when = "" if epoch is None else f"epoch {epoch}: "
            print(f"{when}sparsity level of group {group} is now {sl:.4e}")

    def __repr__(self) -> str:
        return f"{type(self).__name__} (\nSparsifier {self.sparsifier}\n    base_sl: {self.base_sl}\n)"

    def step(self, epoch: int | None = None) -> None:
        """Moves one epoch on, writes the new levels, lets the sparsifier update its masks.

        Args:
            epoch: Only shown in the verbose line.
        """
        if self._step_count == 1:
            check_step_order(self.sparsifier, "sparsifier")
        self._step_count += 1
        self._get_sl_called_within_step = True
        try:
            self.last_epoch += 1
            levels = self.get_sl()
        finally:
            self._get_sl_called_within_step = False
        for i, (group, level) in enumerate(zip(self.sparsifier.groups, levels, strict=False)):
            group["sparsity_level"] = level
            self.print_sl(self.verbose, i, level, epoch)
        self._last_sl = [group["sparsity_level"] for group in self.sparsifier.groups]
        self.sparsifier.enable_mask_update = True

    def _make_sure_a_list(self, var: _T | list[_T] | tuple[_T, ...]) -> list[_T]:
        """One value per group: a single value is repeated."""
        groups = len(self.sparsifier.groups)
        if not isinstance(var, (list, tuple)):
            return [var] * groups
        if len(var) != groups:
            raise ValueError(
                f"{type(self).__name__}: a list must have one value per group ({groups}), got {len(var)}"
            )
        return list(var)
