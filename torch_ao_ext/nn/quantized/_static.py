"""What modules between quantized tensors share: input check, output qparams, from_float."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._describe import MODULE_PATH
from torch_ao_ext._quantized_functions import RANGE, quantize_per_tensor
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import QuantizedWeight, quantize_weight
from torch_ao_ext.nn.quantized._state import keep_dtypes

__all__ = [
    "STORAGE",
    "QuantizedOutput",
    "integers",
    "observer_of",
    "output_qparams",
    "product_of",
    "saw_data",
    "static_weight",
]

# Spelling in a qconfig -> what is stored.
STORAGE = {
    torch.uint8: torch.uint8,
    torch.int8: torch.int8,
    getattr(torch, "quint8", torch.uint8): torch.uint8,
    getattr(torch, "qint8", torch.int8): torch.int8,
}
_CODES = (torch.uint8, torch.int8)


def integers(module: nn.Module, x: Any) -> tuple[torch.Tensor, float, int]:
    """Integers, scale and zero point of the input of a quantized module.

    Raises:
        TypeError: it is not quantized, and the model was not prepared with auto_edges; names
            the module.
    """
    if type(x) is QuantizedTensor:
        return x._data, x.q_scale(), x.q_zero_point()
    edge = module.__dict__.get("edge")
    if edge is not None and isinstance(x, torch.Tensor) and x.is_floating_point():
        return quantize_per_tensor(x.to(torch.float32), *edge)._data, edge[0], edge[1]
    name = module.__dict__.get(MODULE_PATH)
    got = f"a {x.dtype} tensor" if isinstance(x, torch.Tensor) else type(x).__name__
    raise TypeError(
        f"nn.quantized.{type(module).__name__}{f' {name!r}' if name else ''}: argument 'input' must be a "
        f"QuantizedTensor, got {got}; put a QuantStub before it in the float model"
    )


def saw_data(observer: Any) -> bool:
    """Whether an observer (or the one inside a fake-quantize module) has a range."""
    inner = getattr(observer, "activation_post_process", observer)
    low = getattr(inner, "min_val", None)
    return low is None or low.numel() > 0 and not bool(torch.isinf(low).any())


def observer_of(mod: nn.Module, who: str) -> Any:
    """The observer of a module's output.

    Raises:
        ValueError: it has none.
    """
    observer = getattr(mod, "activation_post_process", None)
    if observer is None:
        raise ValueError(
            f"{who}.from_float: argument 'mod' must have an activation_post_process (call prepare first)"
        )
    return observer


def output_qparams(observer: Any, who: str) -> tuple[float, int, torch.dtype]:
    """Scale, zero point and stored dtype that an observer found.

    Raises:
        ValueError: not 8 bit, or not one scale for the tensor.
    """
    asked = getattr(observer, "dtype", None)
    dtype = STORAGE.get(asked)
    if dtype is None:
        raise ValueError(f"{who}: the activation observer must be for quint8 or qint8, got {asked}")
    scale, zero_point = observer.calculate_qparams()
    if scale.numel() != 1:
        raise ValueError(
            f"{who}: the activation observer must give one scale for the tensor, got {scale.numel()}"
        )
    return float(scale), int(zero_point), dtype


def product_of(mod: nn.Module) -> nn.Module:
    """The float product in a module: of a container, of a trained one with its batch norm folded in."""
    if hasattr(mod, "bn"):
        mod = mod.to_float()
    return mod[0] if isinstance(mod, nn.Sequential) else mod


def static_weight(mod: nn.Module, product: nn.Module, precomputed: bool, rows: Any = None) -> QuantizedWeight:
    """int8 weight of a product by the qconfig of the module that holds it.

    Args:
        mod: what was observed: the product, or its container.
        product: has the float weight.
        precomputed: the weight's fake-quantize module has its range already.
        rows: makes `[N, K]` of the weight; default reshape.

    Raises:
        ValueError: no qconfig.
    """
    qconfig = getattr(mod, "qconfig", None)
    if qconfig is None:
        raise ValueError(f"from_float: argument 'mod' ({type(mod).__name__}) must have a qconfig")
    weight = product.weight.detach()
    flat = weight.reshape(weight.shape[0], -1) if rows is None else rows(weight)
    trained = getattr(mod, "weight_fake_quant", None)
    if trained is not None and not precomputed:
        trained(weight)
    return quantize_weight(flat, qconfig, trained)


class QuantizedOutput(nn.Module):
    """Output qparams: Python numbers for forward, buffers for state_dict and files.

    Buffers `output_scale` float64 `[]`, `output_zero_point` int64 `[]`, `output_dtype`
    int64 `[]` (0 uint8, 1 int8). Read and set them as `scale`, `zero_point`, `dtype`.
    """

    qparams: tuple[float, int, torch.dtype]

    def set_output(self, scale: float, zero_point: int, dtype: torch.dtype) -> None:
        """Sets all three.

        Raises:
            ValueError: a scale that is not positive, a zero point outside the dtype's range.
        """
        name, stored = type(self).__name__, STORAGE.get(dtype)
        scale, zero_point = float(scale), int(zero_point)
        if stored is None:
            raise ValueError(f"{name}: argument 'dtype' must be torch.quint8 or torch.qint8, got {dtype}")
        low, high = RANGE[stored]
        if not torch.finfo(torch.float32).tiny <= scale < float("inf"):
            raise ValueError(f"{name}: argument 'scale' must be a positive normal number, got {scale}")
        if not low <= zero_point <= high:
            raise ValueError(f"{name}: argument 'zero_point' must be in [{low}, {high}], got {zero_point}")
        self.qparams = (scale, zero_point, stored)
        with torch.device("cpu"):
            self.register_buffer("output_scale", torch.tensor(scale, dtype=torch.float64))
            self.register_buffer("output_zero_point", torch.tensor(zero_point))
            self.register_buffer("output_dtype", torch.tensor(_CODES.index(stored)))

    @property
    def scale(self) -> float:
        """Real units per step of the output."""
        return self.qparams[0]

    @scale.setter
    def scale(self, value: float) -> None:
        self.set_output(value, self.qparams[1], self.qparams[2])

    @property
    def zero_point(self) -> int:
        """The integer of real 0."""
        return self.qparams[1]

    @zero_point.setter
    def zero_point(self, value: int) -> None:
        self.set_output(self.qparams[0], value, self.qparams[2])

    @property
    def dtype(self) -> torch.dtype:
        """torch.uint8 or torch.int8."""
        return self.qparams[2]

    def _apply(self, fn: Any, recurse: bool = True) -> "QuantizedOutput":
        inner = super()._apply
        keep_dtypes(self, ("output_scale",), lambda: inner(fn, recurse))
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        values = [state_dict.get(prefix + f"output_{key}") for key in ("scale", "zero_point", "dtype")]
        if any(value is None or value.numel() != 1 for value in values):
            return  # reported as missing, or of a wrong size
        code = int(values[2])
        try:
            if code not in (0, 1):
                raise ValueError(f"output_dtype must be 0 (uint8) or 1 (int8), got {code}")
            self.set_output(float(values[0]), int(values[1]), _CODES[code])
        except ValueError as error:
            rest[-1].append(f"{prefix[:-1] or '(root)'}: {error}")

    def _output_repr(self) -> str:
        scale, zero_point, dtype = self.qparams
        return f"scale={scale}, zero_point={zero_point}, dtype={dtype}"
