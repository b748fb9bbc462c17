"""Modules of an eager quantized model that run in float and hold no weight matrix, and why they do."""

from torch import fx, nn
from torch.nn.modules import dropout, loss, padding

from torch_ao_ext._describe import FLOAT_REASON, type_name
from torch_ao_ext.nn.quantized import FloatFunctional, FXFloatFunctional

__all__ = ["why_float_module"]

# They compute nothing in evaluation.
_MOVES = (
    nn.ChannelShuffle, nn.Flatten, nn.Identity, nn.ModuleDict, nn.ModuleList, nn.ParameterDict,
    nn.ParameterList, nn.PixelShuffle, nn.PixelUnshuffle, nn.Sequential, nn.Unflatten, nn.Unfold,
    dropout._DropoutNd, loss._Loss, padding._CircularPadNd, padding._ConstantPadNd,
    padding._ReflectionPadNd, padding._ReplicationPadNd,
)  # fmt: skip
# They run on the integers of a QuantizedTensor that comes to them.
_ON_INTEGERS = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AvgPool1d, nn.AvgPool2d,
    nn.AvgPool3d, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.MaxPool1d,
    nn.MaxPool2d, nn.MaxPool3d, nn.ReLU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
_FUNCTIONAL = (FloatFunctional, FXFloatFunctional)


def _takes_integers(module: nn.Module) -> bool:
    if isinstance(module, nn.Upsample):
        return module.mode in ("nearest", "bilinear")
    return isinstance(module, _ON_INTEGERS) and not getattr(module, "return_indices", False)


def _static_reason(module: nn.Module) -> str:
    from torch_ao_ext.quantization.quantization_mappings import get_default_static_quant_module_mappings

    if isinstance(module, nn.Upsample):
        return "int8 in and out, computed in float32"
    if type(module) in get_default_static_quant_module_mappings():
        return "not converted by torch_ao_ext"
    return f"no int8 module for {type_name(module)}"


def why_float_module(module: nn.Module, static: bool, in_graph: bool) -> str:
    """Why a module without a weight matrix computes in floats; "" for one that does not, as far as is known.

    Modules with parts are told by these, and classes of other libraries without parts compute in floats
    unless values between the layers are integers and they have no parameters or buffers.

    Args:
        module: of a quantized model.
        static: whether the model has modules between quantized tensors.
        in_graph: whether it lies in a graph module.
    """
    kind = type(module)
    ours = kind.__module__.startswith(("torch_ao_ext.", "torch.ao."))
    torchs = kind.__module__.startswith("torch.nn.")
    if kind in _FUNCTIONAL or FLOAT_REASON in module.__dict__ and not module._modules:
        return getattr(module, FLOAT_REASON, "not converted by torch_ao_ext")
    if module._modules or ours or kind is nn.Module or isinstance(module, (fx.GraphModule, *_MOVES)):
        return ""
    if not torchs and (in_graph or static and not module._parameters and not module._buffers):
        return ""
    if static:
        return "" if _takes_integers(module) else _static_reason(module)
    return f"no {'' if in_graph else 'dynamic '}int8 module for {type_name(module)}"
