"""torch.ao's quantized tensors and modules as the oracle of the static modules."""

import warnings

import pytest
import torch

from torch_ao_ext._quantized_tensor import QuantizedTensor


def nnq():
    """Imported late and quietly: torch.ao warns of its own deprecation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.ao.nn.quantized as module

    return module


def ours(*shape, scale=0.05, zero_point=120, seed=1):
    """A QuantizedTensor of normal values, uint8."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    data = (x / scale + zero_point).round().clamp(0, 255).to(torch.uint8)
    return QuantizedTensor(data, scale, zero_point)


def theirs(q):
    """The same integers and qparams as torch's quantized tensor."""
    make = torch._make_per_tensor_quantized_tensor
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(q.int_repr(), q.q_scale(), q.q_zero_point())


def steps(q, peer):
    """Largest difference in integers; the qparams must agree."""
    assert tuple(q.shape) == tuple(peer.shape)
    assert q.q_scale() == pytest.approx(peer.q_scale(), rel=1e-6) and q.q_zero_point() == peer.q_zero_point()
    if q.numel() == 0:
        return 0
    return (q.int_repr().int() - peer.int_repr().int()).abs().max().item()
