"""What float modules with a fake-quantized weight share."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils.parametrize import (
    is_parametrized,
    transfer_parametrizations_and_params,
    type_before_parametrizations,
)

__all__ = ["QATModule"]


class QATModule(nn.Module):
    """Computes with `weight_fake_quant(weight)`; a conversion takes it whole.

    A subclass derives from the float class, too, and names what it is made from
    (`_FLOAT_MODULE`) and which constructor arguments it reads from that (`_ARGUMENTS`).
    """

    _FLOAT_MODULE: ClassVar[type[nn.Module]]
    _FLOAT_BASE: ClassVar[type[nn.Module]]
    _ARGUMENTS: ClassVar[tuple[str, ...]] = ()

    weight: torch.Tensor
    bias: torch.Tensor | None
    qconfig: Any
    weight_fake_quant: nn.Module

    def _set_qconfig(self, qconfig: Any) -> None:
        if qconfig is None or getattr(qconfig, "weight", None) is None:
            raise ValueError(
                f"{type(self).__name__}: argument 'qconfig' must have a weight fake-quantize module, "
                f"got {qconfig}"
            )
        self.qconfig = qconfig
        self.weight_fake_quant = qconfig.weight()

    @classmethod
    def _parts(cls, mod: nn.Module) -> tuple[nn.Module, ...]:
        """The layers of the container, or the module alone.

        Raises:
            ValueError: another type, or no qconfig.
        """
        if type_before_parametrizations(mod) is not cls._FLOAT_MODULE:
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be {cls._FLOAT_MODULE.__name__}, got "
                f"{type_before_parametrizations(mod).__name__}"
            )
        if getattr(mod, "qconfig", None) is None:
            raise ValueError(f"{cls.__name__}.from_float: argument 'mod' must have a qconfig")
        return tuple(mod) if isinstance(mod, nn.Sequential) else (mod,)

    @classmethod
    def _arguments(cls, product: nn.Module) -> dict[str, Any]:
        values = {name: getattr(product, name) for name in cls._ARGUMENTS}
        return values if "bias" not in values else {**values, "bias": product.bias is not None}

    def _take(self, product: nn.Module, mod: nn.Module, precomputed: bool) -> None:
        """Parameters are shared with the float layer: optimizers that hold them stay valid."""
        if is_parametrized(product, "weight"):
            transfer_parametrizations_and_params(product, self, "weight")
        else:
            self.weight = product.weight
        if "bias" in self._parameters:
            if is_parametrized(product, "bias"):
                transfer_parametrizations_and_params(product, self, "bias")
            else:
                self.bias = product.bias
        if precomputed and hasattr(mod, "weight_fake_quant"):
            self.weight_fake_quant = mod.weight_fake_quant
        self.train(product.training)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Any:
        """A module for training with the parameters of a float one whose `qconfig` is set.

        Args:
            mod: of the float class, or container, of this name; its parameters are shared.
            use_precomputed_fake_quant: go on with the `weight_fake_quant` that mod has.

        Raises:
            ValueError: another type, or no qconfig.
        """
        product = cls._parts(mod)[0]
        new = cls(**cls._arguments(product), qconfig=mod.qconfig)
        new._take(product, mod, use_precomputed_fake_quant)
        return new

    def _float_product(self) -> nn.Module:
        """The float layer with copies of the parameters."""
        with torch.device("meta"):
            product = self._FLOAT_BASE(**self._arguments(self))
        product.weight = nn.Parameter(self.weight.detach().clone())
        product.bias = None if self.bias is None else nn.Parameter(self.bias.detach().clone())
        return product.train(self.training)

    def to_float(self) -> nn.Module:
        """The float module with the trained parameters, without fake quantization."""
        return self._float_product()
