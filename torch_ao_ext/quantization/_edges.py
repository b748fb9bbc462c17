"""auto_edges: a model without stubs, whose float and int8 parts meet by themselves.

`prepare` observes what comes to a layer as well as what leaves it. In the converted model a layer
that gets a float quantizes it with these qparams; a function or module without an int8 form
gets float32 values; so does the caller.
"""

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from torch_ao_ext._describe import FLOAT_REASON
from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext._refusal import float_fallback
from torch_ao_ext.nn.quantized._static import QuantizedOutput, output_qparams, saw_data

__all__ = ["EDGE", "carry_edge", "edge_hooks", "has_edges", "join_edges", "observe_input", "set_edges"]

# Child of an observed module, or of the first layer of a container: the observer of its first input.
EDGE = "input_post_process"


def _observe_first(module: nn.Module, args: tuple[Any, ...]) -> None:
    """The forward pre-hook that `convert` takes away again."""
    if args and isinstance(args[0], torch.Tensor):
        module._modules[EDGE](args[0])


def _entered(module: nn.Module) -> nn.Module:
    """The layer that gets the input: of a container, which runs all of its children, the first one."""
    return module[0] if isinstance(module, nn.Sequential) else module


def observe_input(module: nn.Module, observer: nn.Module) -> None:
    """Puts an observer before a module, which does not change the value."""
    module = _entered(module)
    module.add_module(EDGE, observer)
    module.register_forward_pre_hook(_observe_first)


def edge_hooks(module: nn.Module) -> set[int]:
    """Ids of the hooks of observe_input."""
    return {key for key, hook in module._forward_pre_hooks.items() if hook is _observe_first}


def has_edges(model: nn.Module) -> bool:
    """Whether `prepare` put observers before its modules."""
    return any(EDGE in module._modules for module in model.modules())


def carry_edge(observed: nn.Module, new: nn.Module) -> None:
    """Gives a converted module the qparams for floats that come to it."""
    for name, child in observed._modules.items():
        if child is not None and new._modules.get(name) is not None:
            carry_edge(child, new._modules[name])
    observer = _entered(observed)._modules.get(EDGE)
    if observer is not None and isinstance(new, QuantizedOutput) and saw_data(observer):
        new.edge = output_qparams(observer, type(new).__name__)


def _to_float(value: Any) -> Any:
    return tree_map(lambda v: v.dequantize() if isinstance(v, QuantizedTensor) else v, value)


def _enter(module: nn.Module, args: Any) -> None:
    float_fallback.depth += 1


def _leave(module: nn.Module, args: Any, output: Any) -> Any:
    float_fallback.depth -= 1
    return _to_float(output)


def _float_inputs(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return _to_float(args), _to_float(kwargs)


def join_edges(model: nn.Module) -> None:
    """Hooks of a converted model: floats for what has no int8 form, and for the caller."""
    model.register_forward_pre_hook(_enter, prepend=True)
    model.register_forward_hook(_leave, always_call=True)
    for module in model.modules():
        if FLOAT_REASON in module.__dict__:
            module.register_forward_pre_hook(_float_inputs, prepend=True, with_kwargs=True)


def set_edges(model: nn.Module, edges: dict[str, list[Any]]) -> None:
    """Edges of a file: fqn -> scale, zero point and name of the dtype; and the hooks."""
    for name, (scale, point, dtype) in edges.items():
        model.get_submodule(name).edge = (scale, point, getattr(torch, dtype))
    if _enter not in model._forward_pre_hooks.values():
        join_edges(model)
