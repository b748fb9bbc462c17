"""Which layer of a quantized model hurts: signal to noise of each, alone and in its place."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from torch_ao_ext._describe import type_name
from torch_ao_ext._quantized_tensor import QuantizedTensor

__all__ = ["Comparison", "LayerError", "compare", "suggest_skip"]


@dataclass(frozen=True)
class LayerError:
    """One quantized layer.

    Args:
        fqn: its name in both models.
        op: its class in the quantized model.
        local_db: SQNR of its result against that of the float layer on the same (quantized) input:
            what this layer adds.
        total_db: SQNR of its result against the float model: what all layers up to here add.
    """

    fqn: str
    op: str
    local_db: float
    total_db: float


@dataclass
class Comparison:
    """Layers in the order in which they ran; `str()` is a table.

    Attributes:
        layers: one entry for each quantized layer that ran.
        output_db: SQNR of the models' results; inf when they are equal.
    """

    layers: list[LayerError] = field(default_factory=list)
    output_db: float = math.inf

    def worst(self, count: int | None = None) -> list[LayerError]:
        """Layers by what they add, the largest noise first."""
        return sorted(self.layers, key=lambda layer: layer.local_db)[:count]

    def __str__(self) -> str:
        head = ("layer", "op", "alone dB", "in place dB")
        rows = [head] + [(e.fqn, e.op, f"{e.local_db:.1f}", f"{e.total_db:.1f}") for e in self.layers]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
        return "\n".join([*lines, f"output: {self.output_db:.1f} dB"])


def _tensors(value: Any) -> list[torch.Tensor]:
    """The float values in a result, in order."""
    if isinstance(value, QuantizedTensor):
        return [value.dequantize()]
    if isinstance(value, torch.Tensor):
        return [value.detach().float()] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _tensors(part)]
    return _tensors(getattr(value, "to_tuple", tuple)())  # outputs of transformers


def _as_float(value: Any) -> Any:
    if isinstance(value, QuantizedTensor):
        return value.dequantize()
    if isinstance(value, (tuple, list)):
        return type(value)(_as_float(part) for part in value)
    return value


def _sqnr(want: Any, have: Any) -> float:
    """10 log10 of signal over noise power, over all tensors; inf without noise."""
    signal = noise = 0.0
    for a, b in zip(_tensors(want), _tensors(have), strict=False):
        a, b = a.double(), b.double()
        signal += float(a.square().sum())
        noise += float((a - b).square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _pairs(float_model: nn.Module, quantized_model: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Layers that have the same name and not the same class, without what is inside them."""
    floats = dict(float_model.named_modules())
    found: dict[str, tuple[nn.Module, nn.Module]] = {}
    for name, module in quantized_model.named_modules():
        other = floats.get(name)
        inside = any(name.startswith(f"{outer}.") or outer == "" for outer in found)
        if other is None or inside or type(other) is type(module):
            continue
        if type(module).__module__.startswith("torch_ao_ext.") and type_name(other) not in ("nn.Identity",):
            found[name] = (other, module)
    return found


def compare(float_model: nn.Module, quantized_model: nn.Module, *inputs: Any) -> Comparison:
    """Runs both models once and measures every quantized layer.

    Besides the two runs, each float layer is run once more, on the input that its quantized
    counterpart got.

    Args:
        float_model: what was quantized (fused the same way), in evaluation mode.
        quantized_model: of `convert`, `quantize_dynamic` or `quantize_weight_only`; layers are found
            by their names.
        inputs: positional inputs of both.

    Returns:
        Comparison; print it, or read `layers`, `worst()`, `output_db`.

    Raises:
        ValueError: not two Python modules, or no layer of this library under a name of the float model.

    Example:
        >>> import torch, torch_ao_ext
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()).eval()
        >>> int8 = torch_ao_ext.quantization.quantize_dynamic(model)
        >>> found = torch_ao_ext.compare(model, int8, torch.randn(16, 8))
        >>> [layer.fqn for layer in found.layers], found.output_db > 20
        (['0'], True)
    """
    for name, model in (("float_model", float_model), ("quantized_model", quantized_model)):
        if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
            got = type(model).__name__
            raise ValueError(f"compare: argument '{name}' must be a Python nn.Module, got {got}")
    pairs = _pairs(float_model, quantized_model)
    if not pairs:
        raise ValueError(
            "compare: argument 'quantized_model' must have quantized layers under the names of "
            "float_model, got none (graphs: compare the eager model, or read report)"
        )
    wanted: dict[str, Any] = {}
    result = Comparison()
    handles = []
    for name, (layer, module) in pairs.items():

        def keep(m: nn.Module, args: Any, output: Any, name: str = name) -> None:
            wanted[name] = output

        def measure(
            m: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name, layer: nn.Module = layer
        ) -> None:
            # forward, not the module: its hooks are for the run of the float model.
            alone = layer.forward(*_as_float(args), **{k: _as_float(v) for k, v in kwargs.items()})
            error = LayerError(name, type(m).__name__, _sqnr(alone, output), _sqnr(wanted.get(name), output))
            result.layers.append(error)

        handles.append(layer.register_forward_hook(keep))
        handles.append(module.register_forward_hook(measure, with_kwargs=True))
    try:
        with torch.no_grad():
            want = float_model(*inputs)
            have = quantized_model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    result.output_db = _sqnr(want, have)
    return result


def suggest_skip(comparison: Comparison, budget: int = 1) -> list[str]:
    """Names of the layers to leave float first: those that add most noise.

    Give them qconfig None (`qconfig_spec={name: None}`, `set_module_name(name, None)`, or the attribute).

    Args:
        comparison: of `compare`.
        budget: how many layers may stay float.

    Raises:
        ValueError: a negative budget.
    """
    if budget < 0:
        raise ValueError(f"suggest_skip: argument 'budget' must not be negative, got {budget}")
    return [layer.fqn for layer in comparison.worst(budget)]
