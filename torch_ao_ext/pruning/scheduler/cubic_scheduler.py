"""Gradual pruning on a cubic curve."""

from torch_ao_ext.pruning.scheduler.base_scheduler import BaseScheduler
from torch_ao_ext.pruning.sparsifier.base_sparsifier import BaseSparsifier

__all__ = ["CubicSL"]


class CubicSL(BaseScheduler):
    """Raises the level from `init_sl` to the base level, quickly first, then slowly.

    `level(t) = s_f + (s_0 - s_f) * (1 - (t - init_t) / (delta_t * total_t))^3`, held at
    `s_0` before `init_t` and at `s_f` after the last step. Source: Zhu and Gupta 2017,
    arXiv 1710.01878, equation 1. Each argument may be a list with a value per group.

    Args:
        sparsifier: A prepared sparsifier; its groups' levels are the targets `s_f`.
        init_sl: First level `s_0`, at most the target.
        init_t: Epoch at which pruning starts.
        delta_t: Epochs of one pruning step.
        total_t: Number of pruning steps.
        initially_zero: Level 0 instead of `s_0` before `init_t`.
        last_epoch: Epoch before the first step.
        verbose: Print each new level.
    """

    def __init__(
        self,
        sparsifier: BaseSparsifier,
        init_sl: float | list[float] = 0.0,
        init_t: int | list[int] = 0,
        delta_t: int | list[int] = 10,
        total_t: int | list[int] = 100,
        initially_zero: bool | list[bool] = False,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.sparsifier = sparsifier
        self.init_sl = self._make_sure_a_list(init_sl)
        self.init_t = self._make_sure_a_list(init_t)
        self.delta_t = self._make_sure_a_list(delta_t)
        self.total_t = self._make_sure_a_list(total_t)
        self.initially_zero = self._make_sure_a_list(initially_zero)
        super().__init__(sparsifier, last_epoch, verbose)

    @staticmethod
    def sparsity_compute_fn(
        s_0: float, s_f: float, t: int, t_0: int, dt: int, n: int, initially_zero: bool = False
    ) -> float:
        """The level at epoch `t`; arguments as in the class's formula."""
        if initially_zero and t < t_0:
            return 0
        level = s_f + (s_0 - s_f) * (1.0 - (t - t_0) / (dt * n)) ** 3
        return max(s_0, min(s_f, level))

    def get_sl(self) -> list[float]:
        """The curve's value of each group at `last_epoch`."""
        self._warn_outside_step()
        per_group = zip(
            self.init_sl,
            self.base_sl,
            self.init_t,
            self.delta_t,
            self.total_t,
            self.initially_zero,
            strict=True,
        )
        return [
            self.sparsity_compute_fn(s_0, s_f, self.last_epoch, t_0, dt, n, zero)
            for s_0, s_f, t_0, dt, n, zero in per_group
        ]
