"""A product whose batch norm is trained with it."""

from typing import Any

import torch
from torch import nn

from torch_ao_ext.nn._fold import norm_affine, scale_channels
from torch_ao_ext.nn.qat.modules._base import QATModule

__all__ = ["BatchNormInside", "freeze_bn_stats", "update_bn_stats"]

# State of torch.ao's first version -> its place since.
_MOVED = {
    "gamma": "bn.weight", "beta": "bn.bias", "running_mean": "bn.running_mean",
    "running_var": "bn.running_var", "num_batches_tracked": "bn.num_batches_tracked",
}  # fmt: skip


def scaled_fake_quant(fake_quant: nn.Module, weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """fq(W f) / f for f `[N]` on axis 0; a module of another library may have no faster way."""
    method = getattr(fake_quant, "of_scaled_weight", None)
    if method is not None:
        return method(weight, factor)
    factor = factor.reshape([-1] + [1] * (weight.dim() - 1))
    return fake_quant(weight * factor) / factor


class BatchNormInside(QATModule):
    """Weight, bias, `bn` and `weight_fake_quant`; `freeze_bn` tells whether statistics stay."""

    _version = 2

    bn: nn.Module
    freeze_bn: bool

    def _set_norm(self, bn: nn.Module, freeze_bn: bool) -> None:
        self.bn = bn
        self.freeze_bn = freeze_bn
        if self.training and freeze_bn:
            self.freeze_bn_stats()

    def _product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _normalized(self, x: torch.Tensor) -> torch.Tensor:
        bn = self.bn
        factor = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        # Channels that training has switched off: 0 / 0 would spread NaN.
        factor = torch.where(factor == 0, torch.ones_like(factor), factor)
        if x.dim() != self.weight.dim():
            raise ValueError(
                f"{type(self).__name__}: argument 'x' must have {self.weight.dim()} dimensions, "
                f"got {list(x.shape)}"
            )
        # The product is linear: dividing the weight spares passes over the result and its gradient.
        y = self._product(x, scaled_fake_quant(self.weight_fake_quant, self.weight, factor))
        if self.bias is not None:
            y = y + self.bias.reshape([1, -1] + [1] * (x.dim() - 2))
        return bn(y)

    def update_bn_stats(self) -> Any:
        """Statistics follow the batches again (in training mode)."""
        self.freeze_bn = False
        self.bn.training = self.training
        return self

    def freeze_bn_stats(self) -> Any:
        """Running statistics normalize and stay as they are."""
        self.freeze_bn = True
        self.bn.training = False
        return self

    def reset_running_stats(self) -> None:
        """Statistics of a new batch norm."""
        self.bn.reset_running_stats()

    def train(self, mode: bool = True) -> Any:
        """Sets the mode; a frozen batch norm stays in evaluation mode."""
        super().train(mode)
        if self.freeze_bn:
            self.bn.training = False
        return self

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Any:
        """A module for training with the parameters of a container whose `qconfig` is set.

        Args:
            mod: container of this name in `nn.intrinsic`; its parameters are shared.
            use_precomputed_fake_quant: go on with the `weight_fake_quant` that mod has.

        Raises:
            ValueError: another type, or no qconfig.
        """
        product, bn = cls._parts(mod)[:2]
        new = cls(**cls._arguments(product), qconfig=mod.qconfig)
        new._take(product, mod, use_precomputed_fake_quant)
        new.bn = bn
        return new

    def _folded(self) -> nn.Module:
        """The float product that computes what product and batch norm do in evaluation mode."""
        product = self._float_product()
        bn = self.bn
        factor, offset = norm_affine(bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.eps)
        bias = offset if self.bias is None else self.bias.detach().double() * factor + offset
        weight = scale_channels(self.weight, factor)
        product.weight = nn.Parameter(weight.to(self.weight.dtype))
        product.bias = nn.Parameter(bias.to(self.weight.dtype))
        return product

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        if local_metadata.get("version", None) in (None, 1):
            for old, new in _MOVED.items():
                if prefix + old in state_dict:
                    state_dict[prefix + new] = state_dict.pop(prefix + old)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def update_bn_stats(mod: nn.Module) -> None:
    """For `model.apply`: batch norms of fused modules follow the batches again.

    Example:
        >>> import torch
        >>> from torch_ao_ext.nn.intrinsic.qat import update_bn_stats
        >>> _ = torch.nn.Sequential().apply(update_bn_stats)
    """
    if isinstance(mod, BatchNormInside):
        mod.update_bn_stats()


def freeze_bn_stats(mod: nn.Module) -> None:
    """For `model.apply`: batch norms of fused modules stay as they are."""
    if isinstance(mod, BatchNormInside):
        mod.freeze_bn_stats()
