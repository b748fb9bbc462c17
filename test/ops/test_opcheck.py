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
