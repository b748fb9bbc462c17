"""Quantized modules of eager mode, and modules with 8- and 4-bit weights."""

from torch_ao_ext.nn.quantized.modules.activation import (
    CELU,
    ELU,
    SELU,
    Hardswish,
    LeakyReLU,
    Mish,
    PReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softmax2d,
)
from torch_ao_ext.nn.quantized.modules.attention import MultiheadAttention
from torch_ao_ext.nn.quantized.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from torch_ao_ext.nn.quantized.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from torch_ao_ext.nn.quantized.modules.dropout import Dropout
from torch_ao_ext.nn.quantized.modules.embedding_ops import Embedding, EmbeddingBag
from torch_ao_ext.nn.quantized.modules.functional_modules import (
    FloatFunctional,
    FXFloatFunctional,
    QFunctional,
)
from torch_ao_ext.nn.quantized.modules.linear import Linear
from torch_ao_ext.nn.quantized.modules.linear_weight_only import LinearWeightOnly
from torch_ao_ext.nn.quantized.modules.normalization import (
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from torch_ao_ext.nn.quantized.modules.rnn import LSTM
from torch_ao_ext.nn.quantized.modules.stubs import DeQuantize, Quantize

__all__ = [
    "CELU",
    "ELU",
    "LSTM",
    "SELU",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DeQuantize",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "FXFloatFunctional",
    "FloatFunctional",
    "GroupNorm",
    "Hardswish",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LinearWeightOnly",
    "Mish",
    "MultiheadAttention",
    "PReLU",
    "QFunctional",
    "Quantize",
    "RMSNorm",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmax2d",
]
