"""How static linear layers and convolutions are made of float and of reference layers."""

from typing import Any, ClassVar

import torch
from torch import nn

from torch_ao_ext.nn.quantized._reference import reference_layer, reference_weight
from torch_ao_ext.nn.quantized._static import (
    QuantizedOutput,
    observer_of,
    output_qparams,
    product_of,
    static_weight,
)

__all__ = ["StaticProduct"]


class StaticProduct(QuantizedOutput):
    """Put before a `WeightedModule` in the bases; a subclass names its float class."""

    _CONVERTER = "convert"
    _POST_OPS = ""
    _FLOAT: ClassVar[type[nn.Module]]

    @classmethod
    def _make(cls, product: nn.Module) -> Any:
        """With the sizes of a float layer."""
        raise NotImplementedError

    def _read_activation(self, mod: nn.Module) -> None:
        """Numbers of the activation behind the layer."""

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Any:
        """Quantized copy of a float layer with qconfig and observed output.

        Args:
            mod: the float class of this name, or the container of this layer's name in
                `nn.intrinsic`. Transposed convolutions take per-channel qconfigs, too. A layer
                trained with fake quantization gives the range of its `weight_fake_quant`.
            use_precomputed_fake_quant: take that range as it is, without looking at the
                weight once more.

        Raises:
            ValueError: another type, no qconfig or observer, a weight that is not finite, a
                qconfig that is not for int8.
        """
        product = product_of(mod)
        if not isinstance(product, cls._FLOAT):
            raise ValueError(
                f"{cls.__name__}.from_float: argument 'mod' must be nn.{cls._FLOAT.__name__} or hold one, "
                f"got {type(mod).__name__}"
            )
        scale, point, dtype = output_qparams(observer_of(mod, cls.__name__), cls.__name__)
        new = cls._make(product)
        weight = static_weight(
            mod, product, use_precomputed_fake_quant, lambda w: cls._rows_of(w, product)
        )
        new._set_weight(product, weight)
        new.set_output(scale, point, dtype)
        new._read_activation(mod)
        return new.train(mod.training)

    @classmethod
    def from_reference(cls, ref: nn.Module, output_scale: float, output_zero_point: int) -> Any:
        """Quantized copy of a reference layer.

        Args:
            ref: layer of `nn.quantized.reference` with a qint8 weight; for a class with an
                activation, its container in `nn.intrinsic`.
            output_scale: real units per step of the output, which is quint8.
            output_zero_point: the integer of real 0.

        Raises:
            ValueError: another type, a weight of another dtype or axis.
        """
        product = reference_layer(cls.__name__, ref, cls._FLOAT, held=bool(cls._POST_OPS))
        new = cls._make(product)
        new._set_state(reference_weight(cls.__name__, product, cls._CHANNEL_AXIS), product.bias)
        new.set_output(output_scale, output_zero_point, torch.uint8)
        new._read_activation(ref)
        return new.train(ref.training)
