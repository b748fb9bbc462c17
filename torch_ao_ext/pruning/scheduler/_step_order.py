"""Counts the steps of a sparsifier, so that a scheduler can notice a wrong order."""

import warnings
from typing import Any

__all__ = ["check_step_order", "count_steps"]


class _CountedStep:
    """Stands in for `owner.step` and counts its calls; copies and pickles with its owner."""

    _with_counter = True

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.owner._step_count += 1
        return type(self.owner).step(self.owner, *args, **kwargs)


def count_steps(sparsifier: Any) -> None:
    """Starts counting; a second scheduler on the same sparsifier shares the counter."""
    if not getattr(sparsifier.step, "_with_counter", False):
        sparsifier.step = _CountedStep(sparsifier)
    sparsifier._step_count = 0


def check_step_order(sparsifier: Any, name: str) -> None:
    """Warns when the scheduler's second step comes before the sparsifier's first."""
    if not hasattr(sparsifier.step, "_with_counter"):
        message = f"{name}.step() was replaced after the scheduler was made; call it before scheduler.step()"
    elif sparsifier._step_count < 1:
        message = f"scheduler.step() was called before {name}.step(); call {name}.step() first"
    else:
        return
    warnings.warn(message, UserWarning, stacklevel=3)
