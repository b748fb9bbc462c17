"""Observers without statistics: fixed qparams, settings only, recorded tensors."""

from typing import Any

import torch

from torch_ao_ext.quantization.observer._base import _EPS, _QUINT8, ObserverBase


def _no_statistics(observer: ObserverBase) -> Any:
    raise RuntimeError(f"{type(observer).__name__}: calculate_qparams needs recorded values")


class FixedQParamsObserver(ObserverBase):
    """Qparams that are known beforehand, as those of a sigmoid's output.

    Args:
        scale: real units per step, > 0.
        zero_point: the integer of 0.
        dtype: dtype of the quantized values.
        qscheme: per_tensor_affine or per_tensor_symmetric.
        quant_min: smallest quantized value.
        quant_max: largest quantized value.
        is_dynamic: must be False.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(
        self,
        scale: float,
        zero_point: int,
        dtype: torch.dtype = _QUINT8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        quant_min: int = 0,
        quant_max: int = 255,
        is_dynamic: bool = False,
        **kwargs: Any,
    ) -> None:
        if is_dynamic:
            raise NotImplementedError("FixedQParamsObserver: argument 'is_dynamic' must be False, got True")
        if not float(scale) > 0:
            raise ValueError(f"FixedQParamsObserver: argument 'scale' must be above 0, got {scale}")
        if not quant_min <= zero_point <= quant_max:
            raise ValueError(
                "FixedQParamsObserver: argument 'zero_point' must be in [quant_min, quant_max] = "
                f"[{quant_min}, {quant_max}], got {zero_point}"
            )
        super().__init__(dtype=dtype, is_dynamic=is_dynamic, **kwargs)
        self.quant_min, self.quant_max = quant_min, quant_max
        self.qscheme = qscheme
        self.register_buffer("scale", torch.tensor([scale], dtype=torch.float))
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.int))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    @torch.jit.export
    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The fixed scale `[1]` and zero point `[1]`."""
        return self.scale, self.zero_point


class PlaceholderObserver(ObserverBase):
    """Records nothing; carries the settings of values that are quantized at run time.

    Args:
        dtype: dtype of the quantized values.
        custom_op_name: kept for torch.ao's signature.
        compute_dtype: torch.ao's older name for a dynamic dtype; sets is_dynamic.
        quant_min: smallest quantized value.
        quant_max: largest quantized value.
        qscheme: default per_tensor_affine.
        eps: smallest scale.
        is_dynamic: quantized at run time.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        custom_op_name: str = "",
        compute_dtype: torch.dtype | None = None,
        quant_min: int | None = None,
        quant_max: int | None = None,
        qscheme: torch.qscheme | None = None,
        eps: float | None = None,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype=dtype, is_dynamic=is_dynamic or compute_dtype is not None)
        if compute_dtype is not None:
            self.dtype = compute_dtype
        self.custom_op = custom_op_name
        self.qscheme = torch.per_tensor_affine if qscheme is None else qscheme
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.eps = _EPS if eps is None else eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    def calculate_qparams(self) -> Any:
        """Raises: a placeholder has no statistics."""
        return _no_statistics(self)

    def extra_repr(self) -> str:
        """The settings."""
        return f"dtype={self.dtype}, is_dynamic={self.is_dynamic}"


class RecordingObserver(ObserverBase):
    """Keeps every tensor that it sees: for debugging, memory grows with the data."""

    tensor_val: list[torch.Tensor]

    def __init__(self, dtype: torch.dtype = _QUINT8) -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.tensor_val = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps a copy of x."""
        self.tensor_val.append(x.clone())
        return x

    def calculate_qparams(self) -> Any:
        """Raises: there is no range."""
        return _no_statistics(self)

    @torch.jit.export
    def get_tensor_value(self) -> list[torch.Tensor]:
        """The tensors seen, in order."""
        return self.tensor_val


class NoopObserver(ObserverBase):
    """Records nothing; carries a dtype (float16 weights).

    Args:
        dtype: dtype of the converted values.
        custom_op_name: kept for torch.ao's signature.
    """

    def __init__(self, dtype: torch.dtype = torch.float16, custom_op_name: str = "") -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.custom_op = custom_op_name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    def calculate_qparams(self) -> Any:
        """Raises: there is no range."""
        return _no_statistics(self)


class ReuseInputObserver(ObserverBase):
    """Says that an op's output has its input's qparams (reshape); records nothing."""

    def __init__(self) -> None:
        super().__init__(_QUINT8, is_dynamic=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x."""
        return x

    def calculate_qparams(self) -> Any:
        """Raises: the qparams are another observer's."""
        return _no_statistics(self)
