"""Modules under the paths of torch.ao.nn."""

from torch_ao_ext.nn import intrinsic, qat, quantizable, quantized, sparse

__all__ = ["intrinsic", "qat", "quantizable", "quantized", "sparse"]
