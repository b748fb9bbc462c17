"""Arithmetic between activations, as modules: a place for the observer, then for qparams."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._describe import MODULE_PATH
from torch_ao_ext._quantized_functions import RANGE, quantize_per_tensor
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._static import (
    QuantizedOutput,
    integers,
    observer_of,
    output_qparams,
    saw_data,
)
from torch_ao_ext.ops.matmul import MOST_K

__all__ = ["FXFloatFunctional", "FloatFunctional", "QFunctional"]

ao = torch.ops.torch_ao



class FXFloatFunctional(nn.Module):
    """The arithmetic of FloatFunctional without a place for an observer, for graph modes.

    Example:
        >>> import torch, torch_ao_ext
        >>> f = torch_ao_ext.nn.quantized.FXFloatFunctional()
        >>> f.add_relu(torch.tensor([1.0, -3.0]), torch.tensor([1.0, 1.0]))
        tensor([2., 0.])
    """

    def forward(self, x: Any) -> Any:
        """Refused: call one of the methods."""
        name = type(self).__name__
        raise RuntimeError(f"{name}: forward must not be called, call add, mul, cat or another method")

    def _incoming(self, *operands: torch.Tensor) -> None:
        """What comes to the module, for `prepare` with auto_edges."""

    def _observed(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Computes x + y."""
        self._incoming(x, y)
        return self._observed(torch.add(x, y))

    def add_scalar(self, x: torch.Tensor, y: float) -> torch.Tensor:
        """Computes x + y for a number y; not observed, the qparams follow from those of x."""
        return torch.add(x, y)

    def mul(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Computes x * y."""
        self._incoming(x, y)
        return self._observed(torch.mul(x, y))

    def mul_scalar(self, x: torch.Tensor, y: float) -> torch.Tensor:
        """Computes x * y for a number y; not observed, the qparams follow from those of x."""
        return torch.mul(x, y)

    def cat(self, x: list[torch.Tensor], dim: int = 0) -> torch.Tensor:
        """Joins tensors along dim."""
        self._incoming(*x)
        return self._observed(torch.cat(x, dim))

    def add_relu(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """max(0, x + y)."""
        self._incoming(x, y)
        return self._observed(torch.relu(torch.add(x, y)))

    def matmul(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """X @ y."""
        self._incoming(x, y)
        return self._observed(torch.matmul(x, y))


class FloatFunctional(FXFloatFunctional):
    """Arithmetic on float tensors with a place for an observer; `convert` makes a QFunctional.

    Use one instance for each result: all methods share the observer.

    Example:
        >>> import torch, torch_ao_ext
        >>> f = torch_ao_ext.nn.quantized.FloatFunctional()
        >>> f.add(torch.tensor([1.0]), torch.tensor([2.0]))
        tensor([3.])
    """

    def __init__(self) -> None:
        super().__init__()
        self.activation_post_process: nn.Module = nn.Identity()

    def _incoming(self, *operands: torch.Tensor) -> None:
        observer = self._modules.get("input_post_process")
        if observer is not None:
            for operand in operands:
                observer(operand)

    def _observed(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation_post_process(x)


class QFunctional(QuantizedOutput):
    """The arithmetic of FloatFunctional on quantized tensors.

    Results have the module's `scale`, `zero_point` and `dtype`, but for `add_scalar` and
    `mul_scalar`: these change the qparams of their input and, where they can, no integer.
    `matmul` multiplies integers; torch.ao's multiplies in float32, and may round a tie otherwise.

    Example:
        >>> import torch, torch_ao_ext
        >>> nnq = torch_ao_ext.nn.quantized
        >>> x = nnq.Quantize(0.5, 0)(torch.tensor([1.0, 2.0]))
        >>> nnq.QFunctional().add(x, x).dequantize()
        tensor([2., 4.])
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_output(1.0, 0, torch.uint8)
        self._set_observed(True)

    def _set_observed(self, observed: bool) -> None:
        # A Python bool for the methods, a buffer for files.
        self.is_observed = observed
        with torch.device("cpu"):
            self.register_buffer("observed", torch.tensor(int(observed)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        value = state_dict.get(prefix + "observed")
        if value is not None and value.numel() == 1:
            self._set_observed(bool(value))

    def _result(self) -> tuple[float, int, torch.dtype]:
        """Qparams of results.

        Raises:
            ValueError: no result was observed.
        """
        if not self.is_observed:
            name = self.__dict__.get(MODULE_PATH)
            raise ValueError(
                f"nn.quantized.QFunctional{f' {name!r}' if name else ''}: results must have been observed "
                "between prepare and convert, got none (only add_scalar and mul_scalar work)"
            )
        return self.qparams

    def forward(self, x: Any) -> Any:
        """Refused: call one of the methods."""
        raise RuntimeError("QFunctional: forward must not be called, call add, mul, cat or another method")

    def _binary(self, op: Any, x: Any, y: Any, post_ops: str = "") -> QuantizedTensor:
        scale, point, dtype = self._result()
        data = op(*integers(self, x), *integers(self, y), scale, point, dtype, post_ops)
        return QuantizedTensor(data, scale, point)

    def add(self, x: QuantizedTensor, y: QuantizedTensor) -> QuantizedTensor:
        """Computes x + y; sizes broadcast."""
        return self._binary(ao.add.default, x, y)

    def add_relu(self, x: QuantizedTensor, y: QuantizedTensor) -> QuantizedTensor:
        """max(0, x + y)."""
        return self._binary(ao.add.default, x, y, "relu")

    def mul(self, x: QuantizedTensor, y: QuantizedTensor) -> QuantizedTensor:
        """Computes x * y; sizes broadcast."""
        return self._binary(ao.mul.default, x, y)

    def matmul(self, x: QuantizedTensor, y: QuantizedTensor) -> QuantizedTensor:
        """X @ y of vectors, matrices and batches of them, as torch.matmul takes; the sum is exact.

        Sums of more than 33025 terms, which do not fit int32, are computed in float32, but not in a
        graph of torch.jit.trace, which has one product for all sizes.
        """
        result = self._result()
        a, b = integers(self, x), integers(self, y)
        if not torch.jit.is_tracing() and a[0].dim() > 0 and a[0].shape[-1] > MOST_K:
            floats = (QuantizedTensor(*operand).dequantize() for operand in (a, b))
            return quantize_per_tensor(torch.matmul(*floats), *result)
        # A vector is a row of the left matrix, a column of the right one.
        row, column = a[0].dim() == 1, b[0].dim() == 1
        left = a[0].unsqueeze(0) if row else a[0]
        right = b[0].unsqueeze(1) if column else b[0]
        product = ao.matmul.default(left, *a[1:], right, *b[1:], *result)
        if column:
            product = product.squeeze(-1)
        if row:
            product = product.squeeze(-1 if column else -2)
        return QuantizedTensor(product, *result[:2])

    def cat(self, x: list[QuantizedTensor], dim: int = 0) -> QuantizedTensor:
        """Joins along dim; a tensor of other qparams is requantized."""
        scale, point, dtype = self._result()
        data, scales, points = zip(*(integers(self, part) for part in x), strict=True)
        joined = ao.cat.default(list(data), list(scales), list(points), dim, scale, point, dtype)
        return QuantizedTensor(joined, scale, point)

    def add_scalar(self, x: QuantizedTensor, y: float) -> QuantizedTensor:
        """Computes x + y for a number y: the zero point moves by round(y / scale).

        Where that leaves the range of the dtype, the range is widened to the nearest zero point
        inside and the integers are requantized, as torch.ao does.
        """
        data, scale, point = integers(self, x)
        low, high = RANGE[data.dtype]
        moved = point - round(float(y) / scale)
        if low <= moved <= high:
            return QuantizedTensor(data, scale, moved)
        bound = low if moved < low else high
        wider = scale * abs((high if moved < low else low) - moved) / (high - low)
        # The real values are (data - moved) * scale; the operator's zero point must lie inside.
        real = (data.to(torch.float32) - moved) * scale
        return quantize_per_tensor(real, wider, bound, data.dtype)

    def mul_scalar(self, x: QuantizedTensor, y: float) -> QuantizedTensor:
        """Computes x * y for a number y: the scale is multiplied; a negative y mirrors the integers.

        Raises:
            ValueError: the scale becomes no positive normal number (y = 0 gives zeros).
        """
        data, scale, point = integers(self, x)
        low, high = RANGE[data.dtype]
        y = float(y)
        if y == 0:
            return QuantizedTensor(torch.full_like(data, point), scale, point)
        wider = scale * abs(y)
        if not torch.finfo(torch.float32).tiny <= wider < float("inf"):
            raise ValueError(f"QFunctional.mul_scalar: argument 'y' must keep the scale normal, got {y}")
        if y > 0:
            return QuantizedTensor(data, wider, point)
        mirrored = (low + high - data.to(torch.int16)).to(data.dtype)
        return QuantizedTensor(mirrored, wider, low + high - point)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "QFunctional":
        """Of a FloatFunctional that has observed (add_scalar and mul_scalar need no observer)."""
        new = cls()
        observer = observer_of(mod, "QFunctional")
        if isinstance(observer, nn.Identity) or not saw_data(observer):
            new._set_observed(False)
        else:
            new.set_output(*output_qparams(observer, "QFunctional"))
        return new

    def _get_name(self) -> str:
        return "QFunctional"

    def extra_repr(self) -> str:
        """Output qparams."""
        return self._output_repr()
