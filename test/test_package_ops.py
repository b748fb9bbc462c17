"""Each operator has cases, a fake kernel that opcheck accepts, and a Python function."""

import warnings

import pytest
import torch
from fake_cases import CASES, LISTS, overload
from fake_refusals import BIAS, S8, XQ, W, X
from torch._subclasses.fake_tensor import FakeTensorMode

import torch_ao_ext

ops = torch.ops.torch_ao


def test_every_public_overload_has_cases():
    assert sorted({*CASES, *LISTS}) == torch_ao_ext.info._operators()


@pytest.mark.parametrize("name", list(CASES))
def test_opcheck(name):
    """All of opcheck for one case; for the others all but the AOT trace, which takes a second."""
    quick = ("test_schema", "test_autograd_registration", "test_faketensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # opcheck's own tools warn
        for i, (args, kwargs) in enumerate(CASES[name]()):
            options = {} if i == 0 else {"test_utils": quick}
            torch.library.opcheck(overload(name), args, kwargs, **options)


@pytest.mark.parametrize("name", list(CASES))
def test_fake_gives_the_same_shape_strides_and_dtype(name):
    op = overload(name)
    for args, kwargs in CASES[name]():
        real = op(*args, **kwargs)
        with FakeTensorMode() as mode:

            def fake(value, mode=mode):
                return mode.from_tensor(value) if isinstance(value, torch.Tensor) else value

            shadow = op(*map(fake, args), **{k: fake(v) for k, v in kwargs.items()})
        pairs = zip(real, shadow, strict=True) if isinstance(real, tuple) else [(real, shadow)]
        for a, b in pairs:
            assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)


def test_python_functions_are_the_ops():
    public = {name.partition(".")[0] for name in CASES}
    helpers = {"BlockSparse", "from_block_sparse", "to_block_sparse"}
    assert public | LISTS | helpers == set(torch_ao_ext.ops.__all__)
    assert torch.equal(torch_ao_ext.ops.linear_dynamic(X, W, S8), ops.linear_dynamic(X, W, S8))
    scale, point = torch.tensor(0.1), torch.tensor(3)
    a = torch_ao_ext.ops.linear(XQ, 0.1, 3, W, S8, None, BIAS, 0.2, 4)
    b = torch_ao_ext.ops.linear(XQ, scale, point, W, S8, None, BIAS, torch.tensor(0.2), torch.tensor(4))
    assert torch.equal(a, b)
