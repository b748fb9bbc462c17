"""Fake kernels refuse what the kernels refuse, in the same words."""

import pytest
import torch
from fake_cases import overload
from fake_refusals import BAD
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.mark.parametrize("case", list(BAD))
def test_fake_raises_what_the_kernel_raises(case):
    name, args, kwargs = BAD[case]
    op = overload(name)
    with pytest.raises((TypeError, ValueError, IndexError)) as real:
        op(*args, **kwargs)
    with FakeTensorMode() as mode, pytest.raises((TypeError, ValueError, IndexError)) as fake:

        def as_fake(value):
            return mode.from_tensor(value) if isinstance(value, torch.Tensor) else value

        op(*map(as_fake, args), **{k: as_fake(v) for k, v in kwargs.items()})
    assert type(real.value) is type(fake.value)
    assert str(real.value).splitlines()[0] == str(fake.value).splitlines()[0]
