"""Hidden units of LSTMs: shapes as in torch.ao, values where the masks allow equality."""

import pytest
import torch
from pruning_peer import peer
from torch import nn

from torch_ao_ext.pruning._experimental.pruner import BaseStructuredSparsifier, LSTMSaliencyPruner


class Net(nn.Module):
    def __init__(self, normal=False, state=False, **options):
        super().__init__()
        torch.manual_seed(6)
        self.lstm = nn.LSTM(5, 8, **{"num_layers": 2, **options})
        self.norm = nn.LayerNorm(8) if normal else None
        self.linear = nn.Linear(8, 3)
        self.state = state

    def forward(self, x):
        x, state = self.lstm(x)
        if self.norm is not None:
            x = self.norm(x)
        return (self.linear(x), state) if self.state else self.linear(x)


class Units(BaseStructuredSparsifier):
    """Masks the same hidden units in every gate."""

    def update_mask(self, module, tensor_name, **kwargs):
        module.parametrizations[tensor_name][0].mask.view(4, 8)[:, [1, 4, 6]] = False


def config(layers=2):
    return [{"tensor_fqn": f"lstm.weight_{k}_l{i}"} for i in range(layers) for k in ("ih", "hh")]


@pytest.mark.parametrize("bias", [True, False])
def test_equal_to_the_masked_model(bias):
    m = Net(bias=bias)
    if bias:
        for name in ("bias_ih_l0", "bias_hh_l0", "bias_ih_l1", "bias_hh_l1"):
            getattr(m.lstm, name).data.view(4, 8)[:, [1, 4, 6]] = 0
    pruner = Units({})
    pruner.prepare(m, config())
    pruner.step()
    x = torch.randn(7, 2, 5)
    expected = m(x)
    pruned = pruner.prune()
    torch.testing.assert_close(pruned(x), expected)
    assert pruned.lstm.hidden_size == 5 and pruned.linear.in_features == 5
    assert [p.shape for n, p in pruned.lstm.named_parameters() if n.startswith("weight_ih")] == [
        (20, 5),
        (20, 5),
    ]


@pytest.mark.parametrize("normal", [False, True])
def test_result_equals_torch_aos(normal):
    outs, x = [], torch.randn(4, 2, 5)
    for kind in (LSTMSaliencyPruner, peer("_experimental.pruner").LSTMSaliencyPruner):
        m = Net(normal)
        pruner = kind({"sparsity_level": 0.5})
        pruner.prepare(m, config())
        pruner.step()
        pruned = pruner.prune()
        outs.append((pruned(x), {k: v.shape for k, v in pruned.state_dict().items()}))
    assert outs[0][1] == outs[1][1]
    torch.testing.assert_close(outs[0][0], outs[1][0])


def test_the_state_may_be_returned():
    m = Net(state=True)
    pruner = LSTMSaliencyPruner({"sparsity_level": 0.5})
    pruner.prepare(m, config())
    pruner.step()
    out, (h, c) = pruner.prune()(torch.randn(4, 2, 5))
    assert out.shape == (4, 2, 3) and h.shape == c.shape == (2, 2, 4)


class OneGate(BaseStructuredSparsifier):
    def update_mask(self, module, tensor_name, **kwargs):
        module.parametrizations[tensor_name][0].mask[0] = False


@pytest.mark.parametrize(
    "m, kind, config, text",
    [
        (Net(bidirectional=True, num_layers=1), Units, config(1), "one direction and no projection"),
        (Net(), Units, config(1), "must be masked together, got none on 'weight_ih_l1'"),
        (Net(num_layers=1), OneGate, config(1), r"must keep the same number of rows, got \[7, 8\]"),
    ],
)
def test_refusals(m, kind, config, text):
    if m.lstm.bidirectional:
        m.linear = nn.Linear(16, 3)
    pruner = kind({})
    pruner.prepare(m, config)
    pruner.step()
    with pytest.raises(ValueError, match=text):
        pruner.prune()
