"""Sparsity levels that are a function of the epoch."""

import types
from collections.abc import Callable
from typing import Any

from torch_ao_ext.pruning.scheduler.base_scheduler import BaseScheduler
from torch_ao_ext.pruning.sparsifier.base_sparsifier import BaseSparsifier

__all__ = ["LambdaSL"]


class LambdaSL(BaseScheduler):
    """`level = base level * sl_lambda(epoch)`.

    Args:
        sparsifier: A prepared sparsifier.
        sl_lambda: Function of the epoch, or a list with one function per group.
        last_epoch: Epoch before the first step.
        verbose: Print each new level.
    """

    def __init__(
        self,
        sparsifier: BaseSparsifier,
        sl_lambda: Callable[[int], float] | list[Callable[[int], float]],
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.sparsifier = sparsifier
        self.sl_lambdas = self._make_sure_a_list(sl_lambda)
        super().__init__(sparsifier, last_epoch, verbose)

    def state_dict(self) -> dict[str, Any]:
        """As BaseScheduler; plain functions are left out (None), since they do not save.

        A callable object is saved by its attributes, as torch's LambdaLR does.
        """
        state = {k: v for k, v in self.__dict__.items() if k not in ("sparsifier", "sl_lambdas")}
        state["sl_lambdas"] = [None if _is_function(f) else dict(f.__dict__) for f in self.sl_lambdas]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state; functions stay those of this scheduler."""
        state = dict(state_dict)
        for function, saved in zip(self.sl_lambdas, state.pop("sl_lambdas", []), strict=False):
            if isinstance(saved, dict):
                function.__dict__.update(saved)
        super().load_state_dict(state)

    def get_sl(self) -> list[float]:
        """`base level * sl_lambda(last_epoch)` of each group."""
        self._warn_outside_step()
        return [base * f(self.last_epoch) for f, base in zip(self.sl_lambdas, self.base_sl, strict=True)]


def _is_function(f: Any) -> bool:
    return isinstance(f, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)) or not hasattr(
        f, "__dict__"
    )
