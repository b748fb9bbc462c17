"""Quantizers: they say which tensors of an exported graph are quantized, and how.

Names and configs are those that torch.ao.quantization.quantizer had. Nodes are found by
ATen operator and graph edges, so that it does not matter how the graph was captured.
"""

from torch_ao_ext.quantization.quantizer.composable_quantizer import ComposableQuantizer
from torch_ao_ext.quantization.quantizer.embedding_quantizer import EmbeddingQuantizer
from torch_ao_ext.quantization.quantizer.quantizer import (
    DerivedQuantizationSpec,
    EdgeOrNode,
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)
from torch_ao_ext.quantization.quantizer.x86_inductor_quantizer import X86InductorQuantizer
from torch_ao_ext.quantization.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from torch_ao_ext.quantization.quantizer.xpu_inductor_quantizer import XPUInductorQuantizer

__all__ = [
    "ComposableQuantizer",
    "DerivedQuantizationSpec",
    "EdgeOrNode",
    "EmbeddingQuantizer",
    "FixedQParamsQuantizationSpec",
    "QuantizationAnnotation",
    "QuantizationSpec",
    "QuantizationSpecBase",
    "Quantizer",
    "SharedQuantizationSpec",
    "X86InductorQuantizer",
    "XNNPACKQuantizer",
    "XPUInductorQuantizer",
]
