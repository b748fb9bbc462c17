"""Says which line of the user's model a capture could not take."""

import contextlib
import linecache
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

import torch_ao_ext

__all__ = ["located"]

_NOT_THE_USERS = tuple(f"{Path(package.__file__).parent}/" for package in (torch, torch_ao_ext))


def _line(error: BaseException) -> str:
    """File, line and code of the innermost frame outside of both libraries."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_file()]
    own = [f for f in frames if not f.filename.startswith(_NOT_THE_USERS)]
    if not own:
        return "an unknown line"
    last = own[-1]
    code = linecache.getline(last.filename, last.lineno or 0).strip()
    return f'File "{last.filename}", line {last.lineno}, in {last.name} ({code})'


@contextlib.contextmanager
def located(op: str, rule: str, advice: str) -> Iterator[None]:
    """What is raised inside becomes a ValueError with the line of the user's code.

    Args:
        op: for the message.
        rule: what the model must be.
        advice: what to do.
    """
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(
            f"{op}: argument 'model' must be {rule}, got {type(error).__name__} at {_line(error)}: {reason}; "
            f"{advice}"
        ) from error
