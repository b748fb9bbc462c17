"""The int8 weight in a reference layer, for from_reference."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn.quantized._observed import QuantizedWeight

__all__ = ["reference_layer", "reference_weight"]


def reference_layer(who: str, ref: nn.Module, kind: type[nn.Module], held: bool = False) -> Any:
    """Checks and unwraps the argument of from_reference.

    Args:
        who: name of the class, for errors.
        ref: the argument.
        kind: float class that the layer must have.
        held: a container with an activation behind the layer is wanted.

    Raises:
        ValueError: it is not such a layer, or not such a container.
    """
    layer = ref[0] if held and isinstance(ref, nn.Sequential) else ref
    wrong = not isinstance(layer, kind) or not hasattr(layer, "get_quantized_weight")
    if wrong or held is not isinstance(ref, nn.Sequential):
        wanted = f"nn.quantized.reference.{kind.__name__}"
        if held:
            wanted = f"an nn.intrinsic container of {wanted}"
        got = type(ref).__name__ if layer is ref else f"{type(ref).__name__} of {type(layer).__name__}"
        raise ValueError(f"{who}.from_reference: argument 'ref' must be {wanted}, got {got}")
    return layer


def reference_weight(who: str, layer: Any, axis: int) -> QuantizedWeight:
    """int8 weight in its own layout.

    Args:
        who: name of the class, for errors.
        layer: what `reference_layer` gives.
        axis: of the output channels.

    Raises:
        ValueError: another dtype, or scales along another axis.
    """
    data = layer.get_quantized_weight()
    if data.dtype != torch.int8:
        raise ValueError(f"{who}.from_reference: the weight must be qint8, got {layer.weight_dtype}")
    scale = layer.weight_scale.detach().to(torch.float32).reshape(-1)
    if scale.numel() > 1 and layer.weight_axis_int != axis:
        raise ValueError(
            f"{who}.from_reference: the weight must have its scales along axis {axis}, got axis "
            f"{layer.weight_axis_int}"
        )
    point = layer.weight_zero_point.detach().reshape(-1).to(torch.int32)
    return QuantizedWeight(data, scale, point if bool(point.any()) else None)
