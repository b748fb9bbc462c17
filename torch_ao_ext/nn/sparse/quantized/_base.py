"""State that the static and the dynamic layer share: blocks, scales, bias."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._observed import QuantizedWeight, quantize_weight
from torch_ao_ext.nn.quantized._state import keep_dtypes
from torch_ao_ext.nn.quantized._weight import check_finite, quantize_rows, symmetric_row_scale
from torch_ao_ext.nn.sparse.quantized.utils import LinearBlockSparsePattern
from torch_ao_ext.ops.sparse_linear import BLOCKS, from_block_sparse, index_dtype, to_block_sparse

__all__: list[str] = []

_STATE = ("qweight", "row_offsets", "column_indices", "weight_scale", "qbias")
_DTYPES = {
    "qweight": (torch.int8,),
    "row_offsets": (torch.int32,),
    "column_indices": (torch.int16, torch.int32),
    "weight_scale": (torch.float32,),
    "qbias": (torch.float32,),
}


def weight_of(mod: nn.Module, who: str) -> QuantizedWeight:
    """int8 weight of a float layer, by its qconfig or by the default row rule."""
    weight = mod.weight.detach()
    qconfig = getattr(mod, "qconfig", None)
    if qconfig is None:
        check_finite(weight, "weight")
        scale = symmetric_row_scale(weight)
        return QuantizedWeight(quantize_rows(weight, scale), scale, None)
    quantized = quantize_weight(weight, qconfig)
    if quantized.zero_point is not None:
        raise ValueError(f"{who}: qconfig.weight must be symmetric (zero point 0), got an affine one")
    return quantized


def block_of(mod: nn.Module) -> tuple[int, int]:
    """The block shape that pruning left on the layer, or the one in force."""
    block = getattr(mod, "sparse_params", {}).get("sparse_block_shape")
    known = block is not None and tuple(block) in BLOCKS
    return tuple(block) if known else LinearBlockSparsePattern.block_size()


class SparseLinearBase(nn.Module):
    """Buffers `qweight`, `row_offsets`, `column_indices`, `weight_scale`, `qbias`, `format_version`."""

    def __init__(
        self, in_features: int, out_features: int, row_block_size: int, col_block_size: int, bias: bool
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        empty = torch.zeros(out_features, in_features, dtype=torch.int8)
        self.register_buffer("weight_scale", torch.ones(out_features))
        self.register_buffer("qbias", torch.zeros(out_features) if bias else None)
        self.register_buffer("format_version", torch.tensor(1))
        self._set_blocks(empty, (row_block_size, col_block_size))

    @classmethod
    def _from_saved(cls, args: dict[str, Any]) -> "SparseLinearBase":
        """An empty layer for the tensors of a file: what it claims takes no memory."""
        sizes = args["in_features"], args["out_features"]
        if not all(type(v) is int and v >= 0 for v in sizes):
            raise ValueError(f"in_features and out_features must be integers >= 0, got {sizes}")
        block = args["row_block_size"], args["col_block_size"]
        with torch.device("cpu"):
            new = cls(1, 1, *block, bias=args["bias"])
            new.in_features, new.out_features = sizes
            new.column_indices = new.column_indices.to(index_dtype(sizes[0], block[1]))
        return new

    def _set_blocks(self, dense: torch.Tensor, block: tuple[int, int]) -> None:
        if tuple(dense.shape) != (self.out_features, self.in_features):
            raise ValueError(
                f"{self._get_name()}: the weight must be [{self.out_features}, {self.in_features}], "
                f"got {list(dense.shape)}"
            )
        blocks = to_block_sparse(dense, block)
        self.register_buffer("qweight", blocks.weight)
        self.register_buffer("row_offsets", blocks.row_offsets)
        self.register_buffer("column_indices", blocks.column_indices)

    def _set_from(self, mod: nn.Module) -> None:
        quantized = weight_of(mod, self._get_name())
        self._set_blocks(quantized.data, block_of(mod))
        self.weight_scale = quantized.scale
        if mod.bias is not None:
            check_finite(mod.bias, "bias")
            self.qbias = mod.bias.detach().to(torch.float32, copy=True).contiguous()

    @property
    def block_shape(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        return self.qweight.shape[1], self.qweight.shape[2]

    def weight(self) -> QuantizedTensor:
        """The dense int8 weight with its scales (a copy)."""
        return QuantizedTensor(from_block_sparse(*self._blocks()), self.weight_scale)

    def bias(self) -> torch.Tensor | None:
        """The float32 bias `[N]`, or None."""
        return self.qbias

    def set_weight_bias(
        self,
        w: QuantizedTensor,
        b: torch.Tensor | None,
        row_block_size: int | None = None,
        col_block_size: int | None = None,
    ) -> None:
        """Replaces weight and bias; the blocks keep their shape unless one is given."""
        per_tensor = w.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric)
        points = torch.tensor(w.q_zero_point()) if per_tensor else w.q_per_channel_zero_points()
        if bool(points.any()):
            raise ValueError(f"{self._get_name()}.set_weight_bias: argument 'w' must have zero point 0")
        block = self.block_shape if row_block_size is None else (row_block_size, col_block_size)
        self._set_blocks(w.int_repr(), block)
        self.weight_scale = torch.tensor([w.q_scale()]) if per_tensor else w.q_per_channel_scales().float()
        self.qbias = None if b is None else b.detach().to(torch.float32, copy=True).contiguous()

    def _blocks(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
        b = self._buffers
        return b["qweight"], b["row_offsets"], b["column_indices"], [self.out_features, self.in_features]

    def _apply(self, fn: Any, recurse: bool = True) -> "SparseLinearBase":
        inner = super()._apply
        keep_dtypes(self, ("weight_scale", "qbias"), lambda: inner(fn, recurse))
        return self

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        # Every length depends on the file: take over the shapes, then copy as usual. The
        # operator checks all indices when it packs them.
        for name in _STATE:
            value = state_dict.get(prefix + name)
            if value is None:
                if name == "qbias":
                    self._buffers[name] = None
            elif value.dtype not in _DTYPES[name]:
                error_msgs.append(f"{prefix}{name} must have dtype {_DTYPES[name][0]}, got {value.dtype}")
                return
            else:
                self._buffers[name] = torch.empty_like(value, device=self.format_version.device)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def extra_repr(self) -> str:
        """Shape, blocks and fraction of the weight inside blocks."""
        density = self.qweight.numel() / max(1, self.out_features * self.in_features)
        rows, columns = self.block_shape
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.qbias is not None}, blocks={rows}x{columns}, density={density:.3f}"
        )
