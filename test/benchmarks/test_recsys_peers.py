"""torchao on recommender models: what ran is said of layers and tables, what its wheel lacks is a reason."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.models import recsys_model
from benchmarks.peers import case, registry

OFFSETS, COUNT = torch.tensor([0, 3, 3]), 8


class Small(nn.Module):
    """Two linear layers behind two tables."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.bags = recsys_model.Bags.__new__(recsys_model.Bags)
        nn.Module.__init__(self.bags)
        self.bags.tables = nn.ModuleList(nn.EmbeddingBag(50, 32, mode="sum") for _ in range(2))
        self.top = recsys_model.mlp(64, 32, 16)

    def forward(self, indices, offsets):
        return self.top(self.bags(indices, offsets).flatten(1))


def indices(seed=0):
    return torch.randint(50, (2, COUNT), generator=torch.Generator().manual_seed(seed))


def small_case(folder):
    workload = SimpleNamespace(
        make=Small, samples=lambda seed: (indices(seed), OFFSETS), families=(registry.BAGS,),
        transformer=False, onnx_by_dynamo=False,
    )  # fmt: skip
    return case.Case(workload, 1, folder)


@pytest.fixture
def kernel():
    """torchao's operator by its rule, as its wheel holds none."""
    pytest.importorskip("torchao")
    from benchmarks.peers import torchao_op_peers

    if torch._C._dispatch_has_kernel_for_dispatch_key("torchao::_scaled_embedding_bag", "CPU"):
        yield torchao_op_peers
        return

    def rule(rows, indices, offsets, scale, out_scale, mode, last, dtype):
        assert (out_scale, mode, last) == (1.0, 0, True)
        real = rows.to(dtype) * scale
        return F.embedding_bag(indices, real, offsets, mode="sum", include_last_offset=True)

    library = torch.library.Library("torchao", "IMPL")
    library.impl("_scaled_embedding_bag", rule, "CPU")
    yield torchao_op_peers
    library._destroy()


@torch.no_grad()
def test_tables_of_the_lowered_graph_stay_float(tmp_path):
    pytest.importorskip("torchao")
    from benchmarks.peers import torchao_peer

    small = small_case(tmp_path)
    built = torchao_peer.pt2e_lowered(small)
    assert built.ran == "2 of 2 layers on integers (2 qlinear_pointwise); 2 tables in float32"
    want, got = small.model(*small.inputs), built.call(*small.inputs)
    assert 0 < (got - want).abs().max() < 0.05 * want.abs().max()


def test_copies_share_the_tables_alone():
    pytest.importorskip("torchao")
    from benchmarks.peers import torchao_peer

    model = Small()
    copied = torchao_peer._copy(model)
    assert all(a.weight is b.weight for a, b in zip(copied.bags.tables, model.bags.tables, strict=True))
    assert copied.top[0].weight is not model.top[0].weight


def test_without_a_kernel_the_bags_are_missing(tmp_path):
    pytest.importorskip("torchao")
    from benchmarks.peers import torchao_op_peers, torchao_peer

    if torch._C._dispatch_has_kernel_for_dispatch_key("torchao::_scaled_embedding_bag", "CPU"):
        pytest.skip("this torchao has the kernel")
    with pytest.raises(RuntimeError, match="this wheel of torchao holds no CPU kernel _scaled_embedding_bag"):
        torchao_peer.int8_bags(small_case(tmp_path))
    with pytest.raises(RuntimeError, match="no CPU kernel"):
        torchao_op_peers.int8_table(torch.ones(2, 4))


@torch.no_grad()
def test_bags_are_those_of_the_float_tables(kernel):
    model = Small()
    own = kernel.Bags([table.weight for table in model.bags.tables])
    want, got = model.bags(indices(), OFFSETS), own(indices(), OFFSETS)
    most = max(table.weight.abs().max() for table in model.bags.tables) / 127 / 2  # of a value
    assert got.shape == want.shape and 0 < (got - want).abs().max() <= 1.01 * most * 5  # 5 in the longest bag


def test_recommender_models_have_torchao_in_every_form():
    names = {c.name for c in registry.CANDIDATES if registry.BAGS in c.families and c.kind == registry.TORCH}
    assert names == {
        "torch.ao dynamic x86", "torchao dynamic + compile", "torchao int8 bags + compile",
        "torchao pt2e + compile", "torchao pt2e lowered",
    }  # fmt: skip
