"""What becomes of modules that FX graph mode keeps whole."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from torch_ao_ext._quantized_tensor import QuantizedTensor
from torch_ao_ext.quantization._convert import convert
from torch_ao_ext.quantization._prepare import get_default_custom_config_dict, prepare
from torch_ao_ext.quantization._quantize_dynamic import quantize_dynamic
from torch_ao_ext.quantization.fx._capture import KeptModule
from torch_ao_ext.quantization.fx.custom_config import ConvertCustomConfig
from torch_ao_ext.quantization.stubs import QuantStub

__all__ = ["Custom", "Dynamic", "Fate", "IntegerBorders", "Region", "Standalone"]


class Fate:
    """A module that stays float: torch.export does not look inside."""

    quantizes = False

    def prepared(self, module: nn.Module, call: KeptModule) -> nn.Module:
        """The module that the prepared graph calls."""
        return module

    def converted(self, module: nn.Module, config: ConvertCustomConfig, make: Any) -> nn.Module:
        """The module that the converted graph calls, of the one that the prepared graph calls."""
        return module


class Standalone(Fate):
    """Prepared and converted by itself, as a model.

    Args:
        prepare: makes the prepared graph of the module.
    """

    quantizes = True

    def __init__(self, prepare: Callable[[nn.Module], fx.GraphModule]) -> None:
        self._prepare: Any = prepare

    def prepared(self, module: nn.Module, call: KeptModule) -> nn.Module:
        """Its own prepared graph."""
        prepare, self._prepare = self._prepare, None  # it holds the model
        return prepare(module)

    def converted(self, module: nn.Module, config: ConvertCustomConfig, make: Any) -> nn.Module:
        """Its own converted graph."""
        return IntegerBorders(make(module))


class IntegerBorders(nn.Module):
    """A converted graph, with floats where it has integers at its borders.

    Args:
        graph: from `convert_fx`.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph_module = graph

    def forward(self, *args: Any) -> Any:
        """As the graph."""
        inputs, outputs = self.graph_module.input_qparams, self.graph_module.output_qparams
        given = list(args)
        for index, (scale, zero_point, low, high, dtype) in inputs.items():
            given[index] = torch.ops.torch_ao.quantize_per_tensor(
                given[index], scale, zero_point, low, high, dtype
            )
        result = self.graph_module(*given)
        leaves, spec = pytree.tree_flatten(result)
        for index, (scale, zero_point, *_) in outputs.items():
            leaves[index] = torch.ops.torch_ao.dequantize_per_tensor(leaves[index], scale, zero_point)
        return pytree.tree_unflatten(leaves, spec)


class Region(nn.Module):
    """A module of eager mode between stubs; takes and gives floats.

    Args:
        module: takes QuantizedTensors once it is converted.
        arguments: how many positional arguments it has.
    """

    def __init__(self, module: nn.Module, arguments: int) -> None:
        super().__init__()
        self.quants = nn.ModuleList(QuantStub() for _ in range(arguments))
        self.custom = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Quantizes what is a float tensor among args."""
        given = [
            quant(x) if isinstance(x, torch.Tensor) and x.is_floating_point() else x
            for quant, x in zip(self.quants, args, strict=True)
        ]
        result = self.custom(*given, **kwargs)
        return pytree.tree_map_only(QuantizedTensor, lambda q: q.dequantize(), result)


class Custom(Fate):
    """Replaced by classes of the user: float -> observed -> quantized, as in eager mode."""

    quantizes = True

    def __init__(self, qconfig: Any, observed: type) -> None:
        self.qconfig = qconfig
        self.observed = observed

    def prepared(self, module: nn.Module, call: KeptModule) -> nn.Module:
        """The observed class, its inputs observed as well."""
        args, _ = pytree.tree_unflatten(call.leaves, call.spec)
        region = Region(copy.copy(module), len(args))
        region.qconfig = self.qconfig
        table = {type(module): self.observed}
        return prepare(region, prepare_custom_config_dict={"float_to_observed_custom_module_class": table})

    def converted(self, module: nn.Module, config: ConvertCustomConfig, make: Any) -> nn.Module:
        """The quantized class."""
        key = "observed_to_quantized_custom_module_class"
        table = dict(get_default_custom_config_dict()[key])
        for classes in config.observed_to_quantized_mapping.values():
            table |= classes
        if self.observed not in table:
            raise ValueError(
                "convert_fx: argument 'convert_custom_config' must name the quantized class of "
                f"{self.observed.__name__} (set_observed_to_quantized_mapping), got {config!r}"
            )
        return convert(module, convert_custom_config_dict={key: table})


class Dynamic(Fate):
    """A recurrent layer whose inputs are quantized at run time, or a table: `quantize_dynamic` of it."""

    quantizes = True

    def __init__(self, qconfig: Any) -> None:
        self.qconfig = qconfig

    def converted(self, module: nn.Module, config: ConvertCustomConfig, make: Any) -> nn.Module:
        """The module of nn.quantized.dynamic or nn.quantized."""
        holder = nn.ModuleDict({"layer": module})
        return quantize_dynamic(holder, {type(module): self.qconfig}, strict=True)["layer"]
