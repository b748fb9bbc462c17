"""Several operators as one: a program that C++ runs without Python between its steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from torch_ao_ext.ops import _fake

__all__ = ["ProgramStep", "island", "read_program"]

Tensor = torch.Tensor


def island(inputs: Sequence[Tensor], constants: Sequence[Tensor], program: str) -> list[Tensor]:
    r"""Runs the operators of a program one after the other, in C++.

    `lower` writes such programs; each step is the operator itself, with its checks and its
    engine. The format is that of csrc/ops/island_program.h.

    Args:
        inputs: CPU tensors that change from call to call.
        constants: weights, scales and biases, the same tensors at every call.
        program: one operator a line, values by number.

    Returns:
        The values that the program returns, new tensors.

    Raises:
        TypeError: a tensor that is not dense on the CPU.
        ValueError: a program that does not parse, an unknown operator, another number of
            tensors than the program says; what an operator raises for its arguments.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.tensor([0, 10, 20], dtype=torch.uint8)
        >>> program = "torch_ao.island 1 inputs=1 constants=0\n"
        >>> program += "torch_ao::requantize %0 f0.5 i10 f0.25 i0 n srelu\nreturn %1"
        >>> torch_ao_ext.ops.island([q], [], program)
        [tensor([ 0,  0, 20], dtype=torch.uint8)]
    """
    return torch.ops.torch_ao.island(inputs, constants, program)


@dataclass(frozen=True)
class ProgramStep:
    """One line of a program.

    Args:
        target: the operator.
        tokens: its arguments as written.
        label: name of the module or node that it comes from.
        macs: multiply-accumulates of a product without weight, 0 where nothing is noted.
        float_reason: why a step of torch computes in floats, "" where nothing is noted.
    """

    target: torch._ops.OpOverload
    tokens: tuple[str, ...]
    label: str
    macs: int
    float_reason: str

    def argument(self, name: str) -> str | None:
        """The token of an argument by name, None when it is left out."""
        names = [a.name for a in self.target._schema.arguments]
        index = names.index(name) if name in names else len(self.tokens)
        return self.tokens[index] if index < len(self.tokens) else None


def _operator(name: str) -> torch._ops.OpOverload:
    space, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, space), base), overload or "default")


def read_program(program: str) -> tuple[list[ProgramStep], list[int]]:
    """Steps and returned values of a program that the operator takes.

    Args:
        program: as the operator's argument.
    """
    _, *lines, last = program.split("\n")
    steps = []
    for line in lines:
        text, _, note = line.partition(" # ")
        note, _, reason = note.partition(" float=")
        label, _, macs = note.partition(" macs=")
        name, *tokens = text.split(" ")
        steps.append(ProgramStep(_operator(name), tuple(tokens), label, int(macs or 0), reason))
    return steps, [int(token[1:]) for token in last.split(" ")[1:]]


def _numbers(kind: type, text: str) -> list[Any]:
    return [kind(part) for part in text.split(",")] if text else []


_KINDS = {
    "n": lambda text: None,
    "i": int,
    "f": float,
    "b": lambda text: text == "1",
    "s": str,
    "d": lambda text: getattr(torch, text),
    "I": lambda text: _numbers(int, text),
    "F": lambda text: _numbers(float, text),
}


def _call(step: ProgramStep, values: list[Tensor], constants: Sequence[Tensor]) -> Tensor:
    def tensor(token: str) -> Tensor:
        return (constants if token[0] == "@" else values)[int(token[1:])]

    def value(token: str) -> Any:
        if token[0] in "%@":
            return tensor(token)
        if token[0] == "T":
            return [tensor(part) for part in token[1:].split(",")] if len(token) > 1 else []
        return _KINDS[token[0]](token[1:])

    positional, named = [], {}
    for declared, token in zip(step.target._schema.arguments, step.tokens, strict=False):
        if declared.kwarg_only:
            named[declared.name] = value(token)
        else:
            positional.append(value(token))
    return step.target(*positional, **named)


def _raise_from_step(step: ProgramStep, error: Exception) -> NoReturn:
    """What a step raised, in the words of csrc/ops/island.cpp; tracers' own exceptions as they are."""
    kind = type(error)
    if kind not in (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError):
        raise error
    raise (ValueError if kind is RuntimeError else kind)(
        "torch_ao::island: argument 'inputs' must suit the operators of the program, got tensors of "
        f"which step '{step.label}' says: {error}"
    ) from error


@torch.library.register_fake("torch_ao::island")
def _island(inputs: list[Tensor], constants: list[Tensor], program: str) -> list[Tensor]:
    torch.ops.torch_ao._check_island(len(inputs), len(constants), program)
    for name, tensors in (("inputs", inputs), ("constants", constants)):
        for t in tensors:
            _fake.check_device("island", name, t)
    steps, results = read_program(program)
    values = list(inputs)
    for step in steps:
        try:
            values.append(_call(step, values, constants))
        except Exception as error:
            _raise_from_step(step, error)
    return [_new(values[r]) for r in results]


def _new(v: Tensor) -> Tensor:
    """A result is new memory, whatever its step returned; with gaps it becomes contiguous."""
    if torch.ops.aten.is_non_overlapping_and_dense(v):
        return torch.empty_strided(v.size(), v.stride(), dtype=v.dtype, device=v.device)
    return v.new_empty(v.size())
