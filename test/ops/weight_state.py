"""What the tests of packed forms share: a weight, its packed states, a call that must be right."""

import json

import op_reference as reference
import torch
from op_cases import random_int

ops = torch.ops.torch_ao


def make(n=17, k=33):
    return random_int(torch.int8, n, k), torch.rand(n) * 0.01 + 1e-3, torch.randn(n)


def states(weight):
    return json.loads(ops._explain(weight))["states"]


def check(x, weight, scale, bias=None, **kwargs):
    y = ops.linear_dynamic(x, weight, scale, None, bias, **kwargs)
    assert torch.equal(y, reference.linear_dynamic(x, weight, scale, None, bias, **kwargs))
