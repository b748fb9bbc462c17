"""Input-weight equalization: what its configs are made of, and which layers need it.

A layer y = W x is also (W / s) (s x) with a factor s for each input channel. With
s = sqrt(range of the channel's weights / range of its inputs) both have ranges of the same
proportions, which spends one scale for all inputs and one for a weight row better.
"""

import operator
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from torch_ao_ext.quantization.observer import PerChannelMinMaxObserver
from torch_ao_ext.quantization.observer._base import _PER_TENSOR, _QINT8, _QUINT8, _PartialWrapper

__all__ = [
    "EqualizationQConfig",
    "_InputEqualizationObserver",
    "_WeightEqualizationObserver",
    "calculate_equalization_scale",
    "default_equalization_qconfig",
    "get_equalization_qconfig_dict",
    "get_layer_sqnr_dict",
    "input_equalization_observer",
    "is_equalization_observer",
    "reshape_scale",
    "weight_equalization_observer",
]

_BY_CHANNEL = {
    torch.per_tensor_affine: torch.per_channel_affine,
    torch.per_tensor_symmetric: torch.per_channel_symmetric,
}


def reshape_scale(scale: torch.Tensor, axis: int, input: torch.Tensor) -> torch.Tensor:
    """A view of scale `[n]` that broadcasts along one axis of input.

    Args:
        scale: one value for each place on the axis.
        axis: of input.
        input: of n places there.
    """
    shape = [1] * input.ndim
    shape[axis] = input.shape[axis]
    return scale.view(shape)


def _is_one(scale: torch.Tensor) -> bool:
    return scale.numel() == 1 and bool(scale == 1)


def _check_dims(name: str, x: torch.Tensor) -> None:
    if not 2 <= x.ndim <= 5:
        raise ValueError(f"{name}: argument 'x' must have 2 to 5 dimensions, got {x.ndim}")


