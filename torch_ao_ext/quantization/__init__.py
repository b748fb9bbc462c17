"""Quantization flows under the names of torch.ao.quantization.

What works on graphs (`quantize_fx`, `quantize_pt2e`, `pt2e`, `quantizer`) is loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from torch_ao_ext.quantization.fake_quantize import *  # noqa: F403
from torch_ao_ext.quantization.fake_quantize import __all__ as _fake_quantize_names
from torch_ao_ext.quantization.fuse_modules import (
    fuse_known_modules,
    fuse_modules,
    fuse_modules_qat,
)
from torch_ao_ext.quantization.fuser_method_mappings import (
    fuse_conv_bn,
    fuse_conv_bn_relu,
    fuse_convtranspose_bn,
    fuse_linear_bn,
    get_fuser_method,
    get_fuser_method_new,
)
from torch_ao_ext.quantization.observer import *  # noqa: F403
from torch_ao_ext.quantization.observer import __all__ as _observer_names
from torch_ao_ext.quantization.qconfig import *  # noqa: F403
from torch_ao_ext.quantization.qconfig import __all__ as _qconfig_names
from torch_ao_ext.quantization.qconfig_mapping import *  # noqa: F403
from torch_ao_ext.quantization.qconfig_mapping import __all__ as _qconfig_mapping_names
from torch_ao_ext.quantization.quant_type import QuantType
from torch_ao_ext.quantization.quantization_mappings import *  # noqa: F403
from torch_ao_ext.quantization.quantization_mappings import __all__ as _mapping_names
from torch_ao_ext.quantization.quantize import *  # noqa: F403
from torch_ao_ext.quantization.quantize import __all__ as _quantize_names
from torch_ao_ext.quantization.quantize_jit import *  # noqa: F403
from torch_ao_ext.quantization.quantize_jit import __all__ as _quantize_jit_names
from torch_ao_ext.quantization.stubs import DeQuantStub, QuantStub, QuantWrapper
from torch_ao_ext.quantization.utils import MatchAllNode, Pattern, get_combined_dict
from torch_ao_ext.quantization.weight_only import quantize_weight_only

ObserverOrFakeQuantize = ObserverBase | FakeQuantizeBase  # noqa: F405

if TYPE_CHECKING:
    from torch_ao_ext.quantization.pt2e import (
        allow_exported_model_train_eval,
        move_exported_model_to_eval,
        move_exported_model_to_train,
    )
    from torch_ao_ext.quantization.quantize_pt2e import (
        convert_pt2e,
        prepare_pt2e,
        prepare_qat_pt2e,
    )

__all__ = [
    "DeQuantStub",
    "MatchAllNode",
    "ObserverOrFakeQuantize",
    "Pattern",
    "QuantStub",
    "QuantType",
    "QuantWrapper",
    "allow_exported_model_train_eval",
    "convert_pt2e",
    "fuse_conv_bn",
    "fuse_conv_bn_relu",
    "fuse_convtranspose_bn",
    "fuse_known_modules",
    "fuse_linear_bn",
    "fuse_modules",
    "fuse_modules_qat",
    "default_eval_fn",
    "get_combined_dict",
    "get_fuser_method",
    "get_fuser_method_new",
    "move_exported_model_to_eval",
    "move_exported_model_to_train",
    "prepare_pt2e",
    "prepare_qat_pt2e",
    "quantize_weight_only",
    *_fake_quantize_names,
    *_mapping_names,
    *_observer_names,
    *_qconfig_names,
    *_qconfig_mapping_names,
    *_quantize_names,
    *_quantize_jit_names,
]


def default_eval_fn(model: Any, calib_data: Any) -> None:
    """Runs a model on the first part of each batch, as `run_fn` of `quantize`."""
    for batch in calib_data:
        model(batch[0])


_SUBMODULES = ("backend_config", "fx", "pt2e", "quantize_fx", "quantize_pt2e", "quantizer")
_LAZY = {
    "allow_exported_model_train_eval": "pt2e",
    "convert_pt2e": "quantize_pt2e",
    "move_exported_model_to_eval": "pt2e",
    "move_exported_model_to_train": "pt2e",
    "prepare_pt2e": "quantize_pt2e",
    "prepare_qat_pt2e": "quantize_pt2e",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
