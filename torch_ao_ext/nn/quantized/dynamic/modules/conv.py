"""Convolutions with int8 weights; the float input is quantized at run time.

Each sample has its own scale and zero point, values are 0..255 (`ops.conv2d_dynamic`): a result does
not depend on what else is in the batch, and nothing of the packed weight depends on the data.
"""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._conv import ConvBase, Transposed
from torch_ao_ext.nn.quantized._observed import qconfig_of, quantize_weight
from torch_ao_ext.nn.quantized._padding import pad

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

ao = torch.ops.torch_ao


class _Conv(ConvBase):
    """Float in, float out."""

    def _batched(self, x: torch.Tensor) -> tuple[torch.Tensor, bool]:
        """Input `[N, C, *]`, padded where the operator cannot, and whether N was added."""
        if not isinstance(x, torch.Tensor) or x.dtype not in (torch.float32, torch.bfloat16):
            got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(
                f"nn.quantized.dynamic.{type(self).__name__}: argument 'input' must be float32 or bfloat16, "
                f"got {got}"
            )
        single = x.dim() == self._RANK + 1
        x = x.unsqueeze(0) if single else x
        # Repeated values and zeros leave the range as it is.
        return x if self._before is None else pad(x, self._before, self.padding_mode, 0), single

    def forward(self, input: torch.Tensor, reduce_range: bool = True) -> torch.Tensor:
        """`[N, C, *]` or `[C, *]` -> the sizes of the float layer, same dtype, channels last.

        Args:
            input: float32 or bfloat16; a sample with a NaN or an infinity gives NaN.
            reduce_range: torch.ao's flag for kernels that saturate; ours do not.

        Raises:
            TypeError: another dtype.
        """
        x, single = self._batched(input)
        b = self._buffers
        y = self._OP(
            x, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"], True, False, False, None,
            self.stride, self._op_padding, self.dilation, self.groups,
        )  # fmt: skip
        return y.squeeze(0) if single else y

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Any:
        """Quantized copy of a float layer whose `qconfig` is set.

        Raises:
            ValueError: another type, no qconfig, a weight that is not finite, a qconfig that is
                not for int8 weights.
        """
        if not isinstance(mod, cls._FLOAT):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.{cls._FLOAT.__name__}, "
                f"got {type(mod).__name__}"
            )
        qconfig = qconfig_of(cls, mod)
        new = cls(**cls._arguments(mod))
        new._set_weight(mod, quantize_weight(cls._rows_of(mod.weight.detach(), mod), qconfig))
        return new.eval()

    def _get_name(self) -> str:
        return f"DynamicQuantized{type(self).__name__}"

    def extra_repr(self) -> str:
        """What differs from torch's defaults."""
        return self._sizes_repr()


class Conv1d(_Conv):
    """nn.Conv1d with an int8 weight; see `Conv2d`.

    Args:
        args: as `Conv2d`.
        reduce_range: torch.ao's flag for kernels that saturate; ours do not.
        kwargs: as `Conv2d`.
    """

    _RANK = 1
    _FLOAT = nn.Conv1d
    _OP = ao.conv1d_dynamic.default

    def __init__(self, *args: Any, reduce_range: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Conv2d(_Conv):
    """nn.Conv2d with an int8 weight; arguments of `nn.quantized.Conv2d`.

    `quantize_dynamic` takes it by a mapping: `mapping={nn.Conv2d: nn.quantized.dynamic.Conv2d}`. A
    calibrated model (`docs/eager.md`) is faster and more accurate.

    Example:
        >>> import torch, torch_ao_ext
        >>> torch_ao_ext.nn.quantized.dynamic.Conv2d(3, 4, 3)(torch.randn(1, 3, 8, 8)).shape
        torch.Size([1, 4, 6, 6])
    """

    _RANK = 2
    _FLOAT = nn.Conv2d
    _OP = ao.conv2d_dynamic.default


class Conv3d(_Conv):
    """nn.Conv3d with an int8 weight; see `Conv2d`."""

    _RANK = 3
    _FLOAT = nn.Conv3d
    _OP = ao.conv3d_dynamic.default


class _ConvTranspose(Transposed, _Conv):
    def forward(
        self, input: torch.Tensor, reduce_range: bool = True, output_size: Any = None
    ) -> torch.Tensor:
        """`[N, C, *]` or `[C, *]` -> the sizes of the float layer, same dtype.

        Args:
            input: as in `Conv2d`.
            reduce_range: as in `Conv2d`.
            output_size: wanted spatial sizes, as in torch.
        """
        x, single = self._batched(input)
        extra = self._extra_lines(x, output_size)
        b = self._buffers
        y = self._OP(
            x, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"], True, False, False, None,
            self.stride, self._op_padding, extra, self.groups, self.dilation,
        )  # fmt: skip
        return y.squeeze(0) if single else y


class ConvTranspose1d(_ConvTranspose):
    """nn.ConvTranspose1d with an int8 weight; see `Conv2d`."""

    _RANK = 1
    _FLOAT = nn.ConvTranspose1d
    _OP = ao.conv_transpose1d_dynamic.default


class ConvTranspose2d(_ConvTranspose):
    """nn.ConvTranspose2d with an int8 weight; see `Conv2d`."""

    _RANK = 2
    _FLOAT = nn.ConvTranspose2d
    _OP = ao.conv_transpose2d_dynamic.default


class ConvTranspose3d(_ConvTranspose):
    """nn.ConvTranspose3d with an int8 weight; see `Conv2d`."""

    _RANK = 3
    _FLOAT = nn.ConvTranspose3d
    _OP = ao.conv_transpose3d_dynamic.default
