"""Which modules of a model quantize_dynamic converts, and why the others stay float."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import type_before_parametrizations

from torch_ao_ext._describe import has_matrix, type_name
from torch_ao_ext.nn import intrinsic, quantized
from torch_ao_ext.nn.quantized import dynamic
from torch_ao_ext.nn.quantized._rows import row_observer
from torch_ao_ext.nn.quantized._static import QuantizedOutput
from torch_ao_ext.nn.quantized._weighted import WeightedModule
from torch_ao_ext.nn.quantized.dynamic.modules.linear import _is_conv1d
from torch_ao_ext.quantization._walk import children
from torch_ao_ext.quantization.qconfig import mixed_dynamic_qconfig

# A subclass of these counts as its base when a type is looked up; other types
# match exactly, as in torch.ao.
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_RECURRENT = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)
_BASES = (nn.Linear, nn.MultiheadAttention, *_RECURRENT, *_EMBEDDINGS)

# What a module inherits when no key of the spec is above it; None is an explicit "no".
_NOT_ASKED = object()

_QUANTIZED = (
    WeightedModule, QuantizedOutput, dynamic.MultiheadAttention, dynamic.RNNBase, dynamic.RNNCellBase,
    quantized.Embedding, quantized.LinearWeightOnly,
)  # fmt: skip

# What the dynamic ops take as input.
_FLOAT_DTYPES = (torch.float32, torch.bfloat16)


@dataclass
class Target:
    """One float module object and every place that holds it."""

    module: nn.Module
    name: str
    qconfig: Any
    to_class: Any
    places: list[tuple[nn.Module, str]] = field(default_factory=list)
    # Parameters named equal are one tensor: their int8 copies are shared, too.
    weight_key: int | None = None
    bias_key: int | None = None


@dataclass
class Plan:
    """What resolve() found."""

    targets: deque[Target] = field(default_factory=deque)
    # (fqn, reason) of modules that the spec asks for and that stay float.
    refused: list[tuple[str, str]] = field(default_factory=list)
    # fqn -> reason of the other float modules with weights.
    skipped: dict[str, str] = field(default_factory=dict)
    unmatched_names: list[str] = field(default_factory=list)
    # Names below a target to which the spec gives another qconfig than to the target.
    inner_names: list[str] = field(default_factory=list)


def is_fused_linear_relu(module: nn.Module) -> bool:
    """Our LinearReLU, or torch.ao's, known by its name because we never import it."""
    kind = type(module)
    if isinstance(module, intrinsic.LinearReLU):
        return True
    return (
        kind.__name__ == "LinearReLU"
        and ".intrinsic." in kind.__module__
        and isinstance(module, nn.Sequential)
        and len(module) == 2
        and isinstance(module[0], nn.Linear)
        and isinstance(module[1], nn.ReLU)
    )


def own_forward(module: nn.Module) -> str | None:
    """Why the module's forward is not that of its torch base, or None."""
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance"
    kind = type_before_parametrizations(module)
    for base in _BASES:
        if isinstance(module, base) and kind.forward is not base.forward:
            return f"subclass overrides forward of nn.{base.__name__}"
        if isinstance(module, base) and kind.__call__ is not nn.Module.__call__:
            return f"subclass overrides __call__ of nn.{base.__name__}"
    return None


def _blocker(module: nn.Module, inside_mha: bool) -> str | None:
    """Why a requested module cannot be converted, or None."""
    reason = own_forward(module)
    if reason:
        return reason
    if inside_mha and type(module) is NonDynamicallyQuantizableLinear:
        return "inside nn.MultiheadAttention, which stays float and reads this weight itself"
    tensors = [p for m in module.modules() for p in m._parameters.values() if p is not None]
    if any(is_lazy(p) for p in tensors):
        return "lazy parameters are not initialised"
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"weights are on device {tensor.device}; needs cpu"
        if tensor.dtype not in _FLOAT_DTYPES:
            return (
                f"weights have dtype {tensor.dtype}, and so will the input; "
                "needs torch.float32 or torch.bfloat16"
            )
    return None


