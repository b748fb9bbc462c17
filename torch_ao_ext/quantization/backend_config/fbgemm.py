"""get_fbgemm_backend_config."""

from torch_ao_ext.quantization.backend_config._patterns import library_backend_config
from torch_ao_ext.quantization.backend_config.backend_config import BackendConfig

__all__ = ["get_fbgemm_backend_config"]


def get_fbgemm_backend_config() -> BackendConfig:
    """What this library runs in int8, whatever engine it chooses; torch.ao's name "fbgemm"."""
    return library_backend_config("fbgemm")
