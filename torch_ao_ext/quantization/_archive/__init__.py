"""TorchScript programs with torch.ao's `quantized::` operators, as graphs of this library's."""

from torch_ao_ext.quantization._archive._load import load_archive

__all__ = ["load_archive"]
