"""Bias correction: the mean error that quantization adds to each channel is taken off the bias.

E[W_q x_q + b] - E[W x + b] is measured on data, layer by layer in the order of the model, with the
layers before corrected already (Nagel et al. 2019, section 4.2).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn.quantized._weighted import WeightedModule
from torch_ao_ext.ns._numeric_suite import Logger

__all__ = ["MeanShadowLogger", "bias_correction", "get_module", "get_param", "parent_child_names"]


def get_module(model: nn.Module, name: str) -> nn.Module:
    """The module of this name; "" is the model.

    Raises:
        AttributeError: there is none.
    """
    return model.get_submodule(name)


def parent_child_names(name: str) -> tuple[str, str]:
    """("a.b", "c") of "a.b.c"; the parent of "c" is ""."""
    parent, _, child = name.rpartition(".")
    return parent, child


def get_param(module: nn.Module, attr: str) -> Any:
    """An attribute, or the result of a method, as `weight()` of int8 layers; None: there is none."""
    value = getattr(module, attr, None)
    return value() if callable(value) else value


class MeanShadowLogger(Logger):
    """Means of what the layers of two models gave, in `stats` under "float" and "quantized".

    For `ns._numeric_suite.prepare_model_with_stubs`; results keep their shape, which all batches share.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    def forward(self, x: Any, y: Any) -> None:
        """Adds x, of the quantized layer, and y, of the float one."""
        self.count += 1
        for name, value in (("quantized", x), ("float", y)):
            value = value.dequantize() if isinstance(value, QuantizedTensor) else value
            total = value.detach().double() + self._sums.get(name, 0.0)
            self._sums[name] = total
            self.stats[name] = (total / self.count).to(value.dtype)

    def clear(self) -> None:
        """Forgets all batches."""
        self.stats: dict[str, Any] = {"float": None, "quantized": None}
        self._sums: dict[str, torch.Tensor] = {}
        self.count = 0


class _Mean:
    """Running mean of a module's results over everything but the channels."""

    def __init__(self, module: nn.Module, channels: int) -> None:
        self._channels = channels
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._count = 0
        self._handle = module.register_forward_hook(self._add)

    def _add(self, module: nn.Module, args: Any, output: Any) -> None:
        values = output.dequantize() if isinstance(output, QuantizedTensor) else output
        values = values.detach().double()
        # Linear layers have channels last, convolutions on axis 1 (0 without a batch).
        spatial = getattr(module, "kernel_size", None)
        if spatial is None and isinstance(module, nn.Sequential):
            spatial = getattr(module[0], "kernel_size", None)
        axis = values.dim() - 1 - (len(spatial) if spatial is not None else 0)
        rows = values.movedim(axis, 0).reshape(self._channels, -1)
        self._sum += rows.sum(1)
        self._count += rows.shape[1]

    def result(self) -> torch.Tensor | None:
        self._handle.remove()
        return self._sum / self._count if self._count else None


def _run(model: nn.Module, batches: list[Any]) -> None:
    with torch.no_grad():
        for batch in batches:
            model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def bias_correction(
    float_model: nn.Module,
    quantized_model: nn.Module,
    img_data: Iterable[Any],
    target_modules: Any = None,
    neval_batches: int | None = None,
) -> None:
    """Corrects the biases of a quantized model in place.

    A layer without bias gets one. Layers are found by their names, which both models share.

    Args:
        float_model: what the quantized one was made of (fused the same way).
        quantized_model: of `convert` or `quantize_dynamic`.
        img_data: batches; of a tuple the first part is the input.
        target_modules: classes of layers to correct; default all with an int8 weight.
        neval_batches: number of batches to use; default all.

    Raises:
        ValueError: no batches, or a layer that the float model does not have.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization import quantize_dynamic
        >>> from torch_ao_ext.quantization._correct_bias import bias_correction
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4)).eval()
        >>> int8 = quantize_dynamic(model)
        >>> bias_correction(model, int8, [torch.randn(64, 8)])
    """
    batches = []
    for batch in img_data:
        if neval_batches is not None and len(batches) == neval_batches:
            break
        batches.append(batch)
    if not batches:
        raise ValueError("bias_correction: argument 'img_data' must have a batch, got none")
    kinds = (WeightedModule,) if target_modules is None else tuple(target_modules)
    targets = {
        name: module
        for name, module in quantized_model.named_modules()
        if isinstance(module, WeightedModule) and isinstance(module, kinds)
    }
    floats = dict(float_model.named_modules())
    for name in targets:
        if name not in floats:
            raise ValueError(f"bias_correction: argument 'float_model' must have the module '{name}'")
    means = {name: _Mean(floats[name], module._channels) for name, module in targets.items()}
    _run(float_model, batches)
    wanted = {name: mean.result() for name, mean in means.items()}
    for name, module in targets.items():
        mean = _Mean(module, module._channels)
        _run(quantized_model, batches)
        found, want = mean.result(), wanted[name]
        if found is None or want is None:
            continue  # not on the way of this data
        bias = torch.zeros(module._channels) if module.qbias is None else module.qbias
        module.qbias = (bias.double() - (found - want)).float()
