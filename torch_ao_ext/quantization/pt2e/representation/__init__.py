"""Quantized graphs in integer arithmetic of ATen operators alone."""

from torch_ao_ext.quantization.pt2e.representation.rewrite import reference_representation_rewrite

__all__ = ["reference_representation_rewrite"]
