"""Our counterpart of a torch.ao class, known by its path because torch.ao is never imported."""

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from torch_ao_ext.nn import intrinsic, quantized
from torch_ao_ext.nn.qat.modules._base import QATModule
from torch_ao_ext.quantization import stubs

__all__ = ["is_fused", "own_type"]

_PLACES = {
    "torch.ao.nn.intrinsic.modules.fused": intrinsic,
    "torch.ao.nn.quantized.modules.functional_modules": quantized,
    "torch.ao.quantization.stubs": stubs,
}


def own_type(module: nn.Module) -> type[nn.Module]:
    """The type that conversion tables name: containers, stubs and FloatFunctional of torch.ao are ours.

    Models of other packages (torchvision.models.quantization) come with these.
    """
    kind = type_before_parametrizations(module)
    place = _PLACES.get(kind.__module__)
    return kind if place is None else getattr(place, kind.__name__, kind)


def is_fused(module: nn.Module) -> bool:
    """Whether it is a container, or a module of training, that is converted whole."""
    return issubclass(own_type(module), (intrinsic._FusedModule, QATModule))
