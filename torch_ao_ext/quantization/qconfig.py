"""QConfig: which observers describe a layer's input and its weight.

Two families. torch.ao's names (`default_dynamic_qconfig`, `get_default_qconfig` ...)
give torch.ao's numbers, with half the range for the activations of x86 and fbgemm; this
library's kernels do not need that: `get_default_qconfig("onednn")` keeps 8 bits.
`row_dynamic_qconfig` is what `quantize_dynamic` uses when no QConfig is given: a scale per
input row, 8 bits, a scale per weight channel.
"""

from collections import namedtuple
from typing import Any

import torch
from torch import nn

from torch_ao_ext.quantization.fake_quantize import (
    FakeQuantize,
    FusedMovingAvgObsFakeQuantize,
    default_dynamic_fake_quant,
    default_embedding_fake_quant,
    default_embedding_fake_quant_4bit,
    default_fake_quant,
    default_fused_act_fake_quant,
    default_fused_per_channel_wt_fake_quant,
    default_fused_wt_fake_quant,
    default_per_channel_weight_fake_quant,
    default_weight_fake_quant,
    fused_per_channel_wt_fake_quant_range_neg_127_to_127,
    fused_wt_fake_quant_range_neg_127_to_127,
)
from torch_ao_ext.quantization.observer import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    NoopObserver,
    PlaceholderObserver,
    _PartialWrapper,
    default_channel_weight_observer,
    default_debug_observer,
    default_dynamic_quant_observer,
    default_float_qparams_observer,
    default_float_qparams_observer_4bit,
    default_observer,
    default_per_channel_weight_observer,
    default_placeholder_observer,
    default_reuse_input_observer,
    default_row_quant_observer,
    default_weight_observer,
    mixed_weight_observer,
    mse_channel_weight_observer,
    per_channel_weight_observer_range_neg_127_to_127,
    weight_observer_range_neg_127_to_127,
)
from torch_ao_ext.quantization.observer._base import _QINT8, _QUINT8

__all__ = [
    "QConfig",
    "QConfigAny",
    "QConfigDynamic",
    "bfloat16_dynamic_qconfig",
    "default_activation_only_qconfig",
    "default_debug_qconfig",
    "default_dynamic_qat_qconfig",
    "default_dynamic_qconfig",
    "default_embedding_qat_qconfig",
    "default_embedding_qat_qconfig_4bit",
    "default_per_channel_dynamic_qconfig",
    "default_per_channel_qconfig",
    "default_per_channel_symmetric_qnnpack_qat_qconfig",
    "default_per_channel_symmetric_qnnpack_qconfig",
    "default_qat_qconfig",
    "default_qat_qconfig_v2",
    "default_qconfig",
    "default_quint8_weight_qconfig",
    "default_reuse_input_qconfig",
    "default_symmetric_qnnpack_qat_qconfig",
    "default_symmetric_qnnpack_qconfig",
    "default_weight_only_qconfig",
    "float16_dynamic_qconfig",
    "float16_static_qconfig",
    "float_qparams_weight_only_qconfig",
    "float_qparams_weight_only_qconfig_4bit",
    "get_default_qat_qconfig",
    "get_default_qat_qconfig_dict",
    "get_default_qconfig",
    "get_default_qconfig_dict",
    "int16_dynamic_qconfig",
    "mixed_dynamic_qconfig",
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
                    f"{cls.__name__}: argument '{name}' must be an observer class or factory, got an "
                    f"instance of {type(value).__name__}; use its with_args()"
                )
        return super().__new__(cls, activation, weight)


class QConfigDynamic(QConfig):
    """torch.ao's older class for dynamic quantization: a QConfig in which both parts are optional."""

    __slots__ = ()

    def __new__(cls, activation: Any = nn.Identity, weight: Any = nn.Identity) -> "QConfigDynamic":
        """Refuses observer instances."""
        return super().__new__(cls, activation, weight)


QConfigAny = QConfig | None

default_dynamic_qconfig = QConfig(
    activation=default_dynamic_quant_observer, weight=default_weight_observer
)
per_channel_dynamic_qconfig = QConfig(
    activation=default_dynamic_quant_observer, weight=default_per_channel_weight_observer
)
default_per_channel_dynamic_qconfig = per_channel_dynamic_qconfig

# What quantize_dynamic goes by: row_dynamic_qconfig, but small recurrent weights have 16 bits.
mixed_dynamic_qconfig = QConfig(
    activation=default_row_quant_observer, weight=mixed_weight_observer
)
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


# Static, with one weight scale and with one a channel.
default_qconfig = QConfig(activation=default_observer, weight=default_weight_observer)
default_per_channel_qconfig = QConfig(
    activation=default_observer, weight=default_per_channel_weight_observer
)
default_debug_qconfig = QConfig(activation=default_debug_observer, weight=default_weight_observer)
default_quint8_weight_qconfig = QConfig(activation=HistogramObserver, weight=MinMaxObserver)
default_reuse_input_qconfig = QConfig(
    activation=default_reuse_input_observer, weight=NoopObserver
)

# Recurrent layers: rows of activations in int8; weights in int16 (two int8 parts) or in bfloat16.
int16_dynamic_qconfig = QConfig(
    activation=default_row_quant_observer,
    weight=PlaceholderObserver.with_args(dtype=torch.int16),
)
bfloat16_dynamic_qconfig = QConfig(
    activation=default_row_quant_observer,
    weight=PlaceholderObserver.with_args(dtype=torch.bfloat16),
)
_FLOAT16 = PlaceholderObserver.with_args(dtype=torch.float16)
float16_dynamic_qconfig = QConfig(
    activation=PlaceholderObserver.with_args(dtype=torch.float16, is_dynamic=True), weight=_FLOAT16
)
float16_static_qconfig = QConfig(activation=_FLOAT16, weight=_FLOAT16)

