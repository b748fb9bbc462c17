"""torchao's CPU operators alone: bags of int8 rows with one scale, and linear layers on 4-bit weights.

What ran: the kernel is torchao's own. Its wheel on the package index (0.18.0, x86-64) holds schemas without
kernels for CPU, so that both are listed as missing there.
"""

import torch

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
    kernel, (rows, scale) = _kernel("_scaled_embedding_bag"), table
    return lambda indices: kernel(rows, indices, ends, scale, 1.0, SUM, True, torch.float32)


def linear_4bit_call(w, group):
    """x `[M, K]` -> x @ w^T: inputs in 8 bits of a row, weights in 4 bits of a group (DA8W4)."""
    _kernel("da8w4_linear_cpu")
    from torchao.prototype.quantization.int4.int4_opaque_tensor import Int4OpaqueTensor
    from torchao.quantization.quant_primitives import MappingType

    packed = Int4OpaqueTensor.from_hp_da8w4(w, group, MappingType.ASYMMETRIC)
    return lambda x: torch.nn.functional.linear(x, packed)
