"""The operators torch.ops.torch_ao.* as documented functions, and their fake kernels."""

from torch_ao_ext.ops.linear_dynamic import linear_dynamic, linear_relu_dynamic

__all__ = ["linear_dynamic", "linear_relu_dynamic"]
