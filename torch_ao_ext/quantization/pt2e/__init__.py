"""Quantization of exported graphs: the steps behind quantize_pt2e."""

from torch_ao_ext.quantization.pt2e.export_utils import (
    allow_exported_model_train_eval,
    move_exported_model_to_eval,
    move_exported_model_to_train,
)

__all__ = [
    "allow_exported_model_train_eval",
    "move_exported_model_to_eval",
    "move_exported_model_to_train",
]
