"""An input of the wrong rank is named as such, before an axis or a size is looked for in it."""

import pytest
import torch

import torch_ao_ext  # noqa: F401  (registers the operators)

ops = torch.ops.torch_ao
U8, S8, S16, S32 = torch.uint8, torch.int8, torch.int16, torch.int32
SCALE, ZERO = torch.tensor(0.1), torch.tensor(0, dtype=S32)


def resize(mode, rank):
    image = torch.ones([2] * rank, dtype=U8)
    return ops.interpolate(image, 0.1, 0, 0.1, 0, None, [3] * (rank - 2), mode)


def sparse(*sizes):
    values = torch.ones(sizes, dtype=S8)
    offsets, columns = torch.tensor([0, 1], dtype=S32), torch.zeros(1, dtype=S16)
    return ops.sparse_linear_dynamic(torch.ones(1, 4), values, offsets, columns, [1, 4], torch.ones(1))


# op, argument, rule, call
CALLS = [
    ("quantize_per_channel", "input", "have at least 1 dimension,",
     lambda: ops.quantize_per_channel(torch.tensor(1.0), SCALE, ZERO, 0, 0, 255, U8)),
    ("dequantize_per_channel", "input", "have at least 1 dimension,",
     lambda: ops.dequantize_per_channel(torch.tensor(1, dtype=U8), SCALE, ZERO, 0)),
    ("quantize_per_token", "input", "have at least 1 dimension,",
     lambda: ops.quantize_per_token(torch.tensor(1.0), SCALE, ZERO, 0, 255, U8)),
    ("dequantize_per_token", "input", "have at least 1 dimension,",
     lambda: ops.dequantize_per_token(torch.tensor(1, dtype=U8), SCALE, ZERO)),
    ("lookup", "input", "have at least 1 dimension,",
     lambda: ops.lookup(torch.tensor(1, dtype=U8), torch.zeros(1, 256, dtype=U8), 0)),
    ("attention", "query", "have at least 2 dimensions,",
     lambda: ops.attention(*(torch.ones(2, dtype=U8), 0.1, 0) * 3)),
    ("interpolate", "input", "have 3 to 5 dimensions,", lambda: resize("nearest", 2)),
    ("interpolate", "input", "have 3 to 5 dimensions,", lambda: resize("nearest", 6)),
    ("interpolate", "input", "have 4 dimensions,", lambda: resize("bilinear", 3)),
    ("interpolate", "input", "have 4 dimensions,", lambda: resize("bilinear", 5)),
    ("sparse_linear_dynamic", "weight", "have 3 dimensions,", lambda: sparse(1, 4)),
    ("sparse_linear_dynamic", "weight", "have 3 dimensions,", lambda: sparse(1, 1, 4, 1)),
    ("_prepack_embedding", "weight", "have 2 dimensions,",
     lambda: ops._prepack_embedding(torch.ones(40, dtype=U8))),
]  # fmt: skip


@pytest.mark.parametrize(("op", "argument", "rule", "call"), CALLS)
def test_rank(op, argument, rule, call):
    with pytest.raises(ValueError, match=f"^torch_ao::{op}: argument '{argument}' must {rule} got sizes"):
        call()
