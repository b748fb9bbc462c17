"""quantize_dynamic: float model in, model with int8 layers out."""

import copy
import warnings
from typing import Any

import torch
from torch import nn

from torch_ao_ext._describe import FLOAT_REASON, type_name
from torch_ao_ext.nn import quantized
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.nn.quantized._observed import weight_observer
from torch_ao_ext.nn.quantized._rows import row_observer
from torch_ao_ext.nn.quantized._weight import check_finite
from torch_ao_ext.nn.quantized.dynamic.modules._recurrent_weights import rule_of
from torch_ao_ext.nn.quantized.dynamic.modules.activation import is_self_attention
from torch_ao_ext.nn.quantized.dynamic.modules.transformer import disable_fused_path
from torch_ao_ext.quantization import _plan
from torch_ao_ext.quantization._hooks import move_hooks, settle_weight_hooks
from torch_ao_ext.quantization.qconfig import mixed_dynamic_qconfig
from torch_ao_ext.quantization.quantization_mappings import (
    get_default_dynamic_quant_module_mappings,
)

__all__ = ["quantize_dynamic"]

# Classes whose from_float reads the qconfig by our rules.
_OWN_CLASSES = frozenset(get_default_dynamic_quant_module_mappings().values())

_QINT8 = getattr(torch, "qint8", torch.int8)


def _read_spec(spec: Any, dtype: torch.dtype) -> dict[Any, Any] | None:
    """The spec as type or fqn -> qconfig; None stays None (the default table)."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            if not isinstance(key, (str, type)):
                raise ValueError(
                    "quantize_dynamic: argument 'qconfig_spec' must have types and names as keys, "
                    f"got {key!r}"
                )
            if value is not None and not (hasattr(value, "activation") and hasattr(value, "weight")):
                raise ValueError(
                    f"quantize_dynamic: argument 'qconfig_spec' must map {key!r} to a QConfig or "
                    f"None, got {value!r}"
                )
        return spec
    if dtype not in (torch.int8, _QINT8):
        raise ValueError(
            f"quantize_dynamic: argument 'dtype' must be torch.qint8 or torch.int8, got {dtype}"
        )
    if spec is None:
        return None
    if not isinstance(spec, (set, frozenset)):
        raise ValueError(
            "quantize_dynamic: argument 'qconfig_spec' must be a dict, a set or None, "
            f"got {type(spec).__name__}"
        )
    return _read_spec(dict.fromkeys(spec, mixed_dynamic_qconfig), dtype)


class _Sharing:
    """int8 tensors of tied parameters, made once."""

    _WEIGHT = ("qweight", "weight_scale", "weight_zero_point")

    def __init__(self) -> None:
        self._weights: dict[Any, dict[str, Any]] = {}
        self._biases: dict[Any, torch.Tensor | None] = {}

    def apply(self, target: _plan.Target, new: nn.Module) -> None:
        if isinstance(new, quantized.Embedding) and target.weight_key is not None:
            key = (target.weight_key, id(target.qconfig), "rows", target.module.max_norm)
            new.qweight = self._weights.setdefault(key, {"qweight": new.qweight})["qweight"]
        if not isinstance(new, dynamic.Linear) or target.weight_key is None:
            return
        # The layout is part of the key: Conv1D stores the transpose.
        key = (target.weight_key, id(target.qconfig), tuple(new.qweight.shape))
        own = {name: new._buffers[name] for name in self._WEIGHT}
        new._buffers.update(self._weights.setdefault(key, own))
        if target.bias_key is not None:
            new.qbias = self._biases.setdefault(target.bias_key, new.qbias)


def _convert_one(target: _plan.Target) -> nn.Module:
    module = target.module
    dropped = settle_weight_hooks(module)
    module.qconfig = target.qconfig  # the contract of from_float
    options = {}
    if target.to_class is dynamic.MultiheadAttention:
        places = target.places
        options["packed_in_proj"] = bool(places) and all(is_self_attention(*p) for p in places)
    try:
        new = target.to_class.from_float(module, **options)
    except ValueError as error:
        raise ValueError(f"quantize_dynamic: '{target.name}': {error}") from error
    move_hooks(module, new, dropped=dropped)
    return new.eval()


def _qconfig_reader(kind: type) -> Any:
    """What reads the qconfig's weight side for this class, and refuses what it cannot take."""
    if issubclass(kind, quantized.Embedding):
        return row_observer
    # rule_of reads both sides.
    return rule_of if issubclass(kind, (dynamic.RNNBase, dynamic.RNNCellBase)) else weight_observer