class _Resolver:
    """torch.ao's propagation: type beats parent, name beats type, module.qconfig beats all."""

    def __init__(self, spec: dict[Any, Any] | None, mapping: dict[Any, Any]) -> None:
        self.default = spec is None
        self.spec: dict[Any, Any] = spec if spec is not None else dict.fromkeys(
            (nn.Linear, nn.MultiheadAttention, *_RECURRENT, intrinsic.LinearReLU),
            mixed_dynamic_qconfig,
        )
        self.mapping = mapping
        self.plan = Plan()
        self.seen: dict[int, Target | None] = {}
        self.names: set[str] = set()

    def _by_type(self, module: nn.Module, fallback: Any) -> Any:
        kind = type_before_parametrizations(module)
        if kind in self.spec:
            return self.spec[kind]
        if kind is NonDynamicallyQuantizableLinear:
            return fallback
        for base in kind.__mro__:
            if base in self.spec and any(issubclass(base, b) for b in _BASES):
                return self.spec[base]
        if self.default and _is_conv1d(module):
            return mixed_dynamic_qconfig
        if is_fused_linear_relu(module):
            return self._by_type(module[0], fallback)
        return fallback

    def _heritage(self, module: nn.Module, inherited: Any) -> Any:
        """What a module may inherit: an embedding only a qconfig for rows, or None."""
        if not isinstance(module, _EMBEDDINGS) or inherited in (None, _NOT_ASKED):
            return inherited
        try:
            return inherited if row_observer(inherited) is not None else _NOT_ASKED
        except ValueError:
            return _NOT_ASKED

    def _target_class(self, module: nn.Module) -> Any:
        kind = type_before_parametrizations(module)
        if kind in self.mapping:
            return self.mapping[kind]
        for base in kind.__mro__:
            if base in self.mapping and any(issubclass(base, b) for b in _BASES):
                return self.mapping[base]
        if _is_conv1d(module):
            return self.mapping.get(nn.Linear)
        if is_fused_linear_relu(module):
            return self.mapping.get(intrinsic.LinearReLU)
        return None

    def visit(
        self,
        module: nn.Module,
        name: str,
        parent: nn.Module | None,
        key: str,
        inherited: Any,
        inside_mha: bool = False,
    ) -> None:
        self.names.add(name)
        if id(module) in self.seen:
            target = self.seen[id(module)]
            if target is not None and parent is not None:
                target.places.append((parent, key))
            self._visit_names(module, name)
            return
        self.seen[id(module)] = None
        if isinstance(module, _QUANTIZED):
            return
        qconfig = self._by_type(module, self._heritage(module, inherited))
        qconfig = self.spec.get(name, qconfig)
        qconfig = getattr(module, "qconfig", qconfig)
        target = self._target(module, name, qconfig, inside_mha)
        if target is not None:
            self.seen[id(module)] = target
            self.plan.targets.append(target)
            if parent is not None:
                target.places.append((parent, key))
            self._visit_names(module, name)
            self._note_inner_names(name, qconfig)
            return
        inside = isinstance(module, nn.MultiheadAttention)
        for child_key, child_name, child in children(module, name):
            self.visit(child, child_name, module, child_key, qconfig, inside)

    def _visit_names(self, module: nn.Module, name: str) -> None:
        """Names below a module that is not walked (again) still count as matched."""
        for child, _ in module.named_modules(remove_duplicate=False):
            self.names.add(f"{name}.{child}" if name and child else name or child)

    def _note_inner_names(self, name: str, qconfig: Any) -> None:
        """A layer is converted whole: what the spec says about its parts cannot hold."""
        prefix = f"{name}." if name else ""
        self.plan.inner_names += [
            key
            for key, value in self.spec.items()
            if isinstance(key, str)
            and key != name
            and key.startswith(prefix)
            and key in self.names
            and value is not qconfig
        ]

    def _target(
        self, module: nn.Module, name: str, qconfig: Any, inside_mha: bool
    ) -> Target | None:
        to_class = self._target_class(module)
        if qconfig is None or qconfig is _NOT_ASKED:
            if has_matrix(module) or to_class is not None:
                self.plan.skipped[name] = (
                    "qconfig_spec says None"
                    if qconfig is None
                    else self._unrequested(module, inside_mha, to_class)
                )
            return None
        if to_class is None:
            if has_matrix(module):
                reason = f"no dynamic int8 module for {type_name(module)} in mapping"
                if type_before_parametrizations(module) in self.spec or name in self.spec:
                    self.plan.refused.append((name, reason))
                else:
                    self.plan.skipped[name] = reason
            return None
        reason = _blocker(module, inside_mha)
        if reason is not None:
            if inside_mha:
                self.plan.skipped[name] = reason
            else:
                self.plan.refused.append((name, reason))
            return None
        weight = module._parameters.get("weight")
        bias = module._parameters.get("bias")
        return Target(
            module,
            name,
            qconfig,
            to_class,
            weight_key=None if weight is None else id(weight),
            bias_key=None if bias is None else id(bias),
        )

    def _unrequested(self, module: nn.Module, inside_mha: bool, to_class: Any) -> str:
        if inside_mha:
            return "inside nn.MultiheadAttention, which stays float and reads this weight itself"
        if self.default and to_class is None:
            return f"no dynamic int8 module for {type_name(module)}"
        return f"{type_name(module)} not in qconfig_spec"


def resolve(model: nn.Module, spec: dict[Any, Any] | None, mapping: dict[Any, Any]) -> Plan:
    """Walks the model and sorts its modules.

    Args:
        model: root; may itself be a target.
        spec: type or fqn -> qconfig or None; None is the default table.
        mapping: float class -> class with from_float.
    """
    resolver = _Resolver(spec, mapping)
    resolver.visit(model, "", None, "", _NOT_ASKED)
    plan = resolver.plan
    plan.unmatched_names = [
        key for key in resolver.spec if isinstance(key, str) and key not in resolver.names
    ]
    return plan


def parameters_only_in(model: nn.Module, targets: deque[Target]) -> Iterator[torch.Tensor]:
    """Parameters that no module outside the targets holds."""
    inside = {id(m) for target in targets for m in target.module.modules()}
    shared: set[int] = set()
    found: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for p in module._parameters.values():
            if p is None:
                continue
            if id(module) in inside:
                found[id(p)] = p
            else:
                shared.add(id(p))
    return (p for key, p in found.items() if key not in shared)