class _ByChannel(nn.Module):
    """A range for each place on axis 1."""

    def __init__(
        self, dtype: torch.dtype, qscheme: torch.qscheme, quant_min: int | None, quant_max: int | None,
        factory_kwargs: dict[str, Any] | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dtype, self.qscheme = dtype, qscheme
        self._observer_arguments: dict[str, Any] = {
            "ch_axis": 1, "dtype": dtype, "qscheme": _BY_CHANNEL.get(qscheme, qscheme),
            "quant_min": quant_min, "quant_max": quant_max, "factory_kwargs": factory_kwargs,
        }  # fmt: skip
        self.equalization_scale = torch.tensor(1)

    @classmethod
    def with_args(cls, **kwargs: Any) -> _PartialWrapper:
        """A factory of this class with these arguments."""
        return _PartialWrapper(cls).with_args(**kwargs)


class _InputEqualizationObserver(_ByChannel):
    """Range of each input channel; `[N, C, *] -> [C]`.

    Args:
        dtype: of the quantized values.
        qscheme: per_tensor_affine or per_tensor_symmetric.
        quant_min: smallest quantized value.
        quant_max: largest quantized value.
        factory_kwargs: `{"device": ...}` for the buffers.

    Raises:
        TypeError: a qscheme per channel.
    """

    def __init__(
        self,
        dtype: torch.dtype = _QUINT8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if qscheme not in _PER_TENSOR:
            raise TypeError(
                "_InputEqualizationObserver: argument 'qscheme' must be per_tensor_affine or "
                f"per_tensor_symmetric, got {qscheme}"
            )
        super().__init__(dtype, qscheme, quant_min, quant_max, factory_kwargs)
        self.input_obs = PerChannelMinMaxObserver(**self._observer_arguments)
        self.equalization_shape: list[int] = []

    def forward(self, x_orig: torch.Tensor) -> torch.Tensor:
        """Widens the ranges by x_orig and returns it.

        Raises:
            ValueError: not 2 to 5 dimensions, or other channels than before.
        """
        _check_dims(type(self).__name__, x_orig)
        self.equalization_shape = [1] * x_orig.ndim
        self.equalization_shape[1] = x_orig.size(1)
        return self.input_obs(x_orig)

    def get_input_minmax(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest value of each channel."""
        return self.input_obs.min_val, self.input_obs.max_val

    def set_equalization_scale(self, equalization_scale: torch.Tensor) -> None:
        """Keeps a factor for each channel, in a shape that broadcasts to the inputs; 1 is no factor."""
        if not _is_one(equalization_scale):
            self.equalization_scale = equalization_scale.reshape(self.equalization_shape)

    def calculate_scaled_minmax(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Smallest and largest of all scaled inputs; Nones and a warning without scale."""
        if _is_one(self.equalization_scale):
            warnings.warn(
                f"{type(self).__name__}: has no equalization scale, calculate_scaled_minmax gives None",
                stacklevel=2,
            )
            return None, None
        low, high = self.get_input_minmax()
        scale = self.equalization_scale.reshape(-1)
        return (low * scale).min(), (high * scale).max()


class _WeightEqualizationObserver(_ByChannel):
    """Range of the weights of each input channel; `[N, C, *] -> [C]`.

    Args:
        dtype: of the quantized values.
        qscheme: per tensor or per channel, affine or symmetric.
        quant_min: smallest quantized value.
        quant_max: largest quantized value.
        factory_kwargs: `{"device": ...}` for the buffers.
    """

    def __init__(
        self,
        dtype: torch.dtype = _QINT8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(dtype, qscheme, quant_min, quant_max, factory_kwargs)
        self.ch_axis = 1
        self.weight_col_obs = PerChannelMinMaxObserver(**self._observer_arguments)

    def forward(self, w_orig: torch.Tensor) -> torch.Tensor:
        """Widens the ranges by w_orig and returns it.

        Raises:
            ValueError: not 2 to 5 dimensions, or other channels than before.
        """
        _check_dims(type(self).__name__, w_orig)
        return self.weight_col_obs(w_orig)

    def get_weight_col_minmax(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest weight of each input channel."""
        return self.weight_col_obs.min_val, self.weight_col_obs.max_val

    def set_equalization_scale(self, equalization_scale: torch.Tensor) -> None:
        """Keeps a factor for each input channel."""
        self.equalization_scale = equalization_scale


def is_equalization_observer(observer: Any) -> bool:
    """Whether it is one of the two observers of this file."""
    return isinstance(observer, _ByChannel)


def calculate_equalization_scale(
    input_obs: _InputEqualizationObserver, weight_obs: _WeightEqualizationObserver
) -> torch.Tensor:
    """sqrt(range of weights / range of inputs) by input channel, `[C]`; 1 where that is 0 or not finite.

    Args:
        input_obs: has seen inputs.
        weight_obs: has seen the weight.

    Returns:
        The factors, or a single 1 and a warning when one has seen nothing.

    Raises:
        ValueError: not the same number of channels.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.fx import _equalize
        >>> inputs = _equalize.input_equalization_observer()
        >>> weights = _equalize.weight_equalization_observer()
        >>> _ = inputs(torch.tensor([[0.0, 0.0], [1.0, 4.0]]))
        >>> _ = weights(torch.tensor([[0.0, 0.0], [4.0, 1.0]]))
        >>> _equalize.calculate_equalization_scale(inputs, weights)
        tensor([2.0000, 0.5000])
    """
    (low, high), (least, most) = input_obs.get_input_minmax(), weight_obs.get_weight_col_minmax()
    if low.numel() == 0 or least.numel() == 0:
        warnings.warn(
            "calculate_equalization_scale: both observers must have seen values, gives a scale of 1",
            stacklevel=2,
        )
        return torch.tensor(1)
    if low.shape != least.shape:
        raise ValueError(
            "calculate_equalization_scale: inputs and weights must have the same channels, got "
            f"{low.numel()} and {least.numel()}"
        )
    scale = ((most - least) / (high - low)).sqrt()
    return torch.where(scale.isfinite() & (scale != 0), scale, torch.ones_like(scale))


class _Fields(NamedTuple):
    input_activation: Callable[..., Any]
    weight: Callable[..., Any]


class EqualizationQConfig(_Fields):
    """How a layer is equalized.

    Args:
        input_activation: class or factory of an _InputEqualizationObserver; nn.Identity: not at all.
        weight: class or factory of a _WeightEqualizationObserver.

    Raises:
        ValueError: an observer instead of a factory.
    """

    __slots__ = ()

    def __new__(
        cls, input_activation: Callable[..., Any] = nn.Identity, weight: Callable[..., Any] = nn.Identity
    ) -> "EqualizationQConfig":
        for name, value in (("input_activation", input_activation), ("weight", weight)):
            if isinstance(value, nn.Module):
                raise ValueError(
                    f"EqualizationQConfig: argument '{name}' must be a class or factory (see with_args), got "
                    f"the module {type(value).__name__}"
                )
        return super().__new__(cls, input_activation, weight)


input_equalization_observer = _InputEqualizationObserver.with_args(
    dtype=_QUINT8, qscheme=torch.per_tensor_symmetric
)
weight_equalization_observer = _WeightEqualizationObserver.with_args(
    dtype=_QINT8, qscheme=torch.per_channel_symmetric
)
default_equalization_qconfig = EqualizationQConfig(input_equalization_observer, weight_equalization_observer)


def get_layer_sqnr_dict(
    model_a: fx.GraphModule, model_b: fx.GraphModule, x: torch.Tensor
) -> dict[str, float]:
    """Signal to quantization noise, in dB, of each operator that both graphs have, by layer.

    Args:
        model_a: from `prepare_fx`; computes in float.
        model_b: from `convert_fx` of the same model.
        x: input of both.

    Returns:
        Name of the layer -> dB; of the last operator where a layer has several.
    """
    from torch_ao_ext.ns import _numeric_suite_fx as suite
    from torch_ao_ext.ns.fx.utils import compute_sqnr

    names = ("fp32", "int8")
    first, second = suite.add_loggers(names[0], model_a, names[1], model_b, suite.OutputLogger)
    with torch.no_grad():
        first(x)
        second(x)
    results = suite.extract_logger_info(first, second, suite.OutputLogger, names[1])
    suite.extend_logger_results_with_comparison(results, *names, compute_sqnr, "sqnr")
    found: dict[str, float] = {}
    for layer in results.values():
        result = layer["node_output"][names[1]][0]
        found[result["fqn"]] = result["sqnr"][0]
    return found


def get_equalization_qconfig_dict(layer_sqnr_dict: dict[str, float], num_layers_to_equalize: int) -> Any:
    """The `_equalization_config` of the noisiest layers.

    Args:
        layer_sqnr_dict: from `get_layer_sqnr_dict`.
        num_layers_to_equalize: how many, those of the lowest values.
    """
    ranked = sorted(layer_sqnr_dict.items(), key=operator.itemgetter(1))
    chosen = [(name, default_equalization_qconfig) for name, _ in ranked[:num_layers_to_equalize]]
    return {"module_name": chosen}