def _check_targets(plan: _plan.Plan) -> None:
    """Before anything is changed: an in-place conversion must not stop half way."""
    for target in plan.targets:
        if target.to_class in _OWN_CLASSES:
            try:
                _qconfig_reader(target.to_class)(target.qconfig)
            except ValueError as error:
                raise ValueError(f"quantize_dynamic: '{target.name}': {error}") from error
        for name, p in target.module.named_parameters():
            label = f"{target.name}.{name}" if target.name else name
            check_finite(p, f"quantize_dynamic: '{label}'")


def _complain(plan: _plan.Plan, model: nn.Module, asked: bool, strict: bool) -> None:
    """Warns, or raises when strict, about requests that changed nothing."""
    problems = []
    if plan.unmatched_names:
        names = ", ".join(repr(name) for name in plan.unmatched_names)
        problems.append(f"qconfig_spec names that no module has: {names}")
    if plan.inner_names:
        names = ", ".join(repr(name) for name in plan.inner_names)
        problems.append(f"qconfig_spec names without effect inside a layer converted whole: {names}")
    missing = [(n, r) for n, r in plan.refused if asked and r.startswith("no dynamic int8")]
    refused = plan.refused if strict else missing
    if refused:
        lines = "; ".join(f"'{name}': {reason}" for name, reason in refused[:10])
        problems.append(f"{len(refused)} requested modules stay float: {lines}")
    if not plan.targets:
        already = sum(isinstance(m, _plan._QUANTIZED) for m in model.modules())
        kinds = sorted({type_name(m) for m in model.modules() if m._parameters})
        reasons = sorted({r for _, r in plan.refused} | set(plan.skipped.values()))
        found = f"found {', '.join(kinds) or 'no module with parameters'}"
        if already:
            found += f" and {already} modules that are int8 already"
        problems.append(f"nothing was quantized: {found}; {'; '.join(reasons) or 'no layers'}")
    if not problems:
        return
    text = "quantize_dynamic: " + "\n  ".join(problems)
    if strict:
        raise ValueError(text)
    warnings.warn(text, UserWarning, stacklevel=3)


def _remove_qconfig(model: nn.Module) -> None:
    for module in model.modules():
        module.__dict__.pop("qconfig", None)


def _note_reasons(model: nn.Module, plan: _plan.Plan) -> None:
    notes = {**plan.skipped, **dict(plan.refused)}
    for name, module in model.named_modules(remove_duplicate=False):
        if name in notes:
            module.__dict__[FLOAT_REASON] = notes[name]


