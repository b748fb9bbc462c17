"""The published name under which a converted model is lowered for x86."""

from typing import Any

from torch import fx

__all__ = ["lower_pt2e_quantized_to_x86"]


def lower_pt2e_quantized_to_x86(model: fx.GraphModule, example_inputs: tuple[Any, ...]) -> fx.GraphModule:
    """Makes int8 operators of a converted model: `torch_ao_ext.lower`.

    Args:
        model: from convert_pt2e; left as it is.
        example_inputs: run once, which packs the weights.

    Returns:
        A new graph module.

    Raises:
        TypeError: see `torch_ao_ext.lower`, as ValueError.
    """
    from torch_ao_ext._lower import lower  # it stands on this package

    return lower(model, example_inputs)
