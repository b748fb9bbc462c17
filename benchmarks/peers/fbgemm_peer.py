"""FBGEMM's table-batched embedding in 8 bits, with torch.ao's dynamic int8 linear layers around it.

What ran: the weight type of its tables.
"""

import copy

import torch
from torch import nn

from benchmarks.harness import peers
from benchmarks.peers.case import Built
from benchmarks.peers.torch_ao_peer import executed


class Tables(nn.Module):
    """Embedding bags (sums) on rows of 8 or 4 bits, all tables in one operator.

    (indices `[tables, count]`, offsets `[bags]`) -> sums `[bags, tables, width]`.
    """

    def __init__(self, weights, bits=8):
        super().__init__()
        from fbgemm_gpu.split_embedding_configs import SparseType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
            IntNBitTableBatchedEmbeddingBagsCodegen,
        )

        kind = {8: SparseType.INT8, 4: SparseType.INT4}[bits]
        specs = [(f"t{i}", *w.shape, kind, EmbeddingLocation.HOST) for i, w in enumerate(weights)]
        self.bags = IntNBitTableBatchedEmbeddingBagsCodegen(specs, device="cpu", output_dtype=SparseType.FP32)
        self.bags.initialize_weights()
        places = self.bags.split_embedding_weights(split_scale_shifts=True)
        for weight, (rows, scale_bias) in zip(weights, places, strict=True):
            values, halves = quantized_rows(weight, bits)
            rows.copy_(values)
            scale_bias.copy_(halves)
        self.width = weights[0].shape[1]

    @property
    def kinds(self):
        """Types of the rows that the operator holds."""
        return {str(getattr(spec[3], "value", spec[3])) for spec in self.bags.embedding_specs}

    def forward(self, indices, offsets):
        starts = (torch.arange(len(indices))[:, None] * indices.shape[1] + offsets).flatten()
        ends = torch.tensor([indices.numel()])
        return self.bags(indices.flatten(), torch.cat([starts, ends])).view(len(offsets), -1, self.width)


def quantized_rows(weight, bits):
    """(packed uint8 values, 4 bytes a row: scale and bias as halves); a value is q * scale + bias."""
    if bits == 4:
        rows = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(weight, 4)
        return rows[:, :-4], rows[:, -4:]
    low, high = weight.amin(1), weight.amax(1)
    scale, bias = ((high - low) / 255).half(), low.half()
    values = ((weight - bias.float()[:, None]) / scale.float()[:, None]).round().clamp(0, 255)
    return values.to(torch.uint8), torch.stack([scale, bias], 1).view(torch.uint8)


def tables(case):
    """The workload's `bags` in FBGEMM, its linear layers by torch.ao."""
    own = Tables([table.weight for table in case.model.bags.tables])
    floats = copy.copy(case.model)
    floats._modules = {**case.model._modules, "bags": nn.Identity()}  # no copy of the tables
    model = peers.torch_ao_dynamic(floats, "x86")
    model.bags = own
    integer, _ = executed(model)
    if own.kinds != {"int8"}:
        raise RuntimeError(f"no int8 peer: tables of {own.kinds}")
    ran = f"{len(case.model.bags.tables)} int8 tables in one operator; {integer.total()} int8 linear layers"
    return Built(model, ran)
