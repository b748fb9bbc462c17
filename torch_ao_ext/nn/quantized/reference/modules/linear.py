"""Linear layer that rounds its weight."""

from typing import Any

from torch import nn

from torch_ao_ext.nn.quantized.reference.modules.utils import ReferenceQuantizedModule

__all__ = ["Linear"]


class Linear(ReferenceQuantizedModule, nn.Linear):
    """y = x W'^T + b in float, W' the rounded weight; see `ReferenceQuantizedModule`.

    Example:
        >>> import torch, torch_ao_ext
        >>> reference = torch_ao_ext.nn.quantized.reference
        >>> grid = {"scale": 0.5, "zero_point": 0, "dtype": torch.qint8}
        >>> qparams = {"qscheme": torch.per_tensor_affine, **grid}
        >>> layer = reference.Linear.from_float(torch.nn.Linear(3, 2), qparams)
        >>> bool((layer.get_weight() % 0.5 == 0).all()), layer.get_quantized_weight().dtype
        (True, torch.int8)
    """

    _FLOAT = nn.Linear

    def __init__(
        self, in_features: int, out_features: int, bias_: bool = True, device: Any = None,
        dtype: Any = None, weight_qparams: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_features, out_features, bias_, device, dtype, weight_qparams=weight_qparams
        )
