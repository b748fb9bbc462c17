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
    """All embedding bags of a model in one operator."""

    def __init__(self, tables):
        super().__init__()
        from fbgemm_gpu.split_embedding_configs import SparseType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
            IntNBitTableBatchedEmbeddingBagsCodegen,
        )

        specs = [
            (f"t{i}", t.num_embeddings, t.embedding_dim, SparseType.INT8, EmbeddingLocation.HOST)
            for i, t in enumerate(tables)
        ]
        self.bags = IntNBitTableBatchedEmbeddingBagsCodegen(specs, device="cpu", output_dtype=SparseType.FP32)
        self.bags.initialize_weights()
        width = self.bags.scale_bias_size_in_bytes
        for table, (rows, scale_bias) in zip(
            tables, self.bags.split_embedding_weights(split_scale_shifts=True), strict=True
        ):
            values, scale, bias = quantized_rows(table.weight)
            rows.copy_(values)
            scale_bias.copy_(torch.stack([scale, bias], 1).half().view(torch.uint8)[:, :width])
        self.width = tables[0].embedding_dim

    def forward(self, indices, offsets):
        batch = len(offsets)
        count = indices.shape[1]
        starts = (torch.arange(len(indices))[:, None] * count + offsets).flatten()
        ends = torch.tensor([indices.numel()])
        flat = self.bags(indices.flatten().int(), torch.cat([starts, ends]).int())
        return flat.view(batch, -1, self.width)


def quantized_rows(weight):
    """(uint8 values, scale, bias) by row: value * scale + bias."""
    low, high = weight.amin(1), weight.amax(1)
    scale = ((high - low) / 255).half().float()
    low = low.half().float()
    values = ((weight - low[:, None]) / scale[:, None]).round().clamp(0, 255).to(torch.uint8)
    return values, scale, low


def tables(case):
    """The workload's `bags` in FBGEMM, its linear layers by torch.ao."""
    own = Tables(case.model.bags.tables)
    floats = copy.copy(case.model)
    floats._modules = {**case.model._modules, "bags": nn.Identity()}  # no copy of the tables
    model = peers.torch_ao_dynamic(floats, "x86")
    model.bags = own
    integer, _ = executed(model)
    kinds = {str(getattr(spec[3], "value", spec[3])) for spec in own.bags.embedding_specs}
    if kinds != {"int8"}:
        raise RuntimeError(f"no int8 peer: tables of {kinds}")
    return Built(
        model,
        f"{len(case.model.bags.tables)} int8 tables in one operator; {integer.total()} int8 linear layers",
    )
