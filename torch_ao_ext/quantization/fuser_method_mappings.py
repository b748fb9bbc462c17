"""Which sequences of float layers fuse, and into what.

A fuser method takes `(is_qat, *layers)` and returns one module. In evaluation mode a
batch norm is folded into the layer before it: W' = W g, b' = (b - mean) g + beta with
g = gamma / sqrt(var + eps), computed in float64.
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from torch_ao_ext.nn import intrinsic
from torch_ao_ext.nn._fold import norm_affine, scale_channels
from torch_ao_ext.quantization.utils import MatchAllNode

__all__ = [
    "fuse_conv_bn",
    "fuse_conv_bn_relu",
    "fuse_convtranspose_bn",
    "fuse_linear_bn",
    "get_fuser_method",
    "get_fuser_method_new",
]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONV_BN = {
    nn.Conv1d: (intrinsic.ConvBn1d, intrinsic.ConvBnReLU1d, intrinsic.ConvReLU1d),
    nn.Conv2d: (intrinsic.ConvBn2d, intrinsic.ConvBnReLU2d, intrinsic.ConvReLU2d),
    nn.Conv3d: (intrinsic.ConvBn3d, intrinsic.ConvBnReLU3d, intrinsic.ConvReLU3d),
}


def _features(product: nn.Module) -> int:
    return product.out_features if isinstance(product, nn.Linear) else product.out_channels


def _check(op: str, is_qat: bool, product: nn.Module, bn: nn.Module) -> None:
    """Raises unless the two can fuse."""
    weight = product._parameters.get("weight")
    lazy = weight is not None and is_lazy(weight)
    if lazy or (not is_qat and (weight is None or is_parametrized(product))):
        raise ValueError(
            f"{op}: weight of {type(product).__name__} must be a plain parameter, got one that is "
            "lazy, parametrized or computed by a hook (initialize it, or remove the "
            "parametrization)"
        )
    if product.training != bn.training:
        raise ValueError(
            f"{op}: argument 'bn' must be in the mode of the layer before it "
            f"(training={product.training}), got training={bn.training}"
        )
    if bn.num_features != _features(product):
        raise ValueError(
            f"{op}: argument 'bn' must have as many features as the layer before it has "
            f"outputs ({_features(product)}), got {bn.num_features}"
        )
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError(f"{op}: argument 'bn' must have running statistics, got track_running_stats=False")
    if is_qat and not bn.affine:
        raise ValueError(f"{op}: argument 'bn' must be affine for training, got affine=False")
    if not is_qat and product.training:
        raise ValueError(
            f"{op}: layers must be in evaluation mode, got training=True "
            "(call model.eval(), or fuse_modules_qat for training)"
        )


def _folded(op: str, product: nn.Module, bn: nn.Module) -> nn.Module:
    """A copy of the product that computes bn(product(x))."""
    weight = product.weight
    factor, offset = norm_affine(bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.eps)
    transposed = isinstance(product, _TRANSPOSED)
    scaled = scale_channels(weight, factor, transposed=transposed, groups=product.groups if transposed else 1)
    bias = product.bias
    shifted = offset if bias is None else bias.detach().double() * factor + offset
    fused = copy.deepcopy(product)
    for hooks in (fused._forward_pre_hooks, fused._forward_hooks):
        hooks.clear()  # those of the original move, see fuse_known_modules
    fused.weight = nn.Parameter(scaled.to(weight.dtype), weight.requires_grad)
    learns = weight.requires_grad if bias is None else bias.requires_grad
    fused.bias = nn.Parameter(shifted.to(weight.dtype), learns)
    return fused


def fuse_conv_bn(is_qat: bool, conv: nn.Module, bn: nn.Module) -> nn.Module:
    """A conv with the batch norm folded in, or `ConvBn{1,2,3}d` for training.

    Args:
        is_qat: keep the batch norm, training updates it.
        conv: `nn.Conv{1,2,3}d`; not changed.
        bn: `nn.BatchNorm{1,2,3}d` of `conv.out_channels` features.

    Raises:
        ValueError: modes differ, features differ, no running statistics, training mode
            without is_qat, or a weight that is no plain parameter.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.fuser_method_mappings import fuse_conv_bn
        >>> conv, bn = torch.nn.Conv2d(3, 8, 1).eval(), torch.nn.BatchNorm2d(8).eval()
        >>> type(fuse_conv_bn(False, conv, bn)).__name__
        'Conv2d'
    """
    _check("fuse_conv_bn", is_qat, conv, bn)
    if is_qat:
        return _containers("fuse_conv_bn", conv)[0](conv, bn)
    return _folded("fuse_conv_bn", conv, bn)


def fuse_conv_bn_relu(is_qat: bool, conv: nn.Module, bn: nn.Module, relu: nn.Module) -> nn.Module:
    """`ConvReLU{1,2,3}d` with the batch norm folded in, or `ConvBnReLU{1,2,3}d` for training.

    Arguments and errors: as `fuse_conv_bn`.
    """
    _check("fuse_conv_bn_relu", is_qat, conv, bn)
    _, with_norm, without = _containers("fuse_conv_bn_relu", conv)
    if is_qat:
        return with_norm(conv, bn, relu)
    return without(_folded("fuse_conv_bn_relu", conv, bn), relu)


def fuse_linear_bn(is_qat: bool, linear: nn.Module, bn: nn.Module) -> nn.Module:
    """A linear layer with the batch norm folded in, or `LinearBn1d` for training.

    The input must be `[N, K]`: with more dimensions a batch norm counts channels on
    axis 1, a linear layer on the last.

    Arguments and errors: as `fuse_conv_bn`.
    """
    _check("fuse_linear_bn", is_qat, linear, bn)
    if is_qat:
        return intrinsic.LinearBn1d(linear, bn)
    return _folded("fuse_linear_bn", linear, bn)


def fuse_convtranspose_bn(is_qat: bool, convt: nn.Module, bn: nn.Module) -> nn.Module:
    """A transposed conv, of any number of groups, with the batch norm folded in.

    Raises:
        ValueError: is_qat, for which no container exists; or as `fuse_conv_bn`.
    """
    _check("fuse_convtranspose_bn", is_qat, convt, bn)
    if is_qat:
        raise ValueError(
            "fuse_convtranspose_bn: argument 'is_qat' must be False "
            "(transposed conv and batch norm have no container for training), got True"
        )
    return _folded("fuse_convtranspose_bn", convt, bn)


def _containers(op: str, conv: nn.Module) -> tuple[Any, Any, Any]:
    for kind, classes in _CONV_BN.items():
        if isinstance(conv, kind):
            return classes
    raise ValueError(
        f"{op}: argument 'conv' must be nn.Conv1d, nn.Conv2d or nn.Conv3d, got {type(conv).__name__}"
    )


def _in_container(container: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def fuser_method(is_qat: bool, first: nn.Module, second: nn.Module) -> nn.Module:
        return container(first, second)

    return fuser_method


_DEFAULT_OP_LIST_TO_FUSER_METHOD: dict[tuple[type, ...], Callable[..., nn.Module]] = {
    (nn.Conv1d, nn.BatchNorm1d): fuse_conv_bn,
    (nn.Conv1d, nn.BatchNorm1d, nn.ReLU): fuse_conv_bn_relu,
    (nn.Conv2d, nn.BatchNorm2d): fuse_conv_bn,
    (nn.Conv2d, nn.BatchNorm2d, nn.ReLU): fuse_conv_bn_relu,
    (nn.Conv3d, nn.BatchNorm3d): fuse_conv_bn,
    (nn.Conv3d, nn.BatchNorm3d, nn.ReLU): fuse_conv_bn_relu,
    (nn.Conv1d, nn.ReLU): _in_container(intrinsic.ConvReLU1d),
    (nn.Conv2d, nn.ReLU): _in_container(intrinsic.ConvReLU2d),
    (nn.Conv3d, nn.ReLU): _in_container(intrinsic.ConvReLU3d),
    (nn.Linear, nn.BatchNorm1d): fuse_linear_bn,
    (nn.Linear, nn.ReLU): _in_container(intrinsic.LinearReLU),
    (nn.BatchNorm2d, nn.ReLU): _in_container(intrinsic.BNReLU2d),
    (nn.BatchNorm3d, nn.ReLU): _in_container(intrinsic.BNReLU3d),
    (nn.ConvTranspose1d, nn.BatchNorm1d): fuse_convtranspose_bn,
    (nn.ConvTranspose2d, nn.BatchNorm2d): fuse_convtranspose_bn,
    (nn.ConvTranspose3d, nn.BatchNorm3d): fuse_convtranspose_bn,
}


def _names(types: tuple[Any, ...]) -> str:
    return f"({', '.join(getattr(t, '__name__', str(t)) for t in types)})"


def get_fuser_method(
    op_list: tuple[type, ...],
    additional_fuser_method_mapping: dict[Any, Callable[..., nn.Module]] | None = None,
) -> Callable[..., nn.Module]:
    """The fuser method of a sequence of layer types.

    Args:
        op_list: types in the order of the data, subclasses do not count.
        additional_fuser_method_mapping: entries that are looked at first.

    Raises:
        ValueError: nothing fuses these types.

    Example:
        >>> from torch import nn
        >>> from torch_ao_ext.quantization.fuser_method_mappings import get_fuser_method
        >>> get_fuser_method((nn.Conv2d, nn.BatchNorm2d)).__name__
        'fuse_conv_bn'
    """
    table = {**_DEFAULT_OP_LIST_TO_FUSER_METHOD, **(additional_fuser_method_mapping or {})}
    return get_fuser_method_new(op_list, table)


def _any_of(pattern: Any) -> Iterator[Any]:
    """The pattern, then those with MatchAllNode in the place of some parts, the last ones first."""
    if isinstance(pattern, (tuple, list)):
        yield from itertools.product(*(list(_any_of(part)) for part in pattern))
    else:
        yield pattern
        yield MatchAllNode


def get_fuser_method_new(
    op_pattern: tuple[type, ...], fuser_method_mapping: dict[Any, Callable[..., nn.Module]]
) -> Callable[..., nn.Module]:
    """The fuser method of a sequence of layer types in the table given; MatchAllNode there fits any type.

    Raises:
        ValueError: the table has no such sequence.
    """
    fitting = (fuser_method_mapping[key] for key in _any_of(op_pattern) if key in fuser_method_mapping)
    found = next(fitting, None)
    if found is None:
        raise ValueError(
            "get_fuser_method: argument 'op_list' must be one of "
            f"{'; '.join(_names(k) for k in fuser_method_mapping)}, got {_names(op_pattern)}"
        )
    return found
