"""OpenVINO's sparse weights: a dense product is no sparse peer, the model computes the operator's rule."""

from collections import Counter

import pytest
import torch

from benchmarks.peers import sparse_peers


@pytest.mark.parametrize("found", [
    {"FullyConnected brgemm_avx512_I8": 1}, {"FullyConnected brgemm_sparse_avx512_amx_bf16": 1},
    {"FullyConnected brgemm_sparse_avx512_amx_I8": 2}, {},
])  # fmt: skip
def test_other_products_are_refused(found):
    with pytest.raises(RuntimeError, match="asked for sparse weights .*, ran (1|2|none)"):
        sparse_peers.checked(Counter(found))


def test_a_sparse_product_passes():
    sparse_peers.checked(Counter({"FullyConnected brgemm_sparse_avx512_amx_I8": 1}))


def test_openvino_has_one_integer_product_of_the_rule(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    found = []
    monkeypatch.setattr(sparse_peers, "checked", found.append)
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 128, (4, 64), generator=g, dtype=torch.uint8)
    w = torch.randint(-128, 128, (128, 64), generator=g).to(torch.int8)
    w[:, 8:] = 0
    scale, bias = torch.rand(128, generator=g) * 0.01 + 0.001, torch.randn(128, generator=g)
    call = sparse_peers.openvino_call(x, (0.1, 3), w, scale, bias, (0.5, 9), 1, tmp_path)
    real = ((x.double() - 3) * 0.1) @ (w.double() * scale.double()[:, None]).t() + bias.double()
    want = (torch.round(real / 0.5) + 9).clamp(0, 255)
    assert call().dtype == torch.uint8 and (call().double() - want).abs().max() <= 1
    assert len(want.unique()) > 20
    (ran,) = found
    assert ran.total() == 1 and all(name.endswith("I8") for name in ran)
