"""Band masks."""

import pytest
import torch
from pruning_peer import peer
from torch import nn

from torch_ao_ext.pruning import NearlyDiagonalSparsifier


def prepared(kind, nearliness, shape):
    m = nn.Sequential(nn.Linear(shape[1], shape[0]))
    s = kind(nearliness=nearliness)
    s.prepare(m, None)
    return m, s


@pytest.mark.parametrize("nearliness", [-1, 0, 1, 3, 7])
@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5)])
def test_masks_equal_torch_aos(nearliness, shape):
    masks = []
    for kind in (NearlyDiagonalSparsifier, peer().NearlyDiagonalSparsifier):
        m, s = prepared(kind, nearliness, shape)
        s.step()
        masks.append(m[0].parametrizations.weight[0].mask)
    assert torch.equal(*masks)


@pytest.mark.parametrize("nearliness, text", [(2, "must be odd, got 2"), (11, "got 11 for shape")])
def test_wrong_nearliness_leaves_the_mask(nearliness, text):
    m, s = prepared(NearlyDiagonalSparsifier, nearliness, (8, 5))
    with pytest.raises(ValueError, match=text):
        s.step()
    assert bool(m[0].parametrizations.weight[0].mask.all())
