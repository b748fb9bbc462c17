"""Pruning under torch.ao.pruning's names: masks on weights, schedules, conversion.

A sparsifier puts a mask on weights (`prepare`), recomputes it (`step`) and finally
multiplies it in (`squash_mask`). A scheduler moves the sparsity level over time.
"""

from torch_ao_ext.pruning._mappings import (
    get_dynamic_sparse_quantized_mapping,
    get_static_sparse_quantized_mapping,
)
from torch_ao_ext.pruning.scheduler.base_scheduler import BaseScheduler
from torch_ao_ext.pruning.scheduler.cubic_scheduler import CubicSL
from torch_ao_ext.pruning.scheduler.lambda_scheduler import LambdaSL
from torch_ao_ext.pruning.sparsifier.base_sparsifier import BaseSparsifier
from torch_ao_ext.pruning.sparsifier.nearly_diagonal_sparsifier import NearlyDiagonalSparsifier
from torch_ao_ext.pruning.sparsifier.utils import (
    FakeSparsity,
    fqn_to_module,
    get_arg_info_from_tensor_fqn,
    module_to_fqn,
)
from torch_ao_ext.pruning.sparsifier.weight_norm_sparsifier import WeightNormSparsifier

__all__ = [
    "BaseScheduler",
    "BaseSparsifier",
    "CubicSL",
    "FakeSparsity",
    "LambdaSL",
    "NearlyDiagonalSparsifier",
    "WeightNormSparsifier",
    "fqn_to_module",
    "get_arg_info_from_tensor_fqn",
    "get_dynamic_sparse_quantized_mapping",
    "get_static_sparse_quantized_mapping",
    "module_to_fqn",
]
