"""The step of prepare on one node of a graph, for programs that place observers themselves."""


import torch
from torch import fx, nn

from torch_ao_ext.quantization.fx._equalize import is_equalization_observer
from torch_ao_ext.quantization.fx.utils import assert_and_get_unique_device, get_new_attr_name_with_prefix
from torch_ao_ext.quantization.pt2e._graph import inherit_meta

__all__: list[str] = []


def _insert_obs_or_fq(
    node: fx.Node, obs_or_fq: nn.Module, model: nn.Module, named_modules: dict[str, nn.Module],
    graph: fx.Graph, model_device: torch.device | None = None,
) -> fx.Node:  # fmt: skip
    """A call of an observer behind a node; what reads the node stays as it is.

    Args:
        node: whose value is observed.
        obs_or_fq: observer or fake-quantize module; goes to the device.
        model: gets the module, under a name that is free.
        named_modules: modules of the model by name; gets it, too.
        graph: of the node.
        model_device: None: that of the model's tensors.
    """
    device = assert_and_get_unique_device(model) if model_device is None else model_device
    if device is not None:
        obs_or_fq.to(device)
    own = f"{node.name}_equalization_process_"
    prefix = own if is_equalization_observer(obs_or_fq) else "activation_post_process_"
    name = get_new_attr_name_with_prefix(prefix)(model)
    model.add_module(name, obs_or_fq)
    named_modules[name] = obs_or_fq
    with graph.inserting_after(node):
        call = graph.call_module(name, (node,))
    inherit_meta(call, node)
    return call
