"""Several quantizers on one graph."""

from typing import Any

from torch import fx

from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    EdgeOrNode,
    QuantizationAnnotation,
    Quantizer,
)

__all__ = ["ComposableQuantizer"]


def _state(annotation: QuantizationAnnotation | None) -> Any:
    if annotation is None:
        return None
    return (
        dict(annotation.input_qspec_map), annotation.output_qspec,
        annotation.allow_implicit_sharing, dict(annotation.custom),
    )  # fmt: skip


class ComposableQuantizer(Quantizer):
    """Annotates with one quantizer after the other; a later one may not change an earlier one's nodes.

    Args:
        quantizers: in the order of their precedence.

    Raises:
        ValueError: on annotate, when a quantizer changed or removed an annotation.

    Example:
        >>> from torch_ao_ext.quantization.quantizer import ComposableQuantizer, EmbeddingQuantizer
        >>> len(ComposableQuantizer([EmbeddingQuantizer()]).quantizers)
        1
    """

    def __init__(self, quantizers: list[Quantizer]) -> None:
        super().__init__()
        self.quantizers = quantizers
        self._seen: dict[fx.Node, Any] = {}

    def _record(self, model: fx.GraphModule, quantizer: Quantizer) -> None:
        for node in model.graph.nodes:
            now = _state(node.meta.get(Q_ANNOTATION_KEY))
            if node in self._seen and self._seen[node] != now:
                raise ValueError(
                    f"ComposableQuantizer: {type(quantizer).__name__} must leave the annotation of "
                    f"node '{node.name}' as an earlier quantizer made it, got "
                    f"{'none' if now is None else 'another one'}"
                )
            if now is not None:
                self._seen[node] = now

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Lets every quantizer change the graph, in order."""
        for quantizer in self.quantizers:
            model = quantizer.transform_for_annotation(model)
        return model

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Lets every quantizer annotate, in order."""
        self._seen.clear()
        for quantizer in self.quantizers:
            quantizer.annotate(model)
            self._record(model, quantizer)
        self._seen.clear()
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Lets every quantizer validate."""
        for quantizer in self.quantizers:
            quantizer.validate(model)

    def prepare_obs_or_fq_callback(
        self, model: fx.GraphModule, edge_or_node_to_obs_or_fq: dict[EdgeOrNode, Any]
    ) -> None:
        """Lets every quantizer change the observers, in order."""
        for quantizer in self.quantizers:
            quantizer.prepare_obs_or_fq_callback(model, edge_or_node_to_obs_or_fq)
