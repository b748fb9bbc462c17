"""quantize_weight_only: float model in, model with 8-bit or 4-bit linear weights out."""

import copy
import warnings
from collections.abc import Callable

import torch
from torch import nn

from torch_ao_ext._describe import type_name
from torch_ao_ext.nn.quantized._weight import check_finite
from torch_ao_ext.nn.quantized.dynamic.modules.transformer import disable_fused_path
from torch_ao_ext.nn.quantized.modules.linear_weight_only import LinearWeightOnly, check_format
from torch_ao_ext.quantization import _plan
from torch_ao_ext.quantization._hooks import move_hooks, settle_weight_hooks
from torch_ao_ext.quantization._quantize_dynamic import _note_reasons

__all__ = ["quantize_weight_only"]

_MAPPING = {nn.Linear: LinearWeightOnly}


def _resolve(model: nn.Module, keep: Callable[[nn.Module, str], bool] | None) -> _plan.Plan:
    plan = _plan.resolve(model, None, _MAPPING)
    if keep is not None:
        for target in [t for t in plan.targets if not keep(t.module, t.name)]:
            plan.targets.remove(target)
            plan.skipped[target.name] = "filter_fn says no"
    return plan


def _complain(plan: _plan.Plan, model: nn.Module, strict: bool) -> None:
    problems = []
    if strict and plan.refused:
        lines = "; ".join(f"'{name}': {reason}" for name, reason in plan.refused[:10])
        problems.append(f"{len(plan.refused)} layers stay float: {lines}")
    if not plan.targets:
        kinds = sorted({type_name(m) for m in model.modules() if m._parameters})
        reasons = sorted({r for _, r in plan.refused} | set(plan.skipped.values()))
        found = f"found {', '.join(kinds) or 'no module with parameters'}"
        problems.append(f"nothing was quantized: {found}; {'; '.join(reasons) or 'no layers'}")
    if not problems:
        return
    text = "quantize_weight_only: " + "\n  ".join(problems)
    if strict:
        raise ValueError(text)
    warnings.warn(text, UserWarning, stacklevel=3)


def _share(target: _plan.Target, new: LinearWeightOnly, made: dict) -> None:
    """Layers with one float weight have one quantized weight; the layout is part of the key."""
    if target.weight_key is None:
        return
    own = {name: new._buffers[name] for name in ("qweight", "weight_scale")}
    new._buffers.update(made.setdefault((target.weight_key, new.out_features, new.in_features), own))
    if target.bias_key is not None:
        new._buffers["qbias"] = made.setdefault(target.bias_key, new.qbias)


def quantize_weight_only(
    model: nn.Module,
    bits: int = 8,
    group_size: int | None = None,
    *,
    input_bits: int = 8,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
    inplace: bool = False,
    strict: bool = False,
) -> nn.Module:
    """Replaces linear layers by ones that keep W in 8 or 4 bits; inputs and outputs stay float.

    8 bit: one scale for each output, max|w| / 127.5. 4 bit: one for each group of group_size
    values along K, max|w| / 7.5. Made for layers that wait for memory: one or a few rows at
    a time; with more rows at least as fast as float. Nearly all of the error is that of the rounded
    weights (`ops.linear_weight_only`).

    Converted: nn.Linear and subclasses that keep its forward, transformers' Conv1D. Layers
    that share a weight share the quantized one. Each is packed for this CPU as it is converted.

    Args:
        model: float model; its copy is converted unless `inplace`. Set to eval mode.
        bits: 8 or 4.
        group_size: 32, 64 or 128 with 4 bits (default 128); 0 or None with 8.
        input_bits: of inputs inside the layer: 8, with a scale for each 64 values (4 bit: each
            group) and 16 bits where outliers need them; or 16 everywhere, which takes 16 rows and
            more twice the time (docs/design.md).
        filter_fn: called with module and name; False keeps the layer float.
        inplace: convert `model` itself, freeing each float weight as it goes.
        strict: raise instead of warning; also when a layer cannot be converted.

    Returns:
        The converted model. `torch_ao_ext.report` tells what was converted and why not.

    Raises:
        ValueError: bad arguments; a weight that is not finite (named); with strict, as above.

    Example:
        >>> import torch, torch_ao_ext
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.ReLU())
        >>> torch_ao_ext.quantization.quantize_weight_only(model, bits=4, group_size=32)[0]
        LinearWeightOnly(in_features=64, out_features=4, bias=True, bits=4, group_size=32)
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"quantize_weight_only: argument 'model' must be a Python nn.Module, got {type(model).__name__}"
        )
    if filter_fn is not None and not callable(filter_fn):
        raise ValueError(
            f"quantize_weight_only: argument 'filter_fn' must be callable, got {type(filter_fn).__name__}"
        )
    group = (128 if bits == 4 else 0) if group_size is None else group_size
    check_format("quantize_weight_only", bits, group, input_bits)
    plan = _resolve(model, filter_fn)
    _complain(plan, model, strict)
    for target in plan.targets:  # before anything is changed
        for name, p in target.module.named_parameters():
            label = f"{target.name}.{name}" if target.name else name
            check_finite(p, f"quantize_weight_only: '{label}'")
    if not inplace:
        # Weights that are about to be replaced are not copied first.
        memo = {id(p): p for p in _plan.parameters_only_in(model, plan.targets)}
        model = copy.deepcopy(model, memo)
        plan = _resolve(model, filter_fn)
    model.eval()
    made: dict = {}
    result = model
    while plan.targets:
        target = plan.targets.popleft()
        dropped = settle_weight_hooks(target.module)
        new = LinearWeightOnly.from_float(target.module, bits, group, input_bits)
        move_hooks(target.module, new, dropped=dropped)
        _share(target, new, made)
        for parent, key in target.places:
            parent._modules[key] = new
        if target.module is model:
            result = new
        low = target.module.weight.dtype == torch.bfloat16
        del target  # the float weight goes before the packed form comes
        new.prepack(torch.bfloat16 if low else torch.float32)
    _note_reasons(result, plan)
    disable_fused_path(result, lambda m: isinstance(m, _plan._QUANTIZED))
    return result
