"""Numeric suite: float and quantized models side by side, under torch.ao's names.

`torch_ao_ext.compare` answers the usual question in one call.
"""

__all__: list[str] = []
