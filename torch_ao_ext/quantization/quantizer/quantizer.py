"""What a quantizer writes on a graph: specs of tensors, annotations of nodes, the base class."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

__all__ = [
    "DerivedQuantizationSpec",
    "EdgeOrNode",
    "FixedQParamsQuantizationSpec",
    "QuantizationAnnotation",
    "QuantizationSpec",
    "QuantizationSpecBase",
    "Quantizer",
    "SharedQuantizationSpec",
]

# Where a node keeps its annotation: node.meta[Q_ANNOTATION_KEY].
Q_ANNOTATION_KEY = "quantization_annotation"

# A tensor of the graph: as the argument (producer, consumer), or as what a node returns.
EdgeOrNode = tuple[fx.Node, fx.Node] | fx.Node


class QuantizationSpecBase(ABC):  # noqa: B024
    """How a tensor is quantized; subclasses say from where its qparams come."""


def _check_range(spec: Any) -> None:
    name = type(spec).__name__
    if spec.quant_min is not None and spec.quant_max is not None and spec.quant_min > spec.quant_max:
        raise ValueError(
            f"{name}: argument 'quant_min' must be at most quant_max {spec.quant_max}, got {spec.quant_min}"
        )


def _check_axis(spec: Any) -> None:
    if spec.ch_axis is not None and spec.ch_axis < 0:
        raise ValueError(f"{type(spec).__name__}: argument 'ch_axis' must be at least 0, got {spec.ch_axis}")


@dataclass(eq=True, frozen=True)
class QuantizationSpec(QuantizationSpecBase):
    """Quantized with qparams of an observer or fake-quant of its own.

    Args:
        dtype: torch.uint8, int8 or int32; float32, float16 or bfloat16 leave it float.
        observer_or_fake_quant_ctr: factory, as from `HistogramObserver.with_args(...)`.
        quant_min: smallest quantized value; None is that of dtype.
        quant_max: largest quantized value; None is that of dtype.
        qscheme: per tensor or per channel, affine or symmetric.
        ch_axis: axis of the channels, for a per-channel scheme.
        is_dynamic: qparams are computed at run time.

    Raises:
        ValueError: quant_min above quant_max, negative ch_axis.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.observer import MinMaxObserver
        >>> from torch_ao_ext.quantization.quantizer import QuantizationSpec
        >>> QuantizationSpec(torch.uint8, MinMaxObserver, 0, 255).is_dynamic
        False
    """

    dtype: torch.dtype
    observer_or_fake_quant_ctr: Any
    quant_min: int | None = None
    quant_max: int | None = None
    qscheme: torch.qscheme | None = None
    ch_axis: int | None = None
    is_dynamic: bool = False

    def __post_init__(self) -> None:
        _check_range(self)
        _check_axis(self)


@dataclass(eq=True, frozen=True)
class FixedQParamsQuantizationSpec(QuantizationSpecBase):
    """Quantized with these qparams, whatever the data, as the output of a sigmoid.

    Args:
        dtype: see QuantizationSpec, as the arguments not listed.
        scale: real units per step.
        zero_point: quantized value of 0.
    """

    dtype: torch.dtype
    scale: float
    zero_point: int
    quant_min: int | None = None
    quant_max: int | None = None
    qscheme: torch.qscheme | None = None
    is_dynamic: bool = False

    def __post_init__(self) -> None:
        _check_range(self)


@dataclass(eq=True, frozen=True)
class SharedQuantizationSpec(QuantizationSpecBase):
    """Quantized with the observer of another tensor.

    Args:
        edge_or_node: that tensor.
    """

    edge_or_node: EdgeOrNode


@dataclass(eq=True, frozen=True)
class DerivedQuantizationSpec(QuantizationSpecBase):
    """Quantized with qparams computed from the observers of other tensors, as a bias.

    Args:
        derived_from: those tensors.
        derive_qparams_fn: their observers -> (scale, zero_point), called at convert.
        dtype: see QuantizationSpec, as the arguments not listed.
    """

    derived_from: list[EdgeOrNode]
    derive_qparams_fn: Callable[[list[Any]], tuple[torch.Tensor, torch.Tensor]]
    dtype: torch.dtype
    quant_min: int | None = None
    quant_max: int | None = None
    qscheme: torch.qscheme | None = None
    ch_axis: int | None = None
    is_dynamic: bool = False

    def __post_init__(self) -> None:
        _check_range(self)
        _check_axis(self)


@dataclass
class QuantizationAnnotation:
    """How the tensors of one node are quantized.

    Args:
        input_qspec_map: argument node -> its spec.
        output_qspec: spec of what the node returns.
        allow_implicit_sharing: arguments with the spec of their producer share its observer.
        custom: free for the quantizer.
    """

    input_qspec_map: dict[fx.Node, QuantizationSpecBase | None] = field(default_factory=dict)
    output_qspec: QuantizationSpecBase | None = None
    allow_implicit_sharing: bool = True
    custom: dict[str, Any] = field(default_factory=dict)
    _annotated: bool = False


class Quantizer(ABC):
    """Says which tensors of an exported graph are quantized, and how."""

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Changes the graph before it is annotated; by default not at all."""
        return model

    @abstractmethod
    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Writes a QuantizationAnnotation into the meta of nodes."""

    @abstractmethod
    def validate(self, model: fx.GraphModule) -> None:
        """Raises when the backend cannot run the annotated graph."""

    def prepare_obs_or_fq_callback(  # noqa: B027
        self, model: fx.GraphModule, edge_or_node_to_obs_or_fq: dict[EdgeOrNode, Any]
    ) -> None:
        """Changes the observers before they are inserted; by default not at all."""
