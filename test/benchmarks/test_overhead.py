"""Cost of a call: candidates of a row give one answer, and a wrong one is found."""

import warnings

import pytest
import torch

from benchmarks.harness import peers
from benchmarks.ops import overhead


@pytest.fixture(autouse=True)
def _x86(_warnings_are_errors):
    """As the benchmark runs; torch.ao's tensors warn of their dtypes."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    peers.ours()
    with torch.no_grad(), peers.quantized_engine("x86"):
        yield


@pytest.mark.parametrize("make", [
    overhead.linear, overhead.linear_dynamic, overhead.conv2d, overhead.add, overhead.relu,
], ids=lambda f: f.__name__)  # fmt: skip
def test_candidates_agree(make):
    table = make(peers.Missing())
    assert {overhead.FP32, overhead.AO, overhead.OURS} <= set(table)
    assert overhead.answer_failures(table) == []


@pytest.mark.parametrize("make", [overhead.linear, overhead.conv2d], ids=lambda f: f.__name__)
def test_operators_of_torchao_are_rows(make):
    table = make(peers.Missing())
    wrong = table[overhead.LOWERED]().int() + 2
    (found,) = overhead.answer_failures({**table, overhead.LOWERED: lambda: wrong})
    assert found == "torchao lowered is 2 away"


def test_the_layer_of_torchao_is_int8():
    pytest.importorskip("torchao")
    missing = peers.Missing()
    table = overhead.linear_dynamic(missing)
    assert overhead.DYNAMIC in table and not missing.as_dict()
    answer = table[overhead.DYNAMIC]()
    assert not torch.equal(answer, table[overhead.FP32]())  # 8 bits
    (found,) = overhead.answer_failures({**table, overhead.DYNAMIC: lambda: 1.2 * answer})
    assert found.startswith("torchao dynamic is ")


def test_a_layer_without_integer_products_is_no_peer(monkeypatch):
    pytest.importorskip("torchao")
    monkeypatch.setattr(overhead.torchao_peer, "quantized", lambda model: model)
    missing = peers.Missing()
    assert overhead.DYNAMIC not in overhead.linear_dynamic(missing)
    assert "no int8 peer" in missing.as_dict()[overhead.DYNAMIC]
