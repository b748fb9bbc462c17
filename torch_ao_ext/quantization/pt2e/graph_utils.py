"""Sequences of source modules in a captured graph, for quantizers that users write.

The quantizers here match operators instead: source modules are known only where the
capture recorded them (`source_fn_stack`, or the module stack of torch.export).
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.passes.utils.source_matcher_utils import (
    SourcePartition,
    check_subgraphs_connected,
    get_source_partitions,
)

__all__ = ["find_sequential_partitions", "get_equivalent_types", "update_equivalent_types_dict"]

_EQUIVALENT: list[set[Any]] = [
    {nn.Conv1d, F.conv1d},
    {nn.Conv2d, F.conv2d},
    {nn.Conv3d, F.conv3d},
    {nn.Linear, F.linear},
    {nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d},
    {nn.ReLU, F.relu, F.relu_, torch.relu},
    {nn.BatchNorm2d, F.batch_norm},
    {nn.Hardtanh, F.hardtanh, F.hardtanh_},
    {torch.add, operator.add, operator.iadd, "add", "add_"},
    {torch.mul, operator.mul, operator.imul, "mul", "mul_"},
]


def get_equivalent_types() -> list[set[Any]]:
    """Sets of modules and functions that stand for one operator."""
    return _EQUIVALENT


def update_equivalent_types_dict(customized_equivalent_types: list[set[Any]] | None = None) -> None:
    """Replaces the sets of get_equivalent_types.

    Raises:
        ValueError: no sets given.
    """
    if customized_equivalent_types is None:
        raise ValueError(
            "update_equivalent_types_dict: argument 'customized_equivalent_types' must be a list of sets, "
            "got None"
        )
    _EQUIVALENT[:] = [set(group) for group in customized_equivalent_types]


def _matching(kind: Any) -> list[Any]:
    return next((list(group) for group in _EQUIVALENT if kind in group), [kind])


def _sequential(partitions: Sequence[SourcePartition]) -> bool:
    """Whether each partition gives what the next one reads."""
    pairs = itertools.pairwise(partitions)
    return all(check_subgraphs_connected(first, second) for first, second in pairs)


def find_sequential_partitions(
    gm: fx.GraphModule,
    partition_types: list[Any],
    include_functional_equivalent: bool = True,
    filter_fn: Callable[[fx.Node], bool] | None = None,
) -> list[tuple[SourcePartition, ...]]:
    """Source partitions that follow one another, as a conv and the relu behind it.

    Args:
        gm: a captured graph.
        partition_types: module classes or functions, in order.
        include_functional_equivalent: F.conv2d counts as nn.Conv2d, and so on.
        filter_fn: which nodes count.

    Returns:
        One tuple of partitions for each sequence found.

    Raises:
        ValueError: a type, or an equivalent of one, comes twice.
    """
    groups = [_matching(k) if include_functional_equivalent else [k] for k in partition_types]
    for i, kind in enumerate(partition_types):
        if any(kind in group for group in groups[:i]):
            raise ValueError(
                f"find_sequential_partitions: argument 'partition_types' must name each type once, got {kind}"
            )
    found = []
    for group in groups:
        partitions = get_source_partitions(gm.graph, group, filter_fn)
        found.append(list(itertools.chain.from_iterable(partitions.values())))
    return [candidate for candidate in itertools.product(*found) if _sequential(candidate)]
