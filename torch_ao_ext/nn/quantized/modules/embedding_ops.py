"""Embedding tables of 8-, 4- or 2-bit rows in place of nn.Embedding and nn.EmbeddingBag."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized import _rows
from torch_ao_ext.nn.quantized._packed_embedding import EmbeddingPackedParams
from torch_ao_ext.nn.quantized._state import CheckedLoad
from torch_ao_ext.nn.quantized._weight import check_finite

__all__ = ["Embedding", "EmbeddingBag", "EmbeddingPackedParams"]

# Looked up once: attribute walks through torch.ops cost more than a short lookup.
_embedding = torch.ops.torch_ao.embedding.default
_embedding_bag = torch.ops.torch_ao.embedding_bag.default

_QUINT8 = getattr(torch, "quint8", torch.uint8)
_DTYPES = {8: _QUINT8, 4: getattr(torch, "quint4x2", None), 2: getattr(torch, "quint2x4", None)}


class Embedding(CheckedLoad):
    r"""y[i] = scale[r] * code[r] + bias[r] with r = indices[i].

    Names and constructor follow `torch.ao.nn.quantized.Embedding`, but the state is
    plain tensors, the same in every file format and on every machine:

    - `qweight` uint8 `[num_embeddings, bytes]`: torch's fused rows, see `ops.embedding`
    - `row_format` int64 `[3]`: bits, embedding_dim, 1 for a bfloat16 output; `format_version`

    Indices of any shape `[*]`, int32 or int64; output `[*, embedding_dim]` in the dtype
    of the float layer. An index out of range raises. Inference only.

    Args:
        num_embeddings: rows.
        embedding_dim: D.
        padding_idx: kept for the printed form; its row is what the float layer had.
        max_norm: not used; `from_float` applies the float layer's to the rows.
        norm_type: not used.
        scale_grad_by_freq: not used.
        sparse: not used.
        _weight: see `set_weight`; zeros when None.
        dtype: torch.quint8 (or uint8), quint4x2 or quint2x4.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.quantized.Embedding(10, 12)
        >>> layer(torch.tensor([9, 6, 5])).shape
        torch.Size([3, 12])
    """

    # torch.jit.script would compile it.
    __jit_unused_properties__ = ["dtype"]

    num_embeddings: int
    embedding_dim: int
    bits: int
    bfloat16: bool
    padding_idx: int | None
    qweight: torch.Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        dtype: torch.dtype = _QUINT8,
    ) -> None:
        super().__init__()
        del max_norm, norm_type, scale_grad_by_freq, sparse
        self._start(num_embeddings, embedding_dim, padding_idx, dtype)
        if _weight is not None:
            self.set_weight(_weight)

    def _start(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, dtype: torch.dtype
    ) -> None:
        if dtype not in _rows.BITS:
            raise ValueError(
                f"{type(self).__name__}: argument 'dtype' must be torch.quint8, quint4x2 or "
                f"quint2x4, got {dtype}"
            )
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.register_buffer("qweight", None)
        self.register_buffer("format_version", torch.tensor(self._FORMAT_VERSION))
        self._set_format(_rows.BITS[dtype], bfloat16=False)
        zeros = torch.zeros(num_embeddings)
        codes = torch.zeros(num_embeddings, embedding_dim, dtype=torch.uint8)
        self.qweight = _rows.fuse_rows(_rows.Rows(codes, zeros + 1, zeros), self.bits)

    def _set_format(self, bits: int, bfloat16: bool) -> None:
        # Python values for forward, and a buffer so that every file format keeps them.
        self.bits = bits
        self.bfloat16 = bfloat16
        form = torch.tensor([bits, self.embedding_dim, int(bfloat16)])
        self.register_buffer("row_format", form)

    @property
    def dtype(self) -> torch.dtype:
        """torch.quint8, quint4x2 or quint2x4: torch.ao's name of the width."""
        return _DTYPES[self.bits]

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """`[*]` -> `[*, embedding_dim]`."""
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        if torch.jit.is_scripting():
            y = torch.ops.torch_ao.embedding(
                self.qweight, indices, self.bits, self.embedding_dim, None, dtype
            )
        else:
            y = _embedding(
                self._buffers["qweight"], indices, self.bits, self.embedding_dim, None, dtype
            )
        return y

    def prepack(self) -> None:
        """Puts a large table on huge pages, where the system has them; values stay."""
        torch.ops.torch_ao._prepack_embedding(self.qweight)

    def weight(self) -> QuantizedTensor:
        """The codes, uint8 `[num_embeddings, embedding_dim]`, with float qparams per row."""
        return _rows.as_quantized_tensor(
            _rows.split_rows(self.qweight, self.bits, self.embedding_dim)
        )

    def set_weight(self, w: Any) -> None:
        """Replaces the table.

        Args:
            w: QuantizedTensor, or any object with `int_repr()`, `dtype` and per-channel
                qparams on axis 0 (torch's quint8 and quint4x2 tensors).

        Raises:
            ValueError: wrong shape, dtype or axis.
        """
        shape = (self.num_embeddings, self.embedding_dim)
        try:
            self.qweight = _rows.fuse_rows(_rows.rows_of_weight(w, self.bits, shape), self.bits)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}.set_weight: {error}") from error

    @classmethod
    def _check_float(cls, mod: nn.Module, kind: type[nn.Module]) -> Any:
        """The weight observer for `mod`, or None."""
        if not isinstance(mod, kind):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.{kind.__name__}, "
                f"got {type(mod).__name__}"
            )
        if not hasattr(mod, "qconfig"):
            raise ValueError(f"{cls.__name__}.from_float: argument 'mod' must have a qconfig")
        if hasattr(mod, "weight_fake_quant"):
            return mod.weight_fake_quant
        return _rows.row_observer(mod.qconfig)

    def _take_float(self, mod: nn.Module, observer: Any) -> None:
        weight = _rows.clipped_weight(mod)
        check_finite(weight, "weight")
        if observer is None:
            self._set_format(8, weight.dtype == torch.bfloat16)
            source = weight if weight.dtype in (torch.float32, torch.bfloat16) else weight.float()
            self.qweight = torch.ops.torch_ao.embedding_prepack(source, 8)
        else:
            rows = _rows.observed_rows(weight, observer)
            self._set_format(_rows.check_observer(observer), weight.dtype == torch.bfloat16)
            self.qweight = _rows.fuse_rows(rows, self.bits)
        self.eval()

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "Embedding":
        """Quantized copy of a float nn.Embedding whose `qconfig` is set.

        A `weight_fake_quant` (QAT) is the observer; else the qconfig's weight observer;
        without one 8 bits by the rule of `ops.embedding_prepack`.

        Raises:
            ValueError: wrong type, no qconfig, an unsupported one, a weight that is not finite.
        """
        del use_precomputed_fake_quant
        observer = cls._check_float(mod, nn.Embedding)
        new = cls(0, mod.embedding_dim, mod.padding_idx)
        new.num_embeddings = mod.num_embeddings
        new._take_float(mod, observer)
        return new

    @classmethod
    def from_reference(cls, ref_embedding: Any) -> "Embedding":
        """From a layer of `nn.quantized.reference` (torch.ao's, too) with quint8 or quint4x2 rows."""
        return cls(
            ref_embedding.num_embeddings,
            ref_embedding.embedding_dim,
            ref_embedding.padding_idx,
            _weight=_rows.reference_weight(ref_embedding),
            dtype=ref_embedding.weight_dtype,
        )

    @classmethod
    def _from_saved(cls, args: dict[str, Any]) -> "Embedding":
        """Without a table: `load_quantized` brings it, see `_saved.registry`."""
        with torch.device("cpu"):
            new = cls(**{**args, "num_embeddings": 0})
        new.num_embeddings = args["num_embeddings"]
        stored = (new.num_embeddings, new.qweight.shape[1])
        new.qweight = torch.empty(stored, dtype=torch.uint8, device="meta")
        return new

    def _take_form(self, state_dict: dict[str, Any], prefix: str) -> str | None:
        """Takes the width of a file, which is data; not its dimension, which is the model's."""
        form = state_dict.get(prefix + "row_format")
        if form is None:
            return None
        values = form.tolist() if form.shape == (3,) else [0, 0, 0]
        bits, dim, low = values
        if bits not in _DTYPES or dim != self.embedding_dim or low not in (0, 1):
            return f"{prefix}row_format must be [8, 4 or 2, {self.embedding_dim}, 0 or 1], got {values}"
        if bits != self.bits:
            in_byte = 8 // bits
            stored = -(-dim // in_byte) + (8 if bits == 8 else 4)
            self.qweight = self.qweight.new_empty((self.num_embeddings, stored))
        self._set_format(bits, bool(low))
        return None

    def _get_name(self) -> str:
        return f"Quantized{type(self).__name__}"

    def extra_repr(self) -> str:
        """Shape and width, as print(model) shows them."""
        text = f"num_embeddings={self.num_embeddings}, embedding_dim={self.embedding_dim}"
        return f"{text}, dtype={self.dtype}, qscheme={torch.per_channel_affine_float_qparams}"


class EmbeddingBag(Embedding):
    r"""y[b] = sum, mean or max over bag b of the rows of `Embedding`.

    As `torch.ao.nn.quantized.EmbeddingBag`, whose `mode` and `padding_idx` are honoured
    here. Indices `[B, L]`, or `[n]` with offsets; see `ops.embedding_bag`.

    Args:
        num_embeddings: rows.
        embedding_dim: D.
        max_norm: not used; `from_float` applies the float layer's to the rows.
        norm_type: not used.
        scale_grad_by_freq: not used.
        mode: 'sum', 'mean' or 'max'.
        sparse: not used.
        _weight: see `set_weight`; zeros when None.
        include_last_offset: the last offset is the end of the last bag.
        dtype: torch.quint8 (or uint8), quint4x2 or quint2x4.
        padding_idx: indices equal to it are not counted.

    Example:
        >>> import torch, torch_ao_ext
        >>> layer = torch_ao_ext.nn.quantized.EmbeddingBag(10, 12, mode="mean")
        >>> layer(torch.tensor([9, 6, 5, 7]), torch.tensor([0, 3])).shape
        torch.Size([2, 12])
    """

    mode: str
    include_last_offset: bool

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "sum",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        dtype: torch.dtype = _QUINT8,
        padding_idx: int | None = None,
    ) -> None:
        nn.Module.__init__(self)
        del max_norm, norm_type, scale_grad_by_freq, sparse
        if mode not in ("sum", "mean", "max"):
            raise ValueError(
                f"EmbeddingBag: argument 'mode' must be 'sum', 'mean' or 'max', got {mode!r}"
            )
        self.mode = mode
        self.include_last_offset = include_last_offset
        self._start(num_embeddings, embedding_dim, padding_idx, dtype)
        if _weight is not None:
            self.set_weight(_weight)

    def forward(
        self,
        indices: torch.Tensor,
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
        compressed_indices_mapping: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`[B, L]`, or `[n]` and offsets -> `[B, embedding_dim]`."""
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        if torch.jit.is_scripting():
            y = torch.ops.torch_ao.embedding_bag(
                self.qweight,
                indices,
                offsets,
                self.bits,
                self.embedding_dim,
                self.mode,
                per_sample_weights,
                self.include_last_offset,
                self.padding_idx,
                compressed_indices_mapping,
                dtype,
            )
        else:
            y = _embedding_bag(
                self._buffers["qweight"],
                indices,
                offsets,
                self.bits,
                self.embedding_dim,
                self.mode,
                per_sample_weights,
                self.include_last_offset,
                self.padding_idx,
                compressed_indices_mapping,
                dtype,
            )
        return y

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> "EmbeddingBag":
        """Quantized copy of a float nn.EmbeddingBag; see `Embedding.from_float`."""
        del use_precomputed_fake_quant
        observer = cls._check_float(mod, nn.EmbeddingBag)
        new = cls(
            0,
            mod.embedding_dim,
            mode=mod.mode,
            include_last_offset=mod.include_last_offset,
            padding_idx=mod.padding_idx,
        )
        new.num_embeddings = mod.num_embeddings
        new._take_float(mod, observer)
        return new

    @classmethod
    def from_reference(cls, ref_embedding: Any) -> "EmbeddingBag":
        """From a layer of `nn.quantized.reference` (torch.ao's, too) with quint8 or quint4x2 rows."""
        return cls(
            ref_embedding.num_embeddings,
            ref_embedding.embedding_dim,
            mode=ref_embedding.mode,
            _weight=_rows.reference_weight(ref_embedding),
            include_last_offset=ref_embedding.include_last_offset,
            dtype=ref_embedding.weight_dtype,
            padding_idx=getattr(ref_embedding, "padding_idx", None),
        )

    def extra_repr(self) -> str:
        """Shape, width and mode, as print(model) shows them."""
        return f"{super().extra_repr()}, mode={self.mode}"