def quantize_dynamic(
    model: nn.Module,
    qconfig_spec: Any = None,
    dtype: torch.dtype = _QINT8,
    mapping: dict[Any, Any] | None = None,
    inplace: bool = False,
    *,
    strict: bool = False,
) -> nn.Module:
    """Replaces layers by ones that compute y = x W^T + b in int8, float in and out.

    Without a QConfig the weight has one scale per output channel (max|w| / 127.5)
    and each input row one scale and zero point (0..255), chosen at run time. A
    torch.ao QConfig (`default_dynamic_qconfig`, `per_channel_dynamic_qconfig`)
    gives torch.ao's numbers: the observer's weight qparams, one 7-bit scale per input and, in
    recurrent layers, for h at each step.

    Embeddings are converted when asked for: with {nn.Embedding, nn.EmbeddingBag} in the
    spec to 8-bit rows, each with its own scale and bias, without a special QConfig;
    `float_qparams_weight_only_qconfig` and `_4bit` give torch.ao's rows.

    Recurrent layers quantize rows of the input and of h at each step. Their weights are int16 where
    that costs little time and int8 elsewhere, by size alone (`mixed_dynamic_qconfig`, the default;
    the rule is in `observer.MixedWeightObserver`); `row_dynamic_qconfig` makes all of them int8,
    `int16_dynamic_qconfig` int16: two int8 parts, of which the second one's products are renewed at
    each second step in the first layer, at each eighth behind it (more exact, twice the memory, a
    quarter slower), `bfloat16_dynamic_qconfig`
    bfloat16 weights with both parts at each step (slower still).

    Converted by default: nn.Linear and subclasses that keep its forward,
    nn.MultiheadAttention (whole), fused LinearReLU, transformers' Conv1D. Modules
    that share a parameter share its int8 tensors; a module used under several
    names stays one module. Each layer is packed for this CPU as it is converted.

    Args:
        model: float model; its copy is converted unless `inplace`. Set to eval mode.
        qconfig_spec: None for the defaults; a set of types and module names; or a
            dict from type or name to QConfig or None (stay float). A type or name
            holds for everything below it, as in torch.ao: the module's own type
            beats what it inherits, a name beats a type, a `qconfig` attribute beats both.
        dtype: torch.qint8 or torch.int8; ignored when qconfig_spec is a dict.
        mapping: float class -> class with `from_float`; default
            `get_default_dynamic_quant_module_mappings()`.
        inplace: convert `model` itself, freeing each float weight as it goes. A root
            that is itself a layer cannot be replaced in place: use the return value.
        strict: raise instead of warning; also when a requested module stays float.

    Returns:
        The converted model. `torch_ao_ext.report` tells what was converted and why not.

    Raises:
        ValueError: bad arguments; a weight that is not finite (named); with strict, as above.

    Example:
        >>> import torch, torch_ao_ext
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
        >>> q = torch_ao_ext.quantization.quantize_dynamic(model)
        >>> q[0].weight().dtype
        torch.int8
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            "quantize_dynamic: argument 'model' must be a Python nn.Module, "
            f"got {type(model).__name__}"
        )
    spec = _read_spec(qconfig_spec, dtype)
    table = get_default_dynamic_quant_module_mappings() if mapping is None else mapping
    for key, value in table.items():
        if not hasattr(value, "from_float"):
            raise ValueError(
                "quantize_dynamic: argument 'mapping' must have values with from_float, "
                f"got {value!r} for {key!r}"
            )
    plan = _plan.resolve(model, spec, table)
    _complain(plan, model, asked=spec is not None, strict=strict)
    _check_targets(plan)
    if not inplace:
        # Weights that are about to be replaced are not copied first.
        memo: dict[int, Any] = {
            id(p): p for p in _plan.parameters_only_in(model, plan.targets)
        }
        memo_keep = list(memo.values())
        model = copy.deepcopy(model, memo)
        del memo, memo_keep
        plan = _plan.resolve(model, spec, table)
    model.eval()

    sharing = _Sharing()
    result = model
    while plan.targets:
        target = plan.targets.popleft()
        new = _convert_one(target)
        sharing.apply(target, new)
        for parent, key in target.places:
            parent._modules[key] = new
        if target.module is model:
            result = new
        low = any(p.dtype == torch.bfloat16 for p in target.module.parameters())
        del target  # the float weight goes before the packed form comes
        for part in new.modules():
            if isinstance(part, (dynamic.Linear, dynamic.RNNBase, dynamic.RNNCellBase)):
                part.prepack(torch.bfloat16 if low else torch.float32)
            elif isinstance(part, quantized.Embedding):
                part.prepack()
    _note_reasons(result, plan)
    _remove_qconfig(result)
    disable_fused_path(result, lambda m: isinstance(m, _plan._QUANTIZED))
    return result


