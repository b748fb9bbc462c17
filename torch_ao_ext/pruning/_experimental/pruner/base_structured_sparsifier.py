"""The steps that all structured pruners share: row masks, biases, removal."""

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node, symbolic_trace

from torch_ao_ext.pruning._experimental.pruner._patterns import (
    Pattern,
    _get_default_structured_pruning_patterns,
    _get_supported_structured_pruning_modules,
)
from torch_ao_ext.pruning._experimental.pruner._weights import row_mask, settle_bias
from torch_ao_ext.pruning._experimental.pruner.match_utils import apply_match
from torch_ao_ext.pruning._experimental.pruner.parametrization import (
    BiasHook,
    FakeStructuredSparsity,
    module_contains_param,
)
from torch_ao_ext.pruning._experimental.pruner.prune_functions import Call
from torch_ao_ext.pruning.sparsifier.base_sparsifier import BaseSparsifier

__all__ = ["BaseStructuredSparsifier"]


class BaseStructuredSparsifier(BaseSparsifier):
    """Base class of the structured pruners; a subclass writes `update_mask`.

    `prepare` masks rows, `prune` removes them. A configuration may hold `prune_bias`
    (default True): whether a masked row loses its bias too.

    Args:
        defaults: Configuration of every tensor whose own entry does not name it.
        patterns: Chain of layers -> function that prunes it; None takes the chains of
            Linear, Conv2d and LSTM with activations, batch norms and pools between.
    """

    def __init__(
        self, defaults: dict[str, Any] | None, patterns: dict[Pattern, Callable[..., None]] | None = None
    ) -> None:
        super().__init__(defaults)
        self.patterns = _get_default_structured_pruning_patterns() if patterns is None else patterns

    def make_config_from_model(
        self, model: nn.Module, SUPPORTED_MODULES: set[type[nn.Module]] | None = None
    ) -> None:
        """Sets `config` to all weights of Linear, Conv2d and LSTM layers of the model."""
        supported = (
            _get_supported_structured_pruning_modules() if SUPPORTED_MODULES is None else SUPPORTED_MODULES
        )
        super().make_config_from_model(model, supported)
        config = []
        for entry in self.config:
            path = entry["tensor_fqn"].removesuffix("weight").rstrip(".")
            module = model.get_submodule(path)
            if isinstance(module, nn.RNNBase):
                names = [n for n in module._flat_weights_names if n.startswith("weight_")]
                config += [{"tensor_fqn": f"{path}.{name}"} for name in names]
            else:
                config.append(entry)
        self.config = config

    def _new_mask(self, config: dict[str, Any], tensor: torch.Tensor) -> torch.Tensor:
        return torch.ones(tensor.shape[0], dtype=torch.bool, device=tensor.device)

    def _parametrization(self, config: dict[str, Any]) -> type[nn.Module]:
        return config.get("parametrization", FakeStructuredSparsity)

    def _attach(self, config: dict[str, Any], mask: torch.Tensor) -> nn.Module:
        holder = super()._attach(config, mask)
        module = config["module"]
        if isinstance(module, (nn.Linear, nn.Conv2d)) and config["tensor_name"] == "weight":
            prune_bias = config.get("prune_bias", True)
            if module.bias is not None:
                bias = module.bias
                module.bias = None
                module.register_parameter("_bias", bias)
                module.prune_bias = prune_bias
            module.register_forward_hook(BiasHook(holder, prune_bias))
        return holder

    def squash_mask(self, *args: Any, **kwargs: Any) -> None:
        """As BaseSparsifier; also gives each layer its bias back, masked if `prune_bias`."""
        layers = [
            module
            for module in (config["module"] for config in self.groups)
            if isinstance(module, (nn.Linear, nn.Conv2d))
            and module_contains_param(module, FakeStructuredSparsity)
        ]
        masks = [row_mask(layer) for layer in layers]
        super().squash_mask(*args, **kwargs)
        for layer, mask in zip(layers, masks, strict=True):
            settle_bias(layer, mask, cut=False)

    def prune(self) -> GraphModule:
        """Traces the model, removes the masked rows and the columns that read them.

        Nothing is changed when some masked layer stands in no known chain.

        Returns:
            The traced model; its layers are those of the prepared model.

        Raises:
            RuntimeError: Naming each layer that cannot be pruned, with the reason.
        """
        self.traced = symbolic_trace(self.model)
        modules = dict(self.traced.named_modules(remove_duplicate=False))
        chains, refused = self._plan(modules)
        reached = {id(modules[n.target]) for chain, _ in chains for n in chain if n.op == "call_module"}
        refused = {name: why for name, why in refused.items() if id(modules[name]) not in reached}
        if refused:
            lines = "\n".join(f"  {name}: {why}" for name, why in refused.items())
            raise RuntimeError(f"prune: every masked layer must stand in a known chain, got\n{lines}")
        for chain, function in chains:
            if module_contains_param(modules[chain[0].target], FakeStructuredSparsity):
                function(*[_block(modules, node) for node in chain if node.op.startswith("call_")])
        left = [n for n, m in self.traced.named_modules() if module_contains_param(m, FakeStructuredSparsity)]
        if left:
            raise RuntimeError(f"prune: no row mask must be left, got masks on {left}")
        self.traced.graph.lint()
        self.traced.recompile()
        return self.traced

    def _plan(self, modules: dict[str, nn.Module]) -> tuple[list[tuple[list[Node], Any]], dict[str, str]]:
        """The chain of each masked layer, and the reason where there is none."""
        calls: dict[int, int] = {}
        for node in self.traced.graph.nodes:
            if node.op == "call_module":
                calls[id(modules[node.target])] = calls.get(id(modules[node.target]), 0) + 1
        chains, refused = [], {}
        for node in self.traced.graph.nodes:
            if node.op != "call_module" or not module_contains_param(
                modules[node.target], FakeStructuredSparsity
            ):
                continue
            why = "what follows it fits no pattern"
            for pattern, function in self.patterns.items():
                chain = apply_match(modules, pattern, node, [])
                if chain is None:
                    continue
                obstacle = _obstacle(modules, chain, calls)
                if obstacle is None:
                    chains.append((chain, function))
                    break
                why = obstacle
            else:
                refused[node.target] = why
        return chains, refused


def _obstacle(modules: dict[str, nn.Module], chain: list[Node], calls: dict[int, int]) -> str | None:
    """Why a chain that fits by its layers cannot be pruned, or None."""
    for node in chain:
        if node.op == "call_module" and calls[id(modules[node.target])] > 1:
            return f"layer {node.target!r} of its chain is called more than once"
        if node.op == "call_function":
            if node.target is getitem:
                if node.args[1] != 0:
                    return "the chain reads the state, not the output sequence"
            elif len(node.all_input_nodes) != 1 or node.args[:1] != (node.all_input_nodes[0],):
                return f"{node.name} takes more than one tensor"
    for node, reader in zip(chain[:-1], chain[1:], strict=True):
        for user in node.users:
            if user is not reader and not _only_returned(user):
                return f"the output of {node.name} is also read by {user.name}"
    return None


def _only_returned(user: Node) -> bool:
    if user.op == "output":
        return True
    return user.target is getitem and all(u.op == "output" for u in user.users)


def _block(modules: dict[str, nn.Module], node: Node) -> Any:
    if node.op == "call_module":
        return modules[node.target]
    if node.target is getitem or len(node.args) + len(node.kwargs) == 1:
        return node.target
    return Call(node.target, node.args[1:], node.kwargs)
