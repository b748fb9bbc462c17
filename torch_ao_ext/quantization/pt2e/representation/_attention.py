"""Products of two activations and softmax in ATen operators."""

from collections.abc import Sequence
from typing import Any

import torch

from torch_ao_ext.quantization.pt2e.representation._values import (
    Value,
    aten,
    finish,
    finish_product,
    integers,
    known,
    post_ops,
    real,
    to,
)


def matmul(
    input: Value, input_scale: float, input_zero_point: int, other: Value, other_scale: float,
    other_zero_point: int, output_scale: float, output_zero_point: int, output_dtype: torch.dtype | None,
    names: str, numbers: Sequence[float],
) -> Value:  # fmt: skip
    sums = aten.matmul.default(integers(input, input_zero_point), integers(other, other_zero_point))
    scale = torch.tensor(input_scale) * torch.tensor(other_scale)  # one float32 operation
    r = post_ops(aten.mul.Tensor(to(sums, torch.float32), scale.item()), names, numbers)
    return finish_product(r, output_scale, output_zero_point, output_dtype or known(input).dtype)


def softmax(
    input: Value, dim: int, input_scale: float, input_zero_point: int, output_scale: float,
    output_zero_point: int, output_dtype: torch.dtype | None, mask: Value | None,
) -> Value:  # fmt: skip
    if known(input).dtype.is_floating_point:
        x = aten.mul.Tensor(to(input, torch.float32), input_scale)
    else:
        x = real(input, input_scale, input_zero_point)
    if mask is not None:
        x = aten.add.Tensor(x, mask)
    y = aten.softmax.int(x, dim)
    return finish(y, output_scale, output_zero_point, output_dtype or known(input).dtype)


ATTENTION: dict[str, Any] = {"matmul": matmul, "softmax": softmax}
