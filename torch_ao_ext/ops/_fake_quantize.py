"""Fake kernels of the private ops behind fake-quantize modules (csrc/ops/fake_quantize.cpp)."""

import torch

from torch_ao_ext.ops import _fake

_FLOAT = (torch.float32,)
_INTEGERS = (torch.int32, torch.int64)


def _check_bounds(op, quant_min, quant_max):
    rule = f"be above quant_min ({quant_min}), both within [-128, 255]"
    _fake.check_value(-128 <= quant_min < quant_max <= 255, op, "quant_max", rule, quant_max)


def _check_values(op, name, x, scale, zero_point, quant_min, quant_max):
    _fake.check_tensor(op, name, x, _FLOAT)
    _fake.check_tensor(op, "scale", scale, _FLOAT)
    _fake.check_tensor(op, "zero_point", zero_point, _INTEGERS)
    _check_bounds(op, quant_min, quant_max)


@torch.library.register_fake("torch_ao::_min_max")
def _(input, per_row=False):
    _fake.check_tensor("_min_max", "input", input, _FLOAT)
    if per_row:
        _fake.check_min_rank("_min_max", "input", input, 1)
    return input.new_empty([input.shape[0], 2] if per_row else [2])


@torch.library.register_fake("torch_ao::_fake_quantize")
def _(input, scale, zero_point, quant_min, quant_max):
    _check_values("_fake_quantize", "input", input, scale, zero_point, quant_min, quant_max)
    return _fake.empty_like(input, torch.float32)


@torch.library.register_fake("torch_ao::_fake_quantize_backward")
def _(grad, input, scale, zero_point, quant_min, quant_max):
    _check_values("_fake_quantize_backward", "input", input, scale, zero_point, quant_min, quant_max)
    return _fake.empty_like(input, torch.float32)


@torch.library.register_fake("torch_ao::_weight_fake_quantize")
def _(weight, factor, scale, zero_point, quant_min, quant_max):
    _check_values("_weight_fake_quantize", "weight", weight, scale, zero_point, quant_min, quant_max)
    return weight.new_empty(weight.shape)


@torch.library.register_fake("torch_ao::_weight_fake_quantize_backward")
def _(grad, weight, factor, scale, zero_point, quant_min, quant_max):
    op = "_weight_fake_quantize_backward"
    _check_values(op, "weight", weight, scale, zero_point, quant_min, quant_max)
    _fake.check_min_rank(op, "weight", weight, 1)
    return weight.new_empty(weight.shape), weight.new_empty([weight.shape[0]])
