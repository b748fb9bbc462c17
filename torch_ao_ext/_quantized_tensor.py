"""int8 data with its qparams, under the method names of torch's quantized tensors."""

import torch

__all__ = ["QuantizedTensor"]


class QuantizedTensor:
    """Real value = (int_repr - zero_point) * scale, qparams for the tensor or along axis 0.

    A plain value class: it never holds a tensor of a quantized dtype and is no
    Tensor subclass. `Linear.weight()` returns one.

    Args:
        data: int8 or uint8 tensor, `[N, ...]`.
        scale: float32, `[1]` (per tensor) or `[N]` (per channel, axis 0).
        zero_point: int32 of the scale's shape, or float32 (embedding rows); None means 0.

    Example:
        >>> import torch
        >>> from torch_ao_ext._quantized_tensor import QuantizedTensor
        >>> q = QuantizedTensor(torch.tensor([[2, -4]], dtype=torch.int8), torch.tensor([0.5]))
        >>> q.dequantize()
        tensor([[ 1., -2.]])
    """

    __slots__ = ("_data", "_scale", "_zero_point")

    def __init__(
        self, data: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None = None
    ) -> None:
        if data.dtype not in (torch.int8, torch.uint8):
            raise ValueError(
                f"QuantizedTensor: argument 'data' must be int8 or uint8, got {data.dtype}"
            )
        self._data = data
        self._scale = scale
        self._zero_point = zero_point

    def int_repr(self) -> torch.Tensor:
        """The stored integers (no copy)."""
        return self._data

    def dequantize(self) -> torch.Tensor:
        """float32 values: (int_repr - zero_point) * scale."""
        shape = (-1,) + (1,) * (self._data.dim() - 1)
        value = self._data.to(torch.float32)
        if self._zero_point is not None:
            value = value - self._zero_point.reshape(shape).to(torch.float32)
        return value * self._scale.reshape(shape)

    def qscheme(self) -> torch.qscheme:
        """per_tensor_affine for one scale, per_channel_affine otherwise (as torch.ao)."""
        if self._zero_point is not None and self._zero_point.is_floating_point():
            return torch.per_channel_affine_float_qparams
        return torch.per_tensor_affine if self._is_per_tensor() else torch.per_channel_affine

    def q_scale(self) -> float:
        """The scale; per-tensor only."""
        self._require(per_tensor=True, method="q_scale")
        return float(self._scale)

    def q_zero_point(self) -> int:
        """The zero point; per-tensor only."""
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
        """torch.int8 or torch.uint8."""
        return self._data.dtype

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Like Tensor.size."""
        return self._data.shape if dim is None else self._data.shape[dim]

    def dim(self) -> int:
        """Like Tensor.dim."""
        return self._data.dim()

    def _is_per_tensor(self) -> bool:
        if self._zero_point is not None and self._zero_point.is_floating_point():
            return False
        return self._scale.numel() == 1 and self._data.shape[0] != 1 or self._scale.dim() == 0

    def _require(self, *, per_tensor: bool, method: str) -> None:
        # One output channel with one scale reads either way.
        if self._is_per_tensor() != per_tensor and self._scale.numel() != 1:
            raise RuntimeError(
                f"QuantizedTensor.{method}: qscheme must be "
                f"{'per_tensor_affine' if per_tensor else 'per_channel_affine'}, "
                f"got {self.qscheme()}"
            )

    def __repr__(self) -> str:
        return (
            f"QuantizedTensor({self._data}, scale={self._scale}, zero_point={self._zero_point})"
        )
