"""From a pruned float model to sparse int8 layers in one call."""

import copy

import torch
from torch import nn

from torch_ao_ext.nn.sparse.quantized.dynamic import Linear
from torch_ao_ext.nn.sparse.quantized.utils import LinearBlockSparsePattern
from torch_ao_ext.ops.sparse_linear import BLOCKS

__all__ = ["to_sparse_int8"]


def _block_density(weight: torch.Tensor, block: tuple[int, int]) -> float:
    rows, columns = weight.shape
    padded = nn.functional.pad(weight, (0, -columns % block[1], 0, -rows % block[0]))
    blocks = padded.view(-(-rows // block[0]), block[0], -(-columns // block[1]), block[1])
    return (blocks != 0).any(3).any(1).float().mean().item()


def to_sparse_int8(model: nn.Module, min_sparsity: float = 0.5, inplace: bool = False) -> nn.Module:
    """Replaces each Linear whose weight has enough zero blocks by a sparse int8 layer.

    The block is the one of 1x4 and 8x1 with more zero blocks, unless pruning left
    `sparse_params["sparse_block_shape"]` on the layer. Inputs are quantized row by row.
    Call it after `squash_mask`. Other layers stay as they are: `quantize_dynamic` takes them afterwards.

    Args:
        model: float model.
        min_sparsity: least fraction of zero blocks, 0..1.
        inplace: change `model` itself rather than a copy.

    Returns:
        The model with layers `nn.sparse.quantized.dynamic.Linear`.

    Example:
        >>> import torch, torch_ao_ext
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8))
        >>> model[0].weight.data[:, 2:] = 0
        >>> torch_ao_ext.nn.sparse.quantized.to_sparse_int8(model)[0].block_shape
        (8, 1)
    """
    if not 0 <= min_sparsity <= 1:
        raise ValueError(f"to_sparse_int8: argument 'min_sparsity' must be in 0..1, got {min_sparsity}")
    if not inplace:
        model = copy.deepcopy(model)
    swapped: dict[nn.Module, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) is not nn.Linear:
                continue
            if child not in swapped:
                swapped[child] = _swap(child, min_sparsity)
            parent._modules[name] = swapped[child]
    return model


def _swap(layer: nn.Linear, min_sparsity: float) -> nn.Module:
    if layer.weight.numel() == 0:
        return layer
    given = getattr(layer, "sparse_params", {}).get("sparse_block_shape")
    candidates = BLOCKS if given is None or tuple(given) not in BLOCKS else (tuple(given),)
    density = {block: _block_density(layer.weight.detach(), block) for block in candidates}
    block = min(density, key=density.__getitem__)
    if 1 - density[block] < min_sparsity:
        return layer
    with LinearBlockSparsePattern(*block):
        return Linear.from_float(layer)
