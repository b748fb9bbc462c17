"""What is said of a torch function that has no int8 form for a QuantizedTensor."""

import sys
import threading
from typing import Any, NoReturn

from torch import nn

from torch_ao_ext._describe import MODULE_PATH

__all__ = ["Refusal", "float_fallback", "refuse"]

# Arithmetic whose result needs qparams: the module method that has them.
_FUNCTIONAL = {
    "add": "add", "__add__": "add", "__radd__": "add", "__iadd__": "add", "add_": "add",
    "mul": "mul", "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul", "mul_": "mul",
    "matmul": "matmul", "__matmul__": "matmul", "bmm": "matmul", "cat": "cat", "concat": "cat",
}  # fmt: skip


class _FloatFallback(threading.local):
    """depth > 0: a model that was prepared with auto_edges is running in this thread."""

    depth = 0


float_fallback = _FloatFallback()


class Refusal(TypeError):
    """A function has no int8 form for its arguments."""


def _module_path() -> str:
    """Innermost module that is running, by the name that convert noted."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            name = module.__dict__.get(MODULE_PATH)
            return f" in {type(module).__name__}" + (f" '{name}'" if name else "")
        frame = frame.f_back
    return ""


def refuse(function: Any, got: str) -> NoReturn:
    """Refusal that names the function, the module it is called in and what to do."""
    name = getattr(function, "__name__", str(function))
    method = _FUNCTIONAL.get(name)
    if method is not None:
        remedy = f"use nn.quantized.FloatFunctional().{method} in the float model, it observes the result"
    else:
        remedy = "put a DeQuantStub before it and a QuantStub behind it"
    where = _module_path() if float_fallback.depth == 0 else ""
    raise Refusal(f"{name}{where}: arguments must be float tensors, got {got}; {remedy}")
