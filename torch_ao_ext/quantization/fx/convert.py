"""convert: `convert_fx` and `convert_to_reference_fx` under the name of torch.ao's pass."""

from typing import Any

from torch import fx

from torch_ao_ext._lower import lower_nodes
from torch_ao_ext.quantization.fx._flow import convert_prepared

__all__ = ["convert"]


def convert(
    model: fx.GraphModule, is_reference: bool = False, convert_custom_config: Any = None,
    is_standalone_module: bool = False, _remove_qconfig_flag: bool = True, qconfig_mapping: Any = None,
    backend_config: Any = None, is_decomposed: bool = False,
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

    Raises:
        TypeError: not a graph module.
        ValueError: as `convert_fx`.
    """
    arguments = (model, convert_custom_config, qconfig_mapping, backend_config)
    make = (lambda graph: graph) if is_reference else lower_nodes
    return convert_prepared("convert", *arguments, make=make)
