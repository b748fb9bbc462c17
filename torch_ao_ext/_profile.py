"""Time of each operator of a model, by the module that it comes from."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

__all__ = ["Profile", "ProfileRow", "profile"]

_ISLAND = "torch_ao::island"


@dataclass(frozen=True)
class ProfileRow:
    """An operator of one module.

    Args:
        fqn: module or node that it comes from; "" outside islands, where it is unknown.
        op: operator, e.g. "torch_ao::conv2d".
        calls: calls in one forward.
        microseconds: time of these calls together, median over the runs.
    """

    fqn: str
    op: str
    calls: int
    microseconds: float


@dataclass(frozen=True)
class Profile:
    """Rows in order of the first call; `str()` is a table.

    Args:
        rows: one for each operator of each module.
        microseconds: time of a whole forward under the profiler, median over the runs.
    """

    rows: tuple[ProfileRow, ...]
    microseconds: float

    @property
    def between(self) -> float:
        """Microseconds that lie in no operator."""
        return self.microseconds - sum(row.microseconds for row in self.rows)

    def __str__(self) -> str:
        lines = [
            f"{row.microseconds:10.1f}  {row.calls:5}  {row.op:32}  {row.fqn}".rstrip() for row in self.rows
        ]
        head = f"{'us':>10}  {'calls':>5}  {'op':32}  layer"
        return "\n".join([head, *lines, f"{self.between:10.1f}  between operators"])


def _inside_operator(event: Any) -> bool:
    """Whether a call belongs to an operator that is counted itself."""
    parent = event.cpu_parent
    while parent is not None:
        if "::" in parent.name and parent.name != _ISLAND and not parent.is_user_annotation:
            return True
        parent = parent.cpu_parent
    return False


def _label(event: Any) -> str:
    parent = event.cpu_parent
    return parent.name if parent is not None and parent.is_user_annotation else ""


def _one_run(run: Callable[[], Any]) -> tuple[dict[tuple[str, str], list[float]], float, Any]:
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu) as profiler, torch.profiler.record_function("forward"):
        run()
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    whole = 0.0
    for event in profiler.events():
        if event.name == "forward" and event.cpu_parent is None:
            whole = event.cpu_time_total
        elif "::" in event.name and event.name != _ISLAND and not event.is_user_annotation:
            if not _inside_operator(event):
                times[_label(event), event.name].append(event.cpu_time_total)
    return times, whole, profiler


def profile(
    model: Callable[..., Any], *inputs: Any, runs: int = 10, trace: str | Path | None = None
) -> Profile:
    """Runs a model and tells where the time goes, operator by operator.

    Each time is the profiler's: it adds about a microsecond to an operator. In the islands of a
    lowered graph every operator is named by its module.

    Args:
        model: anything to call; run under torch.no_grad(), twice before it is measured.
        inputs: its arguments.
        runs: forwards that are measured, at least 1.
        trace: file for a Chrome trace of the last run (chrome://tracing, Perfetto).

    Returns:
        Profile; print it, or read `rows`.

    Raises:
        TypeError: a model that cannot be called.
        ValueError: runs below 1.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(8, 4)))
        >>> [row.op for row in torch_ao_ext.profile(layer, torch.randn(2, 8)).rows]
        ['torch_ao::linear_dynamic']
    """
    if not callable(model):
        raise TypeError(f"profile: argument 'model' must be callable, got {type(model).__name__}")
    if not isinstance(runs, int) or isinstance(runs, bool) or runs < 1:
        raise ValueError(f"profile: argument 'runs' must be an integer of at least 1, got {runs!r}")
    with torch.no_grad():
        for _ in range(2):
            model(*inputs)
        measured = [_one_run(lambda: model(*inputs)) for _ in range(runs)]
    if trace is not None:
        measured[-1][2].export_chrome_trace(str(trace))
    rows = tuple(
        ProfileRow(*key, len(calls), median(sum(times.get(key, [0.0])) for times, _, _ in measured))
        for key, calls in measured[0][0].items()
    )
    return Profile(rows, median(whole for _, whole, _ in measured))
