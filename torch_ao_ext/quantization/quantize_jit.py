"""TorchScript mode: a script or trace in, a TorchScript program of int8 operators out.

The program is converted to a graph at its first run, prepared and converted as any exported graph
(`quantize_pt2e`), and scripted again.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_ao_ext.quantization.qconfig import QConfig
from torch_ao_ext.quantization.qconfig_mapping import QConfigMapping

__all__ = [
    "convert_dynamic_jit",
    "convert_jit",
    "fuse_conv_bn_jit",
    "prepare_dynamic_jit",
    "prepare_jit",
    "quantize_dynamic_jit",
    "quantize_jit",
    "script_qconfig",
    "script_qconfig_dict",
]


def _check_program(op: str, model: Any, inplace: Any) -> None:
    if not isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"{op}: argument 'model' must be a torch.jit.ScriptModule, got {type(model).__name__}"
        )
    if model.training:
        raise ValueError(f"{op}: argument 'model' must be in evaluation mode (call model.eval())")
    if inplace:
        raise ValueError(
            f"{op}: argument 'inplace' must be False: the result is a new program, got {inplace!r}"
        )


def script_qconfig(qconfig: Any) -> Any:
    """The QConfig, checked; observers stay Python modules, which see the data of the graph.

    Raises:
        ValueError: not a QConfig.
    """
    if not (hasattr(qconfig, "activation") and hasattr(qconfig, "weight")):
        raise ValueError(f"script_qconfig: argument 'qconfig' must be a QConfig, got {qconfig!r}")
    return QConfig(qconfig.activation, qconfig.weight)


def script_qconfig_dict(qconfig_dict: dict[str, Any]) -> dict[str, Any]:
    """script_qconfig of each value; None stays None.

    Raises:
        ValueError: not a dict of names, or a value that is no QConfig.
    """
    if not isinstance(qconfig_dict, dict) or not all(isinstance(key, str) for key in qconfig_dict):
        raise ValueError(
            "script_qconfig_dict: argument 'qconfig_dict' must be a dict of module names, got "
            f"{qconfig_dict!r}"
        )
    return {key: None if value is None else script_qconfig(value) for key, value in qconfig_dict.items()}


def _mapping(op: str, model: torch.jit.ScriptModule, qconfig_dict: Any) -> QConfigMapping:
    names = {name for name, _ in model.named_modules()}
    mapping = QConfigMapping()
    for name, qconfig in script_qconfig_dict(qconfig_dict).items():
        if name not in names:
            raise ValueError(f"{op}: argument 'qconfig_dict' must name modules of the model, got {name!r}")
        if name:
            mapping.set_module_name(name, qconfig)
        else:
            mapping.set_global(qconfig)
    return mapping


def _programs() -> Any:
    """The flow; it loads what works on graphs, so at its first use."""
    return importlib.import_module("torch_ao_ext.quantization._jit_program")


def prepare_jit(
    model: torch.jit.ScriptModule, qconfig_dict: dict[str, Any], inplace: bool = False
) -> nn.Module:
    """Makes a module that runs as the program and observes what will be quantized.

    Args:
        model: script or trace, in evaluation mode; left as it is.
        qconfig_dict: module name -> QConfig or None; "" is the rest. Names choose layers with
            weights; what lies between them follows "".
        inplace: must be False.

    Returns:
        A module for calibration, then for `convert_jit`. Its first call captures the graph: branches
        and loops are those of its inputs.

    Raises:
        ValueError: not a ScriptModule, training mode, a name that no module has.
    """
    _check_program("prepare_jit", model, inplace)
    return _programs().ObservedProgram(model, _mapping("prepare_jit", model, qconfig_dict))


def convert_jit(
    model: nn.Module, inplace: bool = False, debug: bool = False, preserved_attrs: list[str] | None = None
) -> torch.jit.ScriptModule:
    """The int8 program of a calibrated one.

    Args:
        model: from `prepare_jit`, run on example data; left as it is.
        inplace: must be False.
        debug: no effect: int8 weights are plain tensors always.
        preserved_attrs: attributes of the program that the result has as well.

    Returns:
        A ScriptModule of `torch_ao` operators; sizes stay free where the capture left them free.

    Raises:
        ValueError: not from prepare_jit, not run yet, an attribute that the program does not have.
    """
    if inplace:
        raise ValueError(f"convert_jit: argument 'inplace' must be False, got {inplace!r}")
    return _programs().convert_observed(model, list(preserved_attrs or ()))


def quantize_jit(
    model: torch.jit.ScriptModule,
    qconfig_dict: dict[str, Any],
    run_fn: Callable[..., Any],
    run_args: Any,
    inplace: bool = False,
    debug: bool = False,
) -> torch.jit.ScriptModule:
    """`prepare_jit`, `run_fn(prepared, *run_args)`, `convert_jit`.

    Args:
        model: script or trace, in evaluation mode; left as it is.
        qconfig_dict: see `prepare_jit`.
        run_fn: runs the prepared module on example data.
        run_args: a tuple of arguments of run_fn, or one.
        inplace: must be False.
        debug: see `convert_jit`.

    Raises:
        ValueError: see `prepare_jit` and `convert_jit`.

    Example:
        >>> import torch, warnings
        >>> warnings.simplefilter("ignore")
        >>> from torch_ao_ext.quantization import get_default_qconfig, quantize_jit
        >>> x = torch.randn(4, 8)
        >>> program = torch.jit.trace(torch.nn.Linear(8, 2).eval(), x)
        >>> qconfigs = {"": get_default_qconfig("onednn")}
        >>> quantize_jit(program, qconfigs, lambda model, x: model(x), (x,))(x).shape
        torch.Size([4, 2])
    """
    prepared = prepare_jit(model, qconfig_dict, inplace)
    with torch.no_grad():
        run_fn(prepared, *(run_args if isinstance(run_args, (tuple, list)) else (run_args,)))
    return convert_jit(prepared, debug=debug)


def prepare_dynamic_jit(
    model: torch.jit.ScriptModule, qconfig_dict: dict[str, Any], inplace: bool = False
) -> nn.Module:
    """Notes the QConfigs for `convert_dynamic_jit`; arguments as `prepare_jit`, dynamic QConfigs."""
    _check_program("prepare_dynamic_jit", model, inplace)
    return _programs().DynamicProgram(model, _mapping("prepare_dynamic_jit", model, qconfig_dict))


def convert_dynamic_jit(
    model: nn.Module, inplace: bool = False, debug: bool = False, preserved_attrs: list[str] | None = None
) -> torch.jit.ScriptModule:
    """The program with int8 linear and recurrent layers; arguments as `convert_jit`.

    Raises:
        ValueError: not from prepare_dynamic_jit, preserved_attrs, no layer to quantize.
    """
    if inplace:
        raise ValueError(f"convert_dynamic_jit: argument 'inplace' must be False, got {inplace!r}")
    if preserved_attrs:
        raise ValueError(
            "convert_dynamic_jit: argument 'preserved_attrs' must be empty: the program is frozen, got "
            f"{preserved_attrs!r}"
        )
    return _programs().convert_dynamic(model)


def quantize_dynamic_jit(
    model: torch.jit.ScriptModule, qconfig_dict: dict[str, Any], inplace: bool = False, debug: bool = False
) -> torch.jit.ScriptModule:
    """int8 weights for the linear and recurrent layers of a program, inputs quantized at run time.

    Args:
        model: script or trace, in evaluation mode; left as it is.
        qconfig_dict: module name -> dynamic QConfig or None; "" is the rest.
        inplace: must be False.
        debug: see `convert_jit`.

    Returns:
        A frozen ScriptModule.

    Raises:
        ValueError: not a ScriptModule, training mode, a name that no module has, no such layer.

    Example:
        >>> import torch, warnings
        >>> warnings.simplefilter("ignore")
        >>> from torch_ao_ext.quantization import default_dynamic_qconfig, quantize_dynamic_jit
        >>> program = torch.jit.script(torch.nn.Linear(8, 2).eval())
        >>> quantize_dynamic_jit(program, {"": default_dynamic_qconfig})(torch.randn(3, 8)).shape
        torch.Size([3, 2])
    """
    return convert_dynamic_jit(prepare_dynamic_jit(model, qconfig_dict, inplace), debug=debug)


def fuse_conv_bn_jit(model: torch.jit.ScriptModule, inplace: bool = False) -> torch.jit.ScriptModule:
    """Folds batch norms into the convolutions before them; `prepare_jit` does it by itself.

    Args:
        model: script or trace, in evaluation mode; left as it is.
        inplace: must be False.

    Returns:
        A frozen ScriptModule: its weights are constants.

    Raises:
        ValueError: not a ScriptModule, training mode.
    """
    _check_program("fuse_conv_bn_jit", model, inplace)
    return torch.jit.freeze(model)
