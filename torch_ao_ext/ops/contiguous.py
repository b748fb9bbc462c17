"""Any tensor in contiguous memory."""

import torch

from torch_ao_ext.ops import _fake

__all__ = ["contiguous"]

Tensor = torch.Tensor


def contiguous(input: Tensor) -> Tensor:
    """Copies input into contiguous memory, whatever its strides are.

    Convolutions and pools give channels last; this is the way back.

    Args:
        input: uint8, int8, float32 or bfloat16, any shape.

    Returns:
        Shape, dtype and values of input; new memory, also where input is contiguous.

    Raises:
        TypeError: wrong dtype.

    Example:
        >>> import torch, torch_ao_ext
        >>> q = torch.zeros(1, 8, 4, 4, dtype=torch.uint8).to(memory_format=torch.channels_last)
        >>> torch_ao_ext.ops.contiguous(q).stride()
        (128, 16, 4, 1)
    """
    return torch.ops.torch_ao.contiguous(input)


@torch.library.register_fake("torch_ao::contiguous")
def _(input):
    _fake.check_tensor("contiguous", "input", input, (*_fake.QUANTIZED, *_fake.FLOAT))
    return input.new_empty(input.shape)
