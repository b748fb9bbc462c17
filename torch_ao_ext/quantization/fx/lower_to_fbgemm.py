"""lower_to_fbgemm: a reference graph to int8 operators."""

from typing import Any

from torch import fx

from torch_ao_ext._flags import check_flags
from torch_ao_ext.quantization.fx._lower_reference import lower_reference

__all__ = ["lower_to_fbgemm"]


def lower_to_fbgemm(
    model: fx.GraphModule, qconfig_map: dict[str, Any], node_name_to_scope: dict[str, Any],
    keep_original_weights: bool = False,
) -> fx.GraphModule:  # fmt: skip
    """The int8 graph of a reference graph, on the engines of this library (`torch_ao_ext.lower`).

    Args:
        model: from `convert_to_reference_fx`; left as it is.
        qconfig_map: name of a node -> QConfig; None there keeps the node float.
        node_name_to_scope: torch.ao's names of packed weights; here they have those of their layers.
        keep_original_weights: must be False: a reference graph holds integers; `convert_fx` keeps the floats.

    Raises:
        TypeError: not a graph module; keep_original_weights is no bool.
        ValueError: a name that no node has, keep_original_weights.
    """
    check_flags("lower_to_fbgemm", keep_original_weights=keep_original_weights)
    if keep_original_weights:
        raise ValueError(
            "lower_to_fbgemm: argument 'keep_original_weights' must be False, got True; a reference graph "
            "has integers, convert_fx keeps float weights"
        )
    return lower_reference("lower_to_fbgemm", model, qconfig_map)
