"""What a backend says about the nodes of a match, and which family of operators they are."""

from abc import ABC
from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from torch_ao_ext.nn import intrinsic
from torch_ao_ext.quantization.backend_config import (
    BackendConfig,
    BackendPatternConfig,
    DTypeConfig,
    ObservationType,
)
from torch_ao_ext.quantization.backend_config.utils import in_data_order, nested_patterns
from torch_ao_ext.quantization.fx._qconfig_quantizer import _FUNCTIONS, _OPERATORS
from torch_ao_ext.quantization.fx.utils import all_node_args_have_no_tensors
from torch_ao_ext.quantization.quantizer._targets import ADD, CAT, CONV, CONV_TRANSPOSE, LINEAR, MUL

__all__ = [
    "BatchNormQuantizeHandler",
    "BinaryOpQuantizeHandler",
    "CatQuantizeHandler",
    "ConvReluQuantizeHandler",
    "CopyNodeQuantizeHandler",
    "CustomModuleQuantizeHandler",
    "DefaultNodeQuantizeHandler",
    "EmbeddingQuantizeHandler",
    "FixedQParamsOpQuantizeHandler",
    "GeneralTensorShapeOpQuantizeHandler",
    "LinearReLUQuantizeHandler",
    "QuantizeHandler",
    "RNNDynamicQuantizeHandler",
    "StandaloneModuleQuantizeHandler",
]


def first_node(nodes: Any) -> Any:
    """What computes first in a nested match: the last of its last part."""
    while isinstance(nodes, tuple):
        nodes = nodes[-1]
    return nodes


class QuantizeHandler(ABC):  # noqa: B024
    """The nodes of a match and where among them the root is.

    Args:
        node_pattern: nodes, nested as their pattern is (`fx.match_utils`).
        modules: of the graph, by name.
        root_node_getter: finds the root; default: what computes first.
        is_custom_module: of a class with the user's own way to quantize.
        is_standalone_module: quantized by itself.
    """

    observation_type = ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT
    dtype_configs: list[DTypeConfig] = []  # noqa: RUF012

    def __init__(
        self, node_pattern: Any, modules: dict[str, nn.Module],
        root_node_getter: Callable[..., Any] | None = None, is_custom_module: bool = False,
        is_standalone_module: bool = False,
    ) -> None:  # fmt: skip
        self.node_pattern = node_pattern
        self.modules = modules
        self.root_node = (root_node_getter or first_node)(node_pattern)
        self.is_custom_module_ = is_custom_module
        self.is_standalone_module_ = is_standalone_module
        cache: dict[fx.Node, bool] = {}
        arguments = self.root_node.args if isinstance(self.root_node, fx.Node) else ()
        # Tells x + y from x + 2.
        self.num_tensor_args = sum(
            isinstance(arg, fx.Node) and not all_node_args_have_no_tensors(arg, modules, cache)
            for arg in arguments
        )

    def is_general_tensor_value_op(self) -> bool:
        """Whether the result has the observer of the input: what moves or picks values."""
        return self.observation_type == ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT

    def is_custom_module(self) -> bool:
        """Whether the module is quantized in a way of the user's."""
        return self.is_custom_module_

    def is_standalone_module(self) -> bool:
        """Whether the module is quantized by itself."""
        return self.is_standalone_module_


class BinaryOpQuantizeHandler(QuantizeHandler):
    """Sums and products of two values, with a relu behind or without."""


class CatQuantizeHandler(QuantizeHandler):
    """Joins values."""


class ConvReluQuantizeHandler(QuantizeHandler):
    """Convolutions, transposed ones, too, with what fuses behind them."""


class LinearReLUQuantizeHandler(QuantizeHandler):
    """Linear layers with what fuses behind them."""


class BatchNormQuantizeHandler(QuantizeHandler):
    """Batch norms that are not behind a product."""


class EmbeddingQuantizeHandler(QuantizeHandler):
    """Tables of rows."""


