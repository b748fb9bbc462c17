"""get_native_backend_config."""

from typing import Any

from torch_ao_ext.quantization.backend_config._patterns import library_backend_config
from torch_ao_ext.quantization.backend_config.backend_config import BackendConfig

__all__ = ["get_native_backend_config", "get_native_backend_config_dict"]


def get_native_backend_config() -> BackendConfig:
    """What this library runs in int8, whatever engine it chooses; torch.ao's name "native"."""
    return library_backend_config("native")


def get_native_backend_config_dict() -> dict[str, Any]:
    """The dict form of get_native_backend_config."""
    return get_native_backend_config().to_dict()
