"""Which annotated tensors share one observer."""

from torch import fx

from torch_ao_ext.quantization.quantizer.quantizer import (
    Q_ANNOTATION_KEY,
    EdgeOrNode,
    QuantizationSpecBase,
    SharedQuantizationSpec,
)


class Groups:
    """Sets of edges and nodes with one observer each.

    Args:
        specs: annotated tensors in graph order.

    Raises:
        ValueError: a shared spec names a tensor without a spec, or itself by a detour.
    """

    def __init__(self, specs: dict[EdgeOrNode, QuantizationSpecBase]) -> None:
        self._specs = specs
        self._parent: dict[EdgeOrNode, EdgeOrNode] = {key: key for key in specs}
        for key, spec in specs.items():
            if isinstance(spec, SharedQuantizationSpec):
                self._join(key, self._target(key))
        self._join_readers()

    def _target(self, key: EdgeOrNode) -> EdgeOrNode:
        """The tensor with a spec of its own at the end of a row of shared specs."""
        seen = [key]
        while isinstance(spec := self._specs.get(seen[-1]), SharedQuantizationSpec):
            if spec.edge_or_node in seen:
                raise ValueError(
                    f"prepare_pt2e: SharedQuantizationSpec of {_text(key)} must end at a tensor with "
                    f"another spec, got a circle through {_text(spec.edge_or_node)}"
                )
            seen.append(spec.edge_or_node)
        if seen[-1] not in self._specs:
            raise ValueError(
                f"prepare_pt2e: SharedQuantizationSpec of {_text(key)} must name an annotated tensor, "
                f"got {_text(seen[-1])}"
            )
        return seen[-1]

    def _join_readers(self) -> None:
        """Edges of one producer with equal specs share, unless an annotation forbids it."""
        for key in self._specs:
            if not isinstance(key, tuple):
                continue
            source, reader = key
            if not reader.meta[Q_ANNOTATION_KEY].allow_implicit_sharing:
                continue
            candidates: list[EdgeOrNode] = [source] if source in self._specs else []
            candidates += [
                (source, user)
                for user in source.users
                if (source, user) in self._specs and user.meta[Q_ANNOTATION_KEY].allow_implicit_sharing
            ]
            for other in candidates:
                if other != key and self.spec(other) == self.spec(key):
                    self._join(key, other)

    def root(self, key: EdgeOrNode) -> EdgeOrNode:
        """The tensor that stands for the group."""
        while self._parent[key] != key:
            key = self._parent[key]
        return key

    def _join(self, key: EdgeOrNode, other: EdgeOrNode) -> None:
        self._parent[self.root(key)] = self.root(other)

    def spec(self, key: EdgeOrNode) -> QuantizationSpecBase:
        """The spec that is not a shared one."""
        return self._specs[self._target(key)]


def _text(key: EdgeOrNode) -> str:
    if isinstance(key, fx.Node):
        return f"node '{key.name}'"
    return f"edge '{key[0].name}' -> '{key[1].name}'"
