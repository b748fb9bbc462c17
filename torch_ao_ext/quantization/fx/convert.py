"""convert: `convert_fx` and `convert_to_reference_fx` under the name of torch.ao's pass, and its steps."""

from typing import Any

from torch import fx, nn

from torch_ao_ext._flags import check_flags
from torch_ao_ext._lower import lower_nodes
from torch_ao_ext.quantization.fx._fates import IntegerBorders
from torch_ao_ext.quantization.fx._flow import convert_prepared
from torch_ao_ext.quantization.fx._one_node import (
    convert_custom_module,
    convert_weighted_module,
    replace_module,
)
from torch_ao_ext.quantization.fx.graph_module import ObservedStandaloneGraphModule, as_reference

__all__ = ["convert", "convert_custom_module", "convert_standalone_module", "convert_weighted_module"]


def convert(
    model: fx.GraphModule, is_reference: bool = False, convert_custom_config: Any = None,
    is_standalone_module: bool = False, _remove_qconfig_flag: bool = True, qconfig_mapping: Any = None,
    backend_config: Any = None, is_decomposed: bool = False, keep_original_weights: bool = False,
) -> fx.GraphModule:  # fmt: skip
    """Makes the int8 graph of a calibrated one, or the graph that says what it computes.

    Args:
        model: from `fx.prepare.prepare`, `prepare_fx` or `prepare_qat_fx`; left as it is.
        is_reference: float operators between quantize and dequantize operators.
        convert_custom_config: see `convert_fx`.
        is_standalone_module: torch.ao's flag; a graph knows its borders.
        _remove_qconfig_flag: torch.ao's flag; graphs have no qconfigs.
        qconfig_mapping: see `convert_fx`.
        backend_config: see `convert_fx`.
        is_decomposed: torch.ao's flag; these operators are always those of `quantized_decomposed`.
        keep_original_weights: see `convert_fx`; without effect with is_reference, as in torch.ao.

    Raises:
        TypeError: not a graph module; is_reference or keep_original_weights is no bool.
        ValueError: as `convert_fx`.
    """
    check_flags("convert", is_reference=is_reference, keep_original_weights=keep_original_weights)
    arguments = (model, convert_custom_config, qconfig_mapping, backend_config)
    make = as_reference if is_reference else lower_nodes
    return convert_prepared("convert", *arguments, make, keep_original_weights and not is_reference)


def convert_standalone_module(
    node: fx.Node, modules: dict[str, nn.Module], model: fx.GraphModule, is_reference: bool,
    backend_config: Any,
) -> None:  # fmt: skip
    """Puts the converted graph of a standalone module in its place; it takes and gives floats.

    Args:
        node: calls the module.
        modules: `dict(model.named_modules())`; changed, as the model.
        model: of the node.
        is_reference: float operators between quantize and dequantize operators.
        backend_config: see `convert_fx`.

    Raises:
        ValueError: the module is no ObservedStandaloneGraphModule, or as `convert_fx`.
    """
    name = str(node.target)
    observed = modules[name]
    if not isinstance(observed, ObservedStandaloneGraphModule):
        raise ValueError(
            "convert_standalone_module: argument 'node' must call an ObservedStandaloneGraphModule, got "
            f"{type(observed).__name__}"
        )
    made = convert(observed, is_reference, is_standalone_module=True, backend_config=backend_config)
    replace_module(modules, name, IntegerBorders(made))
