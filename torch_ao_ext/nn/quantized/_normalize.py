"""Functions on quantized tensors that torch.ao has as operators only; arguments in that order."""

import torch

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized.functional import _check

__all__ = ["dropout", "instance_norm", "layer_norm"]

ao = torch.ops.torch_ao


def layer_norm(
    input: QuantizedTensor, normalized_shape: list[int], weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None, eps: float = 1e-5, output_scale: float = 1.0,
    output_zero_point: int = 0,
) -> QuantizedTensor:  # fmt: skip
    """As torch.nn.functional.layer_norm, with the qparams of the result."""
    _check("layer_norm", "input", input)
    qparams = (float(output_scale), int(output_zero_point))
    head = (input.int_repr(), input.q_scale(), input.q_zero_point(), weight, bias)
    y = ao.layer_norm.default(*head, *qparams, input.dtype, list(normalized_shape), eps)
    return QuantizedTensor(y, *qparams)


def instance_norm(
    input: QuantizedTensor, weight: torch.Tensor | None = None, bias: torch.Tensor | None = None,
    eps: float = 1e-5, output_scale: float = 1.0, output_zero_point: int = 0,
) -> QuantizedTensor:  # fmt: skip
    """As torch.nn.functional.instance_norm of each image's own statistics, with the qparams of the result."""
    _check("instance_norm", "input", input)
    qparams = (float(output_scale), int(output_zero_point))
    head = (input.int_repr(), input.q_scale(), input.q_zero_point(), weight, bias)
    return QuantizedTensor(ao.instance_norm.default(*head, *qparams, input.dtype, eps), *qparams)


def dropout(
    input: QuantizedTensor, output_scale: float | None = None, output_zero_point: int | None = None,
    p: float = 0.5, training: bool = False,
) -> QuantizedTensor:  # fmt: skip
    """Returns its input, qparams and all, as torch.ao's does in evaluation mode.

    Raises:
        ValueError: in training.
    """
    _check("dropout", "input", input)
    if training:
        raise ValueError("nn.quantized.functional.dropout: argument 'training' must be False, got True")
    return input
