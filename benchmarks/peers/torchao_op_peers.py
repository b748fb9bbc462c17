"""torchao's CPU operators alone: bags of int8 rows with one scale, attention, linear layers on 4-bit weights.

What ran: the kernel is torchao's own. Its wheel on the package index (0.18.0, x86-64) holds schemas without
kernels for CPU, so that these are listed as missing there.
"""

import torch
from torch import nn

SUM = 0  # of embedding_bag's modes


def _kernel(name):
    """An operator that torchao registers for CPU; RuntimeError where its library did not load."""
    import torchao  # noqa: F401

    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"torchao::{name}", "CPU"):
        raise RuntimeError(f"this wheel of torchao holds no CPU kernel {name}")
    return getattr(torch.ops.torchao, name).default


def int8_table(weight):
    """(int8 rows, their one scale): all that its embedding bag takes."""
    _kernel("_scaled_embedding_bag")
    scale = weight.abs().max() / 127
    return (weight / scale).round_().to(torch.int8), scale.reshape(1)


def embedding_bag_call(table, ends):
    """indices -> sums of bags.

    Args:
        table: of int8_table.
        ends: `[bags + 1]`, where bags start, and the number of indices.
    """
    (rows, scale), run = table, torch.ops.torchao._scaled_embedding_bag.default
    return lambda indices: run(rows, indices, ends, scale, 1.0, SUM, True, torch.float32)


class Bags(nn.Module):
    """Embedding bags (sums) on tables of int8_table.

    (indices `[tables, count]`, offsets `[bags]`) -> sums `[bags, tables, width]`.
    """

    def __init__(self, weights):
        super().__init__()
        for i, weight in enumerate(weights):
            for name, tensor in zip(("rows", "scale"), int8_table(weight), strict=True):
                self.register_buffer(f"{name}{i}", tensor)

    def forward(self, indices, offsets):
        ends = torch.cat([offsets, offsets.new_tensor([indices.shape[1]])])
        sums = []
        for i, of_table in enumerate(indices.unbind(0)):
            table = getattr(self, f"rows{i}"), getattr(self, f"scale{i}")
            sums.append(embedding_bag_call(table, ends)(of_table))
        return torch.stack(sums, 1)


def attention_call(quantized, factor, given, weight_scale, output):
    """A call without arguments: softmax(q @ k^T * factor) @ v on uint8 values.

    Args:
        quantized: gives q, k and v, each `[B, heads, L, E]`, in the call.
        given: (scale, zero point) of each.
        weight_scale: of the softmax in uint8.
        output: (scale, zero point).
    """
    run = _kernel("qscaled_dot_product")
    qparams = [number for pair in (*given, (weight_scale, 0), output) for number in pair]
    return lambda: run(*quantized(), None, 0.0, False, factor, *qparams)


def linear_4bit_call(w, group):
    """x `[M, K]` -> x @ w^T: inputs in 8 bits of a row, weights in 4 bits of a group (DA8W4)."""
    _kernel("da8w4_linear_cpu")
    from torchao.prototype.quantization.int4.int4_opaque_tensor import Int4OpaqueTensor
    from torchao.quantization.quant_primitives import MappingType

    packed = Int4OpaqueTensor.from_hp_da8w4(w, group, MappingType.ASYMMETRIC)
    return lambda x: torch.nn.functional.linear(x, packed)
