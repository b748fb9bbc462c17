"""Numeric suite of eager mode: weights, results and shadows of a float and a quantized model."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.nn import quantized
from torch_ao_ext.ns._shadow import Logger, OutputLogger, Shadow, ShadowLogger

__all__ = [
    "Logger",
    "OutputLogger",
    "Shadow",
    "ShadowLogger",
    "compare_model_outputs",
    "compare_model_stub",
    "compare_weights",
    "get_logger_dict",
    "get_matching_activations",
    "prepare_model_outputs",
    "prepare_model_with_stubs",
]

_FUNCTIONS = ("add", "add_relu", "add_scalar", "mul", "mul_scalar", "cat", "matmul")
_STATS = ".stats"


def _named(state: dict[str, Any], *names: str) -> str | None:
    return next((name for name in names if name in state), None)


def _weight_pair(
    key: str, floats: dict[str, Any], state: dict[str, Any]
) -> tuple[str, QuantizedTensor] | None:
    """Float name and value of an int8 or int16 weight; None for anything else."""
    value = state[key]
    if not isinstance(value, torch.Tensor) or value.dtype not in (torch.int8, torch.int16):
        return None
    prefix, _, leaf = key.rpartition(".")
    prefix = f"{prefix}." if prefix else ""
    plain = leaf.replace("qweight", "weight")
    scale = _named(state, f"{key}_scale", f"{prefix}{leaf.replace('qweight', 'weight_scale')}")
    # The layer is the first part of a fused container.
    name = _named(floats, f"{prefix}{plain}", f"{prefix}0.{plain}")
    if scale is None or name is None or floats[name].shape != value.shape:
        return None
    return name, QuantizedTensor(value, state[scale], state.get(scale.replace("_scale", "_zero_point")))


def compare_weights(
    float_dict: dict[str, Any], quantized_dict: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Weights of a float and of a quantized model side by side.

    Args:
        float_dict: state_dict of the float model.
        quantized_dict: state_dict of the quantized model.

    Returns:
        Name of the float weight -> {"float": tensor, "quantized": QuantizedTensor}, for each int8
        or int16 weight under the name of a float one.

    Example:
        >>> import torch
        >>> from torch_ao_ext.ns._numeric_suite import compare_weights
        >>> from torch_ao_ext.quantization import quantize_dynamic
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4)).eval()
        >>> found = compare_weights(model.state_dict(), quantize_dynamic(model).state_dict())
        >>> found["0.weight"]["quantized"].dequantize().shape
        torch.Size([4, 8])
    """
    pairs = [_weight_pair(key, float_dict, quantized_dict) for key in quantized_dict]
    return {
        name: {"float": float_dict[name], "quantized": weight}
        for name, weight in (pair for pair in pairs if pair is not None)
    }


def get_logger_dict(mod: nn.Module, prefix: str = "") -> dict[str, dict[str, list[Any]]]:
    """Name of each Logger in a model, with ".stats" behind it -> its record.

    Args:
        mod: model with loggers.
        prefix: put before the names.
    """
    start = f"{prefix}." if prefix else ""
    return {
        f"{start}{name}{_STATS}" if name else f"{prefix}{_STATS}".lstrip("."): module.stats
        for name, module in mod.named_modules()
        if isinstance(module, Logger)
    }


def _check(op: str, **models: Any) -> None:
    for name, model in models.items():
        if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
            raise ValueError(
                f"{op}: argument '{name}' must be a Python nn.Module, got {type(model).__name__}"
            )


def prepare_model_with_stubs(
    float_module: nn.Module, q_module: nn.Module, module_swap_list: Iterable[type], logger_cls: Any
) -> None:
    """Puts a Shadow in the place of each quantized module whose float counterpart is listed; in place.

    Args:
        float_module: what was quantized, with the same names.
        q_module: quantized model, changed.
        module_swap_list: classes of float modules.
        logger_cls: see `Shadow`.

    Raises:
        ValueError: not two Python modules, or no module of these classes has a quantized counterpart.
    """
    _check("prepare_model_with_stubs", float_module=float_module, q_module=q_module)
    floats, wanted = dict(float_module.named_modules()), tuple(module_swap_list)
    count = 0
    for name, parent in list(q_module.named_modules()):
        for key, child in list(parent.named_children()):
            other = floats.get(f"{name}.{key}" if name else key)
            if other is None or type(other) is type(child) or not isinstance(other, wanted):
                continue
            parent._modules[key] = Shadow(child, other, logger_cls)
            count += 1
    if not count:
        names = ", ".join(sorted(kind.__name__ for kind in wanted))
        raise ValueError(
            "prepare_model_with_stubs: argument 'module_swap_list' must name classes of float modules that "
            f"are quantized in q_module, got {names or 'none'}"
        )


