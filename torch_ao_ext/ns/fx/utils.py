"""Measures between two tensors or structures of tensors; keys of results; what nodes read and give."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.ns.fx._nodes import (
    NodeInputOrOutputType,
    get_arg_indices_of_inputs_to_log,
    get_node_first_input_and_output_type,
    get_node_input_qparams,
    get_normalized_nth_input,
    get_number_of_non_param_args,
    get_target_type_str,
    op_type_supports_shadowing,
    return_first_non_observer_node,
)
from torch_ao_ext.ns.fx.ns_types import NSResultsType

__all__ = [
    "NodeInputOrOutputType",
    "compute_cosine_similarity",
    "compute_normalized_l2_error",
    "compute_sqnr",
    "get_arg_indices_of_inputs_to_log",
    "get_node_first_input_and_output_type",
    "get_node_input_qparams",
    "get_normalized_nth_input",
    "get_number_of_non_param_args",
    "get_target_type_str",
    "maybe_add_missing_fqns",
    "maybe_dequantize_first_two_tensor_args_and_handle_tuples",
    "op_type_supports_shadowing",
    "rekey_logger_info_on_node_name_of_model",
    "return_first_non_observer_node",
]


def _float(value: Any) -> Any:
    if isinstance(value, QuantizedTensor) or isinstance(value, torch.Tensor) and value.is_quantized:
        return value.dequantize()
    return value


def _of_structures(measure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The measure of tensors; of each pair when the arguments are lists or tuples."""

    @functools.wraps(measure)
    def over(x: Any, y: Any) -> Any:
        if isinstance(x, (tuple, list)):
            if not isinstance(y, (tuple, list)) or len(x) != len(y):
                raise ValueError(
                    f"{measure.__name__}: argument 'y' must have the structure of x ({len(x)} values), got "
                    f"{len(y) if isinstance(y, (tuple, list)) else type(y).__name__}"
                )
            return [over(a, b) for a, b in zip(x, y, strict=True)]
        x, y = _float(x), _float(y)
        for name, value in (("x", x), ("y", y)):
            if not isinstance(value, torch.Tensor):
                raise TypeError(
                    f"{measure.__name__}: argument '{name}' must be a tensor, got {type(value).__name__}"
                )
        if x.shape != y.shape:
            raise ValueError(
                f"{measure.__name__}: argument 'y' must have the shape of x {list(x.shape)}, got "
                f"{list(y.shape)}"
            )
        return measure(x, y)

    return over


@_of_structures
def compute_sqnr(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """`20 log10(|x| / |x - y|)`, in dB; inf when they are equal.

    Args:
        x: reference: float tensor, QuantizedTensor, or a list of such.
        y: the same structure.

    Returns:
        Scalar tensor, or a list of such.

    Example:
        >>> import torch
        >>> from torch_ao_ext.ns.fx.utils import compute_sqnr
        >>> compute_sqnr(torch.ones(4), torch.full((4,), 1.1))
        tensor(20.0000)
    """
    return 20 * torch.log10(torch.linalg.vector_norm(x) / torch.linalg.vector_norm(x - y))


@_of_structures
def compute_normalized_l2_error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """sqrt(sum((x - y)^2) / sum(x^2)); arguments as `compute_sqnr`."""
    return torch.sqrt((x - y).square().sum() / x.square().sum())


@_of_structures
def compute_cosine_similarity(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle, `x . y / (|x| |y|)` over all values; arguments as `compute_sqnr`."""
    return torch.nn.functional.cosine_similarity(x.reshape(1, -1), y.reshape(1, -1))


def maybe_dequantize_first_two_tensor_args_and_handle_tuples(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function of two float tensors, taken of quantized ones and of each pair in lists and tuples.

    Args:
        f: of two float32 tensors and what follows. None is its result for tensors of other dtypes.
    """

    @functools.wraps(f)
    def inner(*args: Any, **kwargs: Any) -> Any:
        x, y, *rest = args
        if any(isinstance(x, kind) and isinstance(y, kind) for kind in (tuple, list)):
            return [inner(a, b, *rest, **kwargs) for a, b in zip(x, y, strict=False)]
        x, y = _float(x), _float(y)
        if x.dtype != torch.float32 or y.dtype != torch.float32:
            return None
        return f(x, y, *rest, **kwargs)

    return inner


def rekey_logger_info_on_node_name_of_model(results: NSResultsType, model_name: str) -> NSResultsType:
    """The results with names of one model's nodes as keys; layers that it does not have keep theirs.

    Args:
        results: layer -> type of values -> model -> results.
        model_name: the model.
    """

    def key(name: str, layer: dict[str, Any]) -> str:
        known = [by_model[model_name] for by_model in layer.values() if model_name in by_model]
        return known[-1][0]["ref_node_name"] if known else name

    return {key(name, layer): layer for name, layer in results.items()}


def maybe_add_missing_fqns(results: NSResultsType) -> None:
    """Gives the results of one model the module names that another has, in place.

    Args:
        results: layer -> type of values -> model -> results.
    """
    for layer in results.values():
        for by_model in layer.values():
            named = next((r for r in by_model.values() if r and r[0]["fqn"] is not None), None)
            for found in by_model.values() if named is not None else ():
                for result, other in zip(found, named, strict=False):
                    if result["fqn"] is None:
                        result["fqn"] = other["fqn"]
