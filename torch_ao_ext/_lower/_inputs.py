"""Checks that inputs have the sizes that a graph was exported for."""

import warnings
from typing import Any

import torch
from torch import fx, nn

from torch_ao_ext._lower._sizes import TracerWarning, trace_warning
from torch_ao_ext.quantization.pt2e._graph import HOOKS
from torch_ao_ext.quantization.pt2e._portable import FREE_SIZES

# The module of such checks that torch.export adds; it works on Python numbers only, so that
# neither torch.jit.trace nor pickle takes it.
_EXPORTED = "_guards_fn"


class InputCheck(nn.Module):
    """Raises for a tensor of other sizes or another dtype than the graph was made for, or another number.

    Args:
        expected: for each input its name, sizes (None: free) and dtype; None: no tensor.
        constant: nodes that make constants of sizes in a trace.
        values: index, name and value of each input that is a constant of the graph.
    """

    _is_impure = True  # nobody reads what it returns
    values: tuple[tuple[int, str, Any], ...] = ()

    def __init__(
        self,
        expected: list[tuple[str, list[int | None], torch.dtype] | None],
        constant: list[str],
        values: tuple[tuple[int, str, Any], ...] = (),
    ) -> None:
        super().__init__()
        self.expected = expected
        self.constant = constant
        self.values = values

    def forward(self, *inputs: torch.Tensor) -> None:
        """Compares; a trace has its own sizes and is not checked."""
        if torch.jit.is_tracing():
            if self.constant:
                warnings.warn(trace_warning(self.constant), TracerWarning, stacklevel=2)
            return
        for index, name, want in self.values:
            if inputs[index] != want:
                raise ValueError(
                    f"lowered model: input '{name}' must be {want!r}, for which the model was exported, got "
                    f"{inputs[index]!r}"
                )
        for value, known in zip(inputs, self.expected, strict=True):
            if known is None or not isinstance(value, torch.Tensor):
                continue
            name, sizes, dtype = known
            if value.dtype != dtype:
                raise TypeError(f"lowered model: input '{name}' must have dtype {dtype}, got {value.dtype}")
            fits = value.dim() == len(sizes) and all(
                want is None or have == want for have, want in zip(value.shape, sizes, strict=True)
            )
            if not fits:
                text = ", ".join("*" if want is None else str(want) for want in sizes)
                raise ValueError(
                    f"lowered model: input '{name}' must have sizes [{text}], for which the model was "
                    f"exported, got {list(value.shape)}"
                )


def check_input(x: torch.Tensor, name: str, sizes: list[int], dtype: torch.dtype) -> None:
    """InputCheck of one input in TorchScript; a size of -1 is free."""
    if x.dtype != dtype:
        raise TypeError(f"lowered model: input '{name}' must have c10::ScalarType {dtype}, got {x.dtype}")
    fits = x.dim() == len(sizes)
    if fits:
        for have, want in zip(x.shape, sizes):  # noqa: B905 (TorchScript knows no strict)
            fits = fits and (want == -1 or have == want)
    if not fits:
        raise ValueError(f"lowered model: input '{name}' must have sizes {sizes} (-1: any), got {x.shape}")


def check_bool(x: bool, name: str, want: bool) -> None:
    """InputCheck of a constant in TorchScript, which has no functions of several types."""
    if x != want:
        raise ValueError(f"lowered model: input '{name}' must be {want}, got {x}")


def check_int(x: int, name: str, want: int) -> None:
    """See check_bool."""
    if x != want:
        raise ValueError(f"lowered model: input '{name}' must be {want}, got {x}")


def check_float(x: float, name: str, want: float) -> None:
    """See check_bool."""
    if x != want:
        raise ValueError(f"lowered model: input '{name}' must be {want}, got {x}")


def check_str(x: str, name: str, want: str) -> None:
    """See check_bool."""
    if x != want:
        raise ValueError(f"lowered model: input '{name}' must be {want}, got {x}")


CHECKS_OF_CONSTANTS = {bool: check_bool, int: check_int, float: check_float, str: check_str}


def _expected(node: fx.Node) -> tuple[str, list[int | None], torch.dtype] | None:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    free = node.meta.get(FREE_SIZES, ())
    sizes = [None if d in free else _fixed_size(s) for d, s in enumerate(value.shape)]
    return node.name, sizes, value.dtype


def _fixed_size(size: Any) -> int | None:
    """The number; also of a symbol that the export has found to be one. None: free."""
    return size if isinstance(size, int) else size.node.maybe_as_int()


def _is_constant(node: fx.Node) -> bool:
    """Whether an input is a number or string that the export has put into the graph."""
    return type(node.meta.get("val")) in CHECKS_OF_CONSTANTS


def check_inputs(model: fx.GraphModule, constant: list[str]) -> None:
    """Puts an InputCheck in the place of torch.export's checks; in place.

    Args:
        model: lowered.
        constant: what `sizes_by_method` returned.
    """
    for hooks in HOOKS:
        getattr(model, hooks).clear()
    for node in list(model.graph.nodes):
        if node.op == "call_module" and node.target == _EXPORTED:
            model.graph.erase_node(node)
    placeholders = [node for node in model.graph.nodes if node.op == "placeholder"]
    expected = [_expected(node) for node in placeholders]
    known = [(i, n.name, n.meta["val"]) for i, n in enumerate(placeholders) if _is_constant(n)]
    if not any(expected) and not known:
        return
    model.add_module("input_check", InputCheck(expected, constant, tuple(known)))
    with model.graph.inserting_after(placeholders[-1]):
        model.graph.call_module("input_check", tuple(placeholders))
