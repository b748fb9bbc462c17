"""The patterns of `get_native_backend_config()`, as torch.ao's functions of this file give them.

Patterns are nested from their last operator back (`fx.match_utils`).
"""

from typing import Any

from torch_ao_ext.quantization.backend_config import get_native_backend_config
from torch_ao_ext.quantization.backend_config.utils import nested_patterns
from torch_ao_ext.quantization.fake_quantize import FixedQParamsFakeQuantize
from torch_ao_ext.quantization.fx.fuse_handler import _get_fusion_pattern_to_fuse_handler_cls
from torch_ao_ext.quantization.fx.quantize_handler import _get_pattern_to_quantize_handlers
from torch_ao_ext.quantization.observer import (
    default_fixed_qparams_range_0to1_observer,
    default_fixed_qparams_range_neg1to1_observer,
)

__all__ = [
    "get_default_fusion_patterns",
    "get_default_output_activation_post_process_map",
    "get_default_quant_patterns",
]

# Scale of results of known range -> their observer.
_KNOWN = {
    1 / 256: default_fixed_qparams_range_0to1_observer,
    2 / 256: default_fixed_qparams_range_neg1to1_observer,
}


def get_default_fusion_patterns() -> dict[Any, Any]:
    """Pattern -> class of `fx.fuse_handler`, for what `fuse_fx` fuses."""
    return _get_fusion_pattern_to_fuse_handler_cls(get_native_backend_config())


def get_default_quant_patterns() -> dict[Any, Any]:
    """Pattern -> class of `fx.quantize_handler`, for what `prepare_fx` observes."""
    return _get_pattern_to_quantize_handlers(get_native_backend_config())


def get_default_output_activation_post_process_map(is_training: bool) -> dict[Any, Any]:
    """Pattern -> observer of results of known range, of sigmoid for one; fake quantization in training.

    Args:
        is_training: for `prepare_qat_fx`.

    Example:
        >>> import torch
        >>> from torch_ao_ext.quantization.fx import pattern_utils
        >>> table = pattern_utils.get_default_output_activation_post_process_map(is_training=False)
        >>> float(table[torch.sigmoid]().scale)
        0.00390625
    """
    found = {}
    for pattern, config in nested_patterns(get_native_backend_config()).items():
        scales = {dtypes.output_dtype_with_constraints.scale_exact_match for dtypes in config.dtype_configs}
        observer = _KNOWN.get(scales.pop()) if len(scales) == 1 else None
        if observer is not None:
            fake = FixedQParamsFakeQuantize.with_args(observer=observer)
            found[pattern] = fake if is_training else observer
    return found


def _parts(pattern: Any) -> int:
    return sum(_parts(part) for part in pattern) if isinstance(pattern, tuple) else 1


def _sorted_patterns_dict(patterns_dict: dict[Any, Any]) -> dict[Any, Any]:
    """Patterns of more operators first, which match before their parts do."""
    return dict(sorted(patterns_dict.items(), key=lambda pair: -_parts(pair[0])))
