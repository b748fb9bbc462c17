"""Annotates the weights of embeddings, row by row."""

import functools

import torch
from torch import fx

from torch_ao_ext.quantization.observer import PerChannelMinMaxObserver
from torch_ao_ext.quantization.quantizer.quantizer import QuantizationSpec, Quantizer
from torch_ao_ext.quantization.quantizer.utils import (
    OperatorConfig,
    QuantizationConfig,
    annotate_input_qspec_map,
    is_annotated,
    mark_annotated,
)

__all__ = ["EmbeddingQuantizer", "get_embedding_operators_config"]

_EMBEDDING = torch.ops.aten.embedding.default


@functools.lru_cache
def get_embedding_operators_config() -> OperatorConfig:
    """The config of embedding rows: uint8 with a float scale and zero point for each row."""
    weight = QuantizationSpec(
        dtype=torch.uint8,
        qscheme=torch.per_channel_affine_float_qparams,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-12),
    )
    config = QuantizationConfig(None, None, weight, None)
    return OperatorConfig(config, [[torch.nn.Embedding], [torch.nn.functional.embedding]])


class EmbeddingQuantizer(Quantizer):
    """Quantizes the weight of every embedding.

    Example:
        >>> from torch_ao_ext.quantization.quantizer import EmbeddingQuantizer
        >>> len(EmbeddingQuantizer.get_supported_quantization_configs())
        1
    """

    @classmethod
    def get_supported_quantization_configs(cls) -> list[QuantizationConfig]:
        """The configs that annotate can use."""
        return [config.config for config in cls.get_supported_operators()]

    @classmethod
    def get_supported_operator_for_quantization_config(
        cls, quantization_config: QuantizationConfig
    ) -> list[list[object]]:
        """The operator patterns of a config, none for another config."""
        found = []
        for config, operators in cls.get_supported_operators():
            if config == quantization_config:
                found += operators
        return found

    @classmethod
    def get_supported_operators(cls) -> list[OperatorConfig]:
        """The configs with their operators."""
        return [get_embedding_operators_config()]

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Annotates the weights of embeddings."""
        config = get_embedding_operators_config().config
        for node in model.graph.nodes:
            if node.op == "call_function" and node.target is _EMBEDDING and not is_annotated(node):
                annotate_input_qspec_map(node, node.args[0], config.weight)
                mark_annotated(node)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Every annotated graph can run."""
