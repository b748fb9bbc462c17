"""Operators take tensors that require a gradient; differentiating them raises."""

import pytest
import torch
from op_samples import overload, samples


@pytest.mark.parametrize("name", [n for n in samples() if not n.startswith("_")])
def test_backward_raises_and_forward_does_not(name):
    torch.manual_seed(0)
    for args in samples()[name]:
        plain = overload(name)(*args)
        floats = [i for i, a in enumerate(args) if isinstance(a, torch.Tensor) and a.is_floating_point()]
        for i in floats:
            call = list(args)
            call[i] = args[i].detach().clone(memory_format=torch.preserve_format).requires_grad_()
            result = overload(name)(*call)
            outputs = result if isinstance(result, tuple) else (result,)
            expected = plain if isinstance(plain, tuple) else (plain,)
            for out, want in zip(outputs, expected, strict=True):
                assert torch.equal(out.detach(), want)
                assert out.requires_grad == out.is_floating_point()
                if out.requires_grad:
                    with pytest.raises(NotImplementedError, match=f"torch_ao::{name}: backward is not"):
                        out.sum().backward()
            with torch.no_grad():
                result = overload(name)(*call)
                assert not any(o.requires_grad for o in (result if isinstance(result, tuple) else (result,)))


def test_forward_mode_raises():
    x, w, s, *rest = samples()["linear_dynamic"][0]
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(NotImplementedError, match="torch_ao::linear_dynamic: forward-mode"):
            torch.ops.torch_ao.linear_dynamic(dual, w, s)
