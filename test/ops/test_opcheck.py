import pytest
import torch
from op_samples import SERVICE, overload, registered, samples

CALLS = {name: len(calls) for name, calls in samples().items()}
CASES = [(name, i) for name, count in CALLS.items() for i in range(count)]


def test_every_overload_has_samples():
    assert registered() == set(CALLS) | SERVICE
    assert all(count >= 5 for count in CALLS.values())


def call_of(name, index):
    torch.manual_seed(0)
    return samples()[name][index]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_opcheck(name, index):
    args = call_of(name, index)
    op = overload(name)
    torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))
    if not name.startswith("_prepack"):  # no output to trace
        torch.library.opcheck(op, args, test_utils="test_aot_dispatch_dynamic")
    if any(isinstance(a, torch.Tensor) and a.is_floating_point() for a in args):
        grads = tuple(
            a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
            for a in args
        )
        torch.library.opcheck(op, grads, test_utils=("test_schema", "test_autograd_registration"))


@pytest.mark.parametrize(("name", "index"), CASES)
def test_fake_output_is_like_the_real_one(name, index):
    args = call_of(name, index)
    real = overload(name)(*args)
    with torch._subclasses.FakeTensorMode() as mode:
        fake_args = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args]
        fake = overload(name)(*fake_args)
    if real is None:
        assert fake is None
        return
    real, fake = (r if isinstance(r, tuple) else (r,) for r in (real, fake))
    for r, f in zip(real, fake, strict=True):
        assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


@pytest.mark.parametrize("name", [n for n in CALLS if not n.startswith("_")])
def test_backward_raises_and_forward_does_not(name):
    for index in range(CALLS[name]):
        args = call_of(name, index)
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
