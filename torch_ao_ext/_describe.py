"""Names and facts about float modules that conversion and report share."""

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import type_before_parametrizations

__all__ = ["FLOAT_REASON", "MODULE_PATH", "has_matrix", "type_name"]

# Attribute of a float module: why conversion left it. `report` prints it.
FLOAT_REASON = "_torch_ao_ext_float_reason"

# Attribute of a module: its name in the model that was converted. Errors print it.
MODULE_PATH = "_torch_ao_ext_path"


def type_name(module: nn.Module) -> str:
    """'nn.Linear' for torch's own classes, the bare class name otherwise."""
    kind = type_before_parametrizations(module)
    return f"nn.{kind.__name__}" if kind.__module__.startswith("torch.nn.") else kind.__name__


def has_matrix(module: nn.Module) -> bool:
    """Whether the module itself (not a child) holds a weight of two or more dimensions."""
    own = list(module._parameters.values())
    parametrizations = module._modules.get("parametrizations")
    if parametrizations is not None:  # they hold the weight in its stead
        own += list(parametrizations.parameters())
    return any(p is not None and (is_lazy(p) or p.dim() >= 2) for p in own)
