"""Removes masked hidden units of an LSTM and the columns of the Linear behind it."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from torch_ao_ext.pruning._experimental.pruner._weights import cut_columns, drop_rows, row_mask
from torch_ao_ext.pruning.sparsifier.base_sparsifier import _unfollow_flat_weights

__all__ = ["prune_lstm_output_layernorm_linear", "prune_lstm_output_linear"]


def prune_lstm_output_linear(lstm: nn.LSTM, getitem: Any, linear: nn.Linear) -> None:
    """Prunes LSTM -> its output sequence -> Linear."""
    prune_lstm_output_layernorm_linear(lstm, getitem, None, linear)


@torch.no_grad()
def prune_lstm_output_layernorm_linear(
    lstm: nn.LSTM, getitem: Any, layernorm: nn.LayerNorm | None, linear: nn.Linear
) -> None:
    """Prunes LSTM -> its output sequence -> LayerNorm -> Linear.

    Every gate of every layer must keep the same number of rows, since they form the
    hidden state together; the columns that follow are those that the output gate
    keeps. The result equals the masked LSTM when all gates mask the same units and
    the biases of these units are zero.

    Raises:
        ValueError: When the counts differ, or for a bidirectional or projected LSTM.
    """
    if lstm.bidirectional or lstm.proj_size:
        raise ValueError("prune: an LSTM must have one direction and no projection to be pruned")
    if layernorm is not None and tuple(layernorm.normalized_shape) != (lstm.hidden_size,):
        raise ValueError(
            f"prune: the layer norm must be over the hidden size ({lstm.hidden_size}), "
            f"got {tuple(layernorm.normalized_shape)}"
        )
    masks = _gate_masks(lstm)
    before = None
    for i, (input_mask, gates) in enumerate(masks):
        name = f"weight_ih_l{i}"
        weight = getattr(lstm, name).detach()
        drop_rows(lstm, name, weight[input_mask] if before is None else weight[input_mask][:, before])
        name = f"weight_hh_l{i}"
        weight = getattr(lstm, name).detach()
        parts = zip(torch.split(weight, lstm.hidden_size), torch.split(gates, lstm.hidden_size), strict=True)
        drop_rows(lstm, name, torch.cat([part[keep][:, keep] for part, keep in parts]))
        if lstm.bias:
            for name, keep in ((f"bias_ih_l{i}", input_mask), (f"bias_hh_l{i}", gates)):
                bias = getattr(lstm, name)
                setattr(lstm, name, nn.Parameter(bias.detach()[keep], requires_grad=bias.requires_grad))
        before = torch.split(gates, lstm.hidden_size)[3]
    lstm.hidden_size = hidden = int(before.sum())
    _unfollow_flat_weights(lstm)
    cut_columns(linear, before)
    if layernorm is not None:
        layernorm.normalized_shape = (hidden,)
        for name in ("weight", "bias"):
            value = getattr(layernorm, name)
            if value is not None:
                setattr(
                    layernorm, name, nn.Parameter(value.detach()[before], requires_grad=value.requires_grad)
                )


def _gate_masks(lstm: nn.LSTM) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The input and hidden row masks of every layer, all gates keeping one count."""
    masks = []
    counts = set()
    for i in range(lstm.num_layers):
        pair = []
        for name in (f"weight_ih_l{i}", f"weight_hh_l{i}"):
            if not parametrize.is_parametrized(lstm, name):
                raise ValueError(
                    f"prune: all weights of an LSTM must be masked together, got none on {name!r}"
                )
            pair.append(row_mask(lstm, name))
            counts |= {int(gate.sum()) for gate in torch.split(pair[-1], lstm.hidden_size)}
        masks.append((pair[0], pair[1]))
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            f"prune: every gate of an LSTM must keep the same number of rows, got {sorted(counts)}"
        )
    return masks