def compare_model_stub(
    float_model: nn.Module,
    q_model: nn.Module,
    module_swap_list: Iterable[type],
    *data: Any,
    logger_cls: Any = ShadowLogger,
) -> dict[str, dict[str, list[Any]]]:
    """Each quantized layer against its float one on the same input: what it adds by itself.

    Args:
        float_model: what was quantized.
        q_model: quantized model; gets Shadow modules.
        module_swap_list: classes of float modules to compare.
        data: positional inputs of the model.
        logger_cls: a class as ShadowLogger.

    Returns:
        "NAME.stats" -> {"float": values, "quantized": values}.

    Raises:
        ValueError: as `prepare_model_with_stubs`.
    """
    prepare_model_with_stubs(float_model, q_model, module_swap_list, logger_cls)
    with torch.no_grad():
        q_model(*data)
    records = get_logger_dict(q_model)
    return {name.replace(".logger.stats", _STATS): stats for name, stats in records.items()}


def _default_allow_list() -> set[type]:
    from torch_ao_ext.quantization.quantization_mappings import (
        get_default_dynamic_quant_module_mappings,
        get_default_static_quant_module_mappings,
    )

    tables = (get_default_static_quant_module_mappings(), get_default_dynamic_quant_module_mappings())
    classes = {kind for table in tables for pair in table.items() for kind in pair if isinstance(kind, type)}
    return classes | {quantized.FloatFunctional, quantized.QFunctional}


def _log_functions(module: nn.Module) -> None:
    """A logger behind each method of a QFunctional."""

    def logged(method: Any) -> Any:
        return lambda *args, **kwargs: module.activation_post_process(method(*args, **kwargs))

    for name in _FUNCTIONS:
        setattr(module, name, logged(getattr(module, name)))


def prepare_model_outputs(
    float_module: nn.Module,
    q_module: nn.Module,
    logger_cls: Any = OutputLogger,
    allow_list: Iterable[type] | None = None,
) -> None:
    """Puts a logger behind each layer of both models; in place.

    Args:
        float_module: float model.
        q_module: quantized model.
        logger_cls: made for each layer.
        allow_list: classes of layers; default those that are quantized, float and quantized.
    """
    _check("prepare_model_outputs", float_module=float_module, q_module=q_module)
    wanted = _default_allow_list() if allow_list is None else set(allow_list)
    for model in (float_module, q_module):
        for module in list(model.modules()):
            if type(module) not in wanted:
                continue
            module.add_module("activation_post_process", logger_cls())
            if isinstance(module, quantized.QFunctional):
                _log_functions(module)
            elif not isinstance(module, quantized.FloatFunctional):  # which calls it by itself
                module.register_forward_hook(lambda m, args, result: m.activation_post_process(result))


def get_matching_activations(
    float_module: nn.Module, q_module: nn.Module
) -> dict[str, dict[str, list[Any]]]:
    """Records of loggers under the same name in both models.

    Returns:
        "NAME.stats" -> {"float": values, "quantized": values}.
    """
    floats, quants = get_logger_dict(float_module), get_logger_dict(q_module)
    return {
        name.replace(".activation_post_process.stats", _STATS): {
            "float": floats[name]["tensor_val"],
            "quantized": stats["tensor_val"],
        }
        for name, stats in quants.items()
        if name in floats and stats["tensor_val"]
    }


def compare_model_outputs(
    float_model: nn.Module,
    q_model: nn.Module,
    *data: Any,
    logger_cls: Any = OutputLogger,
    allow_list: Iterable[type] | None = None,
) -> dict[str, dict[str, list[Any]]]:
    """Results of each layer in a run of both models: what all layers up to here add.

    Args:
        float_model: float model; gets loggers.
        q_model: quantized model; gets loggers.
        data: positional inputs of both.
        logger_cls: see `prepare_model_outputs`.
        allow_list: see `prepare_model_outputs`.

    Returns:
        See `get_matching_activations`; values of the quantized model are dequantized.

    Example:
        >>> import torch
        >>> from torch_ao_ext.ns._numeric_suite import compare_model_outputs
        >>> from torch_ao_ext.quantization import quantize_dynamic
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4)).eval()
        >>> sorted(compare_model_outputs(model, quantize_dynamic(model), torch.randn(2, 8))["0.stats"])
        ['float', 'quantized']
    """
    prepare_model_outputs(float_model, q_model, logger_cls, allow_list)
    with torch.no_grad():
        float_model(*data)
        q_model(*data)
    return get_matching_activations(float_model, q_model)
