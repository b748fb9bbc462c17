"""int8 data with its qparams, under the method names of torch's quantized tensors."""

from typing import Any

import torch

__all__ = ["QuantizedTensor"]

_DTYPES = (torch.int8, torch.uint8, torch.int16)  # int16: weights of recurrent layers

_dequantize_per_tensor = torch.ops.torch_ao.dequantize_per_tensor.default


class QuantizedTensor:
    """Real value = (int_repr - zero_point) * scale, qparams for the tensor or along axis 0.

    What quantized modules of eager mode take and give, and what `Linear.weight()` returns. A
    plain class: it never holds a tensor of a quantized dtype and is no Tensor subclass. torch
    functions that move values, pool or bound them take it when its qparams are those of a
    whole tensor; any other raises and says which module to use.

    Args:
        data: int8 or uint8 tensor, `[N, ...]`; int16 for weights of recurrent layers.
        scale: float, or float32 tensor `[1]` (per tensor) or `[N]` (per channel, axis 0).
        zero_point: int, int32 tensor of the scale's shape, or float32 (embedding rows);
            None means 0.

    Example:
        >>> import torch
        >>> from torch_ao_ext._quantized_tensor import QuantizedTensor
        >>> q = QuantizedTensor(torch.tensor([[2, -4]], dtype=torch.int8), 0.5)
        >>> q.dequantize()
        tensor([[ 1., -2.]])
        >>> torch.relu(q.flatten()).int_repr()
        tensor([2, 0], dtype=torch.int8)
    """

    __slots__ = ("_data", "_scale", "_zero_point")

    is_quantized = True
    requires_grad = False

    def __init__(
        self,
        data: torch.Tensor,
        scale: torch.Tensor | float,
        zero_point: torch.Tensor | int | None = None,
    ) -> None:
        if data.dtype not in _DTYPES:
            raise ValueError(
                f"QuantizedTensor: argument 'data' must be int8, uint8 or int16, got {data.dtype}"
            )
        self._data = data
        self._scale = scale
        self._zero_point = 0 if zero_point is None and isinstance(scale, float) else zero_point

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Torch functions with a QuantizedTensor among their arguments."""
        from torch_ao_ext._quantized_functions import dispatch

        return dispatch(function, args, kwargs or {})

    def int_repr(self) -> torch.Tensor:
        """The stored integers (no copy)."""
        return self._data

    def dequantize(self) -> torch.Tensor:
        """float32 values: (int_repr - zero_point) * scale."""
        if isinstance(self._scale, float) and self._data.dtype == torch.int16:
            return (self._data.to(torch.float32) - self._zero_point) * self._scale
        if isinstance(self._scale, float):
            return _dequantize_per_tensor(self._data, self._scale, self._zero_point)
        shape = (-1,) + (1,) * (self._data.dim() - 1)
        value = self._data.to(torch.float32)
        if self._zero_point is not None:
            value = value - self._zero_point.reshape(shape).to(torch.float32)
        return value * self._scale.reshape(shape)

    def qscheme(self) -> torch.qscheme:
        """per_tensor_affine for one scale, per_channel_affine otherwise (as torch.ao)."""
        if isinstance(self._zero_point, torch.Tensor) and self._zero_point.is_floating_point():
            return torch.per_channel_affine_float_qparams
        return torch.per_tensor_affine if self._is_per_tensor() else torch.per_channel_affine

    def q_scale(self) -> float:
        """The scale; per-tensor only."""
        if isinstance(self._scale, float):
            return self._scale
        self._require(per_tensor=True, method="q_scale")
        return float(self._scale)

    def q_zero_point(self) -> int:
        """The zero point; per-tensor only."""
        if isinstance(self._zero_point, int):
            return self._zero_point
        self._require(per_tensor=True, method="q_zero_point")
        return 0 if self._zero_point is None else int(self._zero_point)

    def q_per_channel_scales(self) -> torch.Tensor:
        """Scales `[N]`, float32; per-channel only."""
        self._require(per_tensor=False, method="q_per_channel_scales")
        return self._scale

    def q_per_channel_zero_points(self) -> torch.Tensor:
        """Zero points `[N]`, int32; per-channel only."""
        self._require(per_tensor=False, method="q_per_channel_zero_points")
        if self._zero_point is None:
            return torch.zeros(self._scale.shape, dtype=torch.int32)
        return self._zero_point

    def q_per_channel_axis(self) -> int:
        """Always 0; per-channel only."""
        self._require(per_tensor=False, method="q_per_channel_axis")
        return 0

    @property
    def shape(self) -> torch.Size:
        """Shape of the data."""
        return self._data.shape

    @property
    def dtype(self) -> torch.dtype:
        """torch.int8, uint8 or int16."""
        return self._data.dtype

    @property
    def device(self) -> torch.device:
        """Device of the data."""
        return self._data.device

    @property
    def ndim(self) -> int:
        """Like Tensor.ndim."""
        return self._data.dim()

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Like Tensor.size."""
        return self._data.shape if dim is None else self._data.shape[dim]

    def dim(self) -> int:
        """Like Tensor.dim."""
        return self._data.dim()

    def numel(self) -> int:
        """Like Tensor.numel."""
        return self._data.numel()

    def stride(self, dim: int | None = None) -> tuple[int, ...] | int:
        """Like Tensor.stride."""
        return self._data.stride() if dim is None else self._data.stride(dim)

    def is_contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> bool:
        """Like Tensor.is_contiguous."""
        return self._data.is_contiguous(memory_format=memory_format)

    def cpu(self) -> "QuantizedTensor":
        """Itself: there are no others."""
        return self

    def __len__(self) -> int:
        return len(self._data)

    def __getattr__(self, name: str) -> Any:
        """Tensor methods; `relu()`, `view()`, `+` go the way of the torch function."""
        function = None if name.startswith("__") else getattr(torch.Tensor, name, None)
        if not callable(function):
            raise AttributeError(f"QuantizedTensor has no attribute {name!r}")
        return lambda *args, **kwargs: self.__torch_function__(function, (), (self, *args), kwargs)

    def _is_per_tensor(self) -> bool:
        if isinstance(self._scale, float):
            return True
        if isinstance(self._zero_point, torch.Tensor) and self._zero_point.is_floating_point():
            return False
        return self._scale.numel() == 1 and self._data.shape[0] != 1 or self._scale.dim() == 0

    def _require(self, *, per_tensor: bool, method: str) -> None:
        # One output channel with one scale reads either way.
        one = isinstance(self._scale, torch.Tensor) and self._scale.numel() == 1
        if self._is_per_tensor() != per_tensor and not one:
            raise RuntimeError(
                f"QuantizedTensor.{method}: qscheme must be "
                f"{'per_tensor_affine' if per_tensor else 'per_channel_affine'}, "
                f"got {self.qscheme()}"
            )

    def __repr__(self) -> str:
        return (
            f"QuantizedTensor({self._data}, scale={self._scale}, zero_point={self._zero_point})"
        )


def _operator(name: str) -> Any:
    def method(self: QuantizedTensor, *others: Any) -> Any:
        return self.__torch_function__(getattr(torch.Tensor, name), (), (self, *others))

    return method


# Python looks operators up on the class, not by __getattr__.
for _name in (
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__matmul__",
    "__neg__", "__getitem__", "__setitem__", "__lt__", "__le__", "__gt__", "__ge__",
):  # fmt: skip
    setattr(QuantizedTensor, _name, _operator(_name))
