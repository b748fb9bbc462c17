"""QConfig: which observers describe a layer's input and its weight.

Two families. torch.ao's names (`default_dynamic_qconfig`,
`per_channel_dynamic_qconfig`) give torch.ao's numbers: one scale for the whole
input, 7 bits. `row_dynamic_qconfig` is what `quantize_dynamic` uses when no
QConfig is given: a scale per input row, 8 bits, a scale per weight channel.
"""

from collections import namedtuple
from typing import Any

from torch import nn

from torch_ao_ext.quantization.observer import (
    _PartialWrapper,
    default_channel_weight_observer,
    default_dynamic_quant_observer,
    default_float_qparams_observer,
    default_float_qparams_observer_4bit,
    default_per_channel_weight_observer,
    default_placeholder_observer,
    default_row_quant_observer,
    default_weight_observer,
    mse_channel_weight_observer,
)

__all__ = [
    "QConfig",
    "QConfigAny",
    "default_dynamic_qconfig",
    "default_per_channel_dynamic_qconfig",
    "float_qparams_weight_only_qconfig",
    "float_qparams_weight_only_qconfig_4bit",
    "mse_row_dynamic_qconfig",
    "per_channel_dynamic_qconfig",
    "qconfig_equals",
    "row_dynamic_qconfig",
]


class QConfig(namedtuple("QConfig", ["activation", "weight"])):
    """Observer factories for activations and weights.

    Args:
        activation: class or factory (`Observer.with_args(...)`), not an instance.
        weight: same, for the weight.

    Raises:
        ValueError: an observer instance was given.

    Example:
        >>> from torch_ao_ext.quantization import QConfig, default_dynamic_quant_observer
        >>> from torch_ao_ext.quantization import default_weight_observer
        >>> config = QConfig(default_dynamic_quant_observer, default_weight_observer)
        >>> config.weight().qscheme
        torch.per_tensor_symmetric
    """

    __slots__ = ()

    def __new__(cls, activation: Any, weight: Any) -> "QConfig":
        """Refuses observer instances."""
        for name, value in (("activation", activation), ("weight", weight)):
            if isinstance(value, nn.Module):
                raise ValueError(
                    f"QConfig: argument '{name}' must be an observer class or factory, got an "
                    f"instance of {type(value).__name__}; use its with_args()"
                )
        return super().__new__(cls, activation, weight)


QConfigAny = QConfig | None

default_dynamic_qconfig = QConfig(
    activation=default_dynamic_quant_observer, weight=default_weight_observer
)
per_channel_dynamic_qconfig = QConfig(
    activation=default_dynamic_quant_observer, weight=default_per_channel_weight_observer
)
default_per_channel_dynamic_qconfig = per_channel_dynamic_qconfig

row_dynamic_qconfig = QConfig(
    activation=default_row_quant_observer, weight=default_channel_weight_observer
)
mse_row_dynamic_qconfig = QConfig(
    activation=default_row_quant_observer, weight=mse_channel_weight_observer
)

# Embedding tables: torch.ao's rows, 8 and 4 bits.
float_qparams_weight_only_qconfig = QConfig(
    activation=default_placeholder_observer, weight=default_float_qparams_observer
)
float_qparams_weight_only_qconfig_4bit = QConfig(
    activation=default_placeholder_observer, weight=default_float_qparams_observer_4bit
)


def _factory_key(factory: Any) -> Any:
    if isinstance(factory, _PartialWrapper):
        p = factory.p
        if hasattr(p, "func"):
            return (p.func, p.args, tuple(sorted(p.keywords.items())))
        return p
    return factory


def qconfig_equals(q1: QConfigAny, q2: QConfigAny) -> bool:
    """Whether both make observers of the same class with the same arguments."""
    if q1 is None or q2 is None:
        return q1 is q2
    return all(_factory_key(a) == _factory_key(b) for a, b in zip(q1, q2, strict=True))
