"""Behind an operator that keeps qparams, the observer before it is right as it is.

pt2e's shared observers see such a value twice, which moves averages and histograms; eager mode
observes it once, and so does FX graph mode.
"""

from typing import Any

import torch
from torch import fx

from torch_ao_ext.quantization.fake_quantize import FakeQuantize, FakeQuantizeBase
from torch_ao_ext.quantization.observer import ObserverBase
from torch_ao_ext.quantization.pt2e._graph import free_name
from torch_ao_ext.quantization.quantizer._targets import is_call

__all__ = ["FollowingObserver", "follow"]


class FollowingObserver(ObserverBase):
    """Has the qparams of another observer; records nothing.

    Args:
        source: observer, or FakeQuantize, whose rounding it does.
    """

    def __init__(self, source: Any) -> None:
        super().__init__(dtype=source.dtype, is_dynamic=False)
        self.quant_min, self.quant_max, self.qscheme = source.quant_min, source.quant_max, source.qscheme
        self._source = (source,)  # not a submodule: it is observed in its own place

    @property
    def source(self) -> Any:
        """The observer that it follows."""
        return self._source[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x, rounded where the source rounds."""
        return self.source.rounded(x) if isinstance(self.source, FakeQuantize) else x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the source."""
        return self.source.calculate_qparams()


def _can_be_followed(observer: Any) -> bool:
    if getattr(observer, "is_dynamic", False) or getattr(observer, "qscheme", None) is None:
        return False
    if isinstance(observer, FakeQuantizeBase):
        return isinstance(observer, FakeQuantize)
    return isinstance(observer, ObserverBase)


def follow(model: fx.GraphModule, operators: set[Any]) -> None:
    """Replaces the second look of shared observers in a prepared graph, in place.

    Args:
        model: prepared.
        operators: keep qparams; their values lie within those of their first argument.
    """
    modules = dict(model.named_modules())
    for node in list(model.graph.nodes):
        observer = modules.get(node.target) if node.op == "call_module" else None
        value = node.args[0] if observer is not None and node.args else None
        if not is_call(value, operators) or not _can_be_followed(observer):
            continue
        before = value.args[0]
        if before.op == "call_module" and modules.get(before.target) in (
            observer, getattr(observer, "source", None)
        ):  # fmt: skip
            name = free_name(model, "activation_post_process_0")
            modules[name] = FollowingObserver(getattr(observer, "source", observer))
            model.add_module(name, modules[name])
            node.target = name
    model.recompile()