class RNNDynamicQuantizeHandler(QuantizeHandler):
    """Recurrent layers and cells, whose inputs are quantized at run time."""


class DefaultNodeQuantizeHandler(QuantizeHandler):
    """Functions of one value with qparams of their own."""


class FixedQParamsOpQuantizeHandler(QuantizeHandler):
    """Functions whose results have a known range."""


class CopyNodeQuantizeHandler(QuantizeHandler):
    """What moves or picks values, whose results have the observer of their input."""


class GeneralTensorShapeOpQuantizeHandler(QuantizeHandler):
    """What reads sizes."""


class CustomModuleQuantizeHandler(QuantizeHandler):
    """Modules with the user's own way to quantize."""

    def is_custom_module(self) -> bool:
        """Yes."""
        return True


class StandaloneModuleQuantizeHandler(QuantizeHandler):
    """Modules that are quantized by themselves."""

    def is_standalone_module(self) -> bool:
        """Yes."""
        return True


def _named(operators: Any) -> set[Any]:
    """Functions and methods by which programs call ATen operators."""
    return {name for op in operators for table in (_FUNCTIONS, _OPERATORS) for name in table.get(op, ())}


_BINARY = _named(ADD | MUL)
_BY_FUNCTION = [
    (_BINARY, BinaryOpQuantizeHandler),
    (_named(CAT), CatQuantizeHandler),
    (_named(CONV | CONV_TRANSPOSE), ConvReluQuantizeHandler),
    (_named(LINEAR), LinearReLUQuantizeHandler),
]
_BY_CLASS = [
    (_ConvNd, ConvReluQuantizeHandler),
    (nn.Linear, LinearReLUQuantizeHandler),
    ((_BatchNorm, intrinsic.BNReLU2d, intrinsic.BNReLU3d), BatchNormQuantizeHandler),
    ((nn.Embedding, nn.EmbeddingBag), EmbeddingQuantizeHandler),
    ((nn.RNNBase, nn.RNNCellBase), RNNDynamicQuantizeHandler),
]
_BY_OBSERVATION = {
    ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT: CopyNodeQuantizeHandler,
    ObservationType.INPUT_OUTPUT_NOT_OBSERVED: GeneralTensorShapeOpQuantizeHandler,
}


def _family(config: BackendPatternConfig) -> type[QuantizeHandler]:
    first = in_data_order(config)[0]
    kind = config.root_module or first
    for functions, handler in _BY_FUNCTION:
        if any(first is function or first == function for function in functions):
            return handler
    for classes, handler in _BY_CLASS:
        if isinstance(kind, type) and issubclass(kind, classes):
            return handler
    if any(d.output_dtype_with_constraints.scale_exact_match is not None for d in config.dtype_configs):
        return FixedQParamsOpQuantizeHandler
    return _BY_OBSERVATION.get(config.observation_type, DefaultNodeQuantizeHandler)


def _handler(config: BackendPatternConfig) -> type[QuantizeHandler]:
    """A class of the family that knows what the backend says."""
    family, by_tensors = _family(config), config._num_tensor_args_to_observation_type

    class Handler(family):
        observation_type = config.observation_type
        dtype_configs = config.dtype_configs

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if by_tensors and self.num_tensor_args not in by_tensors:
                raise ValueError(
                    f"{family.__name__}: the backend must have an observation type for "
                    f"{self.num_tensor_args} tensors, got {sorted(by_tensors)}"
                )
            self.observation_type = by_tensors.get(self.num_tensor_args, self.observation_type)

    Handler.__name__ = Handler.__qualname__ = family.__name__
    Handler.__doc__ = family.__doc__
    return Handler


def _get_pattern_to_quantize_handlers(backend_config: BackendConfig) -> dict[Any, type[QuantizeHandler]]:
    """Nested pattern -> class of handlers."""
    return {pattern: _handler(config) for pattern, config in nested_patterns(backend_config).items()}