# Training.
default_qat_qconfig = QConfig(activation=default_fake_quant, weight=default_weight_fake_quant)
default_qat_qconfig_v2 = QConfig(
    activation=default_fused_act_fake_quant, weight=default_fused_wt_fake_quant
)
default_dynamic_qat_qconfig = QConfig(
    activation=default_dynamic_fake_quant, weight=default_weight_fake_quant
)
default_weight_only_qconfig = QConfig(activation=nn.Identity, weight=default_weight_fake_quant)
default_activation_only_qconfig = QConfig(activation=default_fake_quant, weight=nn.Identity)
_FLOAT32 = NoopObserver.with_args(dtype=torch.float32)
default_embedding_qat_qconfig = QConfig(activation=_FLOAT32, weight=default_embedding_fake_quant)
default_embedding_qat_qconfig_4bit = QConfig(
    activation=_FLOAT32, weight=default_embedding_fake_quant_4bit
)

# int8 activations and weights in -127..127, as XNNPACK takes them.
_SIGNED_ACTIVATION = HistogramObserver.with_args(dtype=_QINT8, reduce_range=False, eps=2**-12)
default_symmetric_qnnpack_qconfig = QConfig(
    activation=_SIGNED_ACTIVATION, weight=weight_observer_range_neg_127_to_127
)
default_per_channel_symmetric_qnnpack_qconfig = QConfig(
    activation=_SIGNED_ACTIVATION, weight=per_channel_weight_observer_range_neg_127_to_127
)
_SIGNED_FAKE_QUANT = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver,
    quant_min=-128,
    quant_max=127,
    dtype=_QINT8,
    reduce_range=False,
    eps=2**-12,
)
default_symmetric_qnnpack_qat_qconfig = QConfig(
    activation=_SIGNED_FAKE_QUANT, weight=fused_wt_fake_quant_range_neg_127_to_127
)
default_per_channel_symmetric_qnnpack_qat_qconfig = QConfig(
    activation=_SIGNED_FAKE_QUANT, weight=fused_per_channel_wt_fake_quant_range_neg_127_to_127
)

# torch.ao's names of kernels -> (range halved, one weight scale a channel).
_BACKENDS = {
    "x86": (True, True),
    "fbgemm": (True, True),
    "onednn": (False, True),
    "qnnpack": (False, False),
}


def _backend(function: str, backend: str, version: int, versions: tuple[int, ...]) -> tuple[bool, bool]:
    if backend not in _BACKENDS:
        raise ValueError(
            f"{function}: argument 'backend' must be one of {', '.join(_BACKENDS)}, got {backend!r}"
        )
    if version not in versions:
        names = " or ".join(map(str, versions))
        raise ValueError(f"{function}: argument 'version' must be {names}, got {version!r}")
    return _BACKENDS[backend]


def get_default_qconfig(backend: str = "x86", version: int = 0) -> QConfig:
    """torch.ao's static qconfig of a backend: histograms of activations, min-max of weights.

    Args:
        backend: x86 or fbgemm (7-bit activations), onednn (8 bits), qnnpack (8 bits, one weight
            scale).
        version: 0.

    Raises:
        ValueError: another backend or version.

    Example:
        >>> from torch_ao_ext.quantization import get_default_qconfig
        >>> get_default_qconfig("onednn").activation().quant_max
        255
    """
    reduce_range, per_channel = _backend("get_default_qconfig", backend, version, (0,))
    return QConfig(
        activation=HistogramObserver.with_args(reduce_range=reduce_range),
        weight=default_per_channel_weight_observer if per_channel else default_weight_observer,
    )


def get_default_qat_qconfig(backend: str = "x86", version: int = 1) -> QConfig:
    """torch.ao's training qconfig of a backend: moving averages.

    Args:
        backend: as in get_default_qconfig.
        version: 0 for separate observers and fake-quantize, 1 for the fused ones.

    Raises:
        ValueError: another backend or version.
    """
    reduce_range, per_channel = _backend("get_default_qat_qconfig", backend, version, (0, 1))
    weights = (
        (default_weight_fake_quant, default_per_channel_weight_fake_quant),
        (default_fused_wt_fake_quant, default_fused_per_channel_wt_fake_quant),
    )
    return QConfig(
        activation=(FakeQuantize, FusedMovingAvgObsFakeQuantize)[version].with_args(
            observer=MovingAverageMinMaxObserver,
            quant_min=0,
            quant_max=255,
            dtype=_QUINT8,
            reduce_range=reduce_range,
        ),
        weight=weights[version][per_channel],
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


def get_default_qconfig_dict(backend: str = "x86", version: int = 0) -> dict[str, Any]:
    """`get_default_qconfig_mapping(backend, version).to_dict()`, torch.ao's older form of a mapping."""
    from torch_ao_ext.quantization.qconfig_mapping import get_default_qconfig_mapping  # it imports us

    return get_default_qconfig_mapping(backend, version).to_dict()


def get_default_qat_qconfig_dict(backend: str = "x86", version: int = 1) -> dict[str, Any]:
    """`get_default_qat_qconfig_mapping(backend, version).to_dict()`."""
    from torch_ao_ext.quantization.qconfig_mapping import get_default_qat_qconfig_mapping  # it imports us

    return get_default_qat_qconfig_mapping(backend, version).to_dict()
