"""Batch norms of graphs that are trained with the weights that will be quantized.

While a quantizer annotates, the batch norms are gone, as they are after conversion, so that it
needs no patterns for them. Then each comes back together with its product as one module, which
trains W g / sqrt(v + eps) as `nn.intrinsic.qat` does; convert folds it.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from torch_ao_ext.nn._fold import norm_affine, scale_channels
from torch_ao_ext.nn.intrinsic.qat.modules._bn import scaled_fake_quant
from torch_ao_ext.quantization.pt2e._graph import (
    add_constant,
    free_name,
    inherit_meta,
    remove_unused,
    replace_node,
    tensor_of,
)
from torch_ao_ext.quantization.pt2e._portable import target_of, target_state
from torch_ao_ext.quantization.pt2e.prepare import is_observer
from torch_ao_ext.quantization.quantizer._targets import (
    ADD,
    BATCH_NORM,
    CONV,
    CONV_TRANSPOSE,
    LINEAR,
    argument,
    is_call,
)

__all__ = ["PRODUCT", "ProductBatchNorm", "attach_batch_norms", "detach_batch_norms", "fold_trained"]

# Key in the meta of a node that calls a ProductBatchNorm: name of the product that was annotated.
PRODUCT = "torch_ao_ext_product"

_PRODUCTS = CONV | CONV_TRANSPOSE | LINEAR


@dataclass
class _Detached:
    """The operands of a batch norm: nodes of its tensors, momentum and eps."""

    arguments: tuple[Any, ...]
    meta: dict[str, Any]


class ProductBatchNorm(nn.Module):
    """bn(product(x, W) + b) with W s fake-quantized, s = gamma / sqrt(running_var + eps).

    Args:
        target: ATen operator of the product.
        rest: its arguments behind the bias.
        tensors: weight, bias, gamma, beta as parameters or None; running_mean, running_var.
        momentum: of the batch norm.
        eps: of the batch norm.
        weight_fake_quant: rounds the scaled weight.
    """

    def __init__(
        self, target: Any, rest: tuple[Any, ...], tensors: dict[str, Any], momentum: float, eps: float,
        weight_fake_quant: nn.Module,
    ) -> None:  # fmt: skip
        super().__init__()
        for name in ("weight", "bias", "gamma", "beta"):
            value = tensors[name]
            if value is None or isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)
        self.register_buffer("running_mean", tensors["running_mean"])
        self.register_buffer("running_var", tensors["running_var"])
        self.target, self.rest = target, rest
        self.momentum, self.eps = momentum, eps
        self.weight_fake_quant = weight_fake_quant
        self.transposed = target in CONV_TRANSPOSE
        self.groups = (rest[3] if len(rest) > 3 else 1) if self.transposed else 1

    def _rounded(self, factor: torch.Tensor) -> torch.Tensor:
        """fq(W s) / s: the product is linear, so its result needs no division."""
        if not self.transposed:
            return scaled_fake_quant(self.weight_fake_quant, self.weight, factor)
        split = (self.groups, -1, *self.weight.shape[1:])  # channels are axis 1, in groups
        factor = factor.reshape(self.groups, 1, -1, *[1] * (self.weight.dim() - 2))
        scaled = (self.weight.reshape(split) * factor).reshape(self.weight.shape)
        return (self.weight_fake_quant(scaled).reshape(split) / factor).reshape(self.weight.shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As product and batch norm; the mode of the module is that of the batch norm."""
        gamma = torch.ones_like(self.running_var) if self.gamma is None else self.gamma
        factor = gamma / torch.sqrt(self.running_var + self.eps)
        # Channels that training has switched off: 0 / 0 would spread NaN.
        factor = torch.where(factor == 0, torch.ones_like(factor), factor)
        y = self.target(x, self._rounded(factor), None, *self.rest)
        if self.bias is not None:
            y = y + self.bias.reshape([1, -1] + [1] * (y.dim() - 2))
        statistics = (self.running_mean, self.running_var)
        return F.batch_norm(y, *statistics, self.gamma, self.beta, self.training, self.momentum, self.eps)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "target": target_state(self.target)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "target": target_of(state["target"])})

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the product that computes the same by running statistics."""
        factor, offset = norm_affine(self.running_mean, self.running_var, self.gamma, self.beta, self.eps)
        weight = scale_channels(self.weight, factor, transposed=self.transposed, groups=self.groups)
        bias = offset if self.bias is None else self.bias.detach().double() * factor + offset
        return weight.to(self.weight.dtype), bias.to(self.weight.dtype)


def detach_batch_norms(model: fx.GraphModule) -> dict[fx.Node, _Detached]:
    """Takes each batch norm behind a product that nobody else reads out of the graph.

    Returns:
        Product -> its batch norm.
    """
    found: dict[fx.Node, _Detached] = {}
    for norm in list(model.graph.nodes):
        product = norm.args[0] if is_call(norm, BATCH_NORM) else None
        if not is_call(product, _PRODUCTS) or len(product.users) != 1:
            continue
        value = product.meta.get("val")
        if is_call(product, LINEAR) and (value is None or value.dim() != 2):
            continue  # its channels are the last axis, a batch norm's the second
        operands = [product.args[1], argument(product, 2), *norm.args[1:5]]
        if any(isinstance(n, fx.Node) and tensor_of(model, n) is None for n in operands):
            continue
        if norm.args[3] is None or norm.args[4] is None:
            continue  # no running statistics to quantize with
        found[product] = _Detached(norm.args[1:], dict(norm.meta))
        norm.replace_all_uses_with(product)
        model.graph.erase_node(norm)
    return found


def attach_batch_norms(model: fx.GraphModule, detached: dict[fx.Node, _Detached]) -> None:
    """Puts the batch norms back: into one module with a quantized product, behind a float one."""
    modules = dict(model.named_modules())
    for product, norm in detached.items():
        weight = product.args[1]
        if weight.op == "call_module" and is_observer(modules.get(weight.target)):
            _fuse(model, product, norm, modules[weight.target])
        else:
            with model.graph.inserting_after(product):
                again = model.graph.call_function(torch.ops.aten.batch_norm.default, ())
            product.replace_all_uses_with(again)
            again.args = (product, *norm.arguments)
            again.meta = norm.meta
    remove_unused(model)
    model.graph.lint()
    model.recompile()


def _fuse(model: fx.GraphModule, product: fx.Node, norm: _Detached, fake_quant: nn.Module) -> None:
    gamma, beta, mean, variance, _, momentum, eps = norm.arguments[:7]
    source = product.args[1].args[0]
    nodes = {
        "weight": source, "bias": argument(product, 2), "gamma": gamma, "beta": beta, "running_mean": mean,
        "running_var": variance,
    }  # fmt: skip
    tensors = {name: tensor_of(model, node) for name, node in nodes.items()}
    module = ProductBatchNorm(product.target, product.args[3:], tensors, momentum, eps, fake_quant)
    module.training = bool(norm.arguments[4])
    path = source.target.rpartition(".")[0].replace(".", "_")
    name = free_name(model, f"{path}_batch_norm" if path else "_batch_norm")
    model.add_module(name, module)
    with model.graph.inserting_before(product):
        call = model.graph.call_module(name, (product.args[0],))
    inherit_meta(call, product)
    call.meta[PRODUCT] = product.name
    for key in ("val", "tensor_meta"):
        if key in norm.meta:
            call.meta[key] = norm.meta[key]
    # Where the float parameters were: convert puts the int8 ones there.
    module.path = source.target.rpartition(".")[0]
    product.replace_all_uses_with(call)
    model.graph.erase_node(product)


def _drop_counters(model: fx.GraphModule) -> None:
    """Batch norms of a training graph count their batches; nobody reads that in evaluation."""
    for node in list(model.graph.nodes):
        if is_call(node, ADD) and not node.users and isinstance(node.args[0], fx.Node):
            if str(node.args[0].target).endswith("num_batches_tracked"):
                model.graph.erase_node(node)


def fold_trained(model: fx.GraphModule) -> int:
    """Each ProductBatchNorm becomes a product with an observed constant weight, in place.

    Returns:
        How many there were.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    count = 0
    _drop_counters(model)
    for node in list(model.graph.nodes):
        module = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(module, ProductBatchNorm):
            continue
        count += 1
        weight, bias = module.folded()
        prefix = f"{module.path}." if module.path else ""
        observer = free_name(model, "activation_post_process_0")
        model.add_module(observer, module.weight_fake_quant)
        with model.graph.inserting_before(node):
            constants = [add_constant(model, f"{prefix}{name}", value) for name, value in
                         (("weight", weight), ("bias", bias))]  # fmt: skip
            observed = model.graph.call_module(observer, (constants[0],))
            arguments = (node.args[0], observed, constants[1], *module.rest)
            product = model.graph.call_function(module.target, arguments)
        inherit_meta(observed, constants[0])
        replace_node(node, product)
    if count:
        remove_unused(model)
    return count
