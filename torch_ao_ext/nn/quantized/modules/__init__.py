"""Quantized modules of eager mode, and modules with 8- and 4-bit weights."""

from torch_ao_ext.nn.quantized.modules.activation import (
    ELU,
    Hardswish,
    LeakyReLU,
    PReLU,
    ReLU6,
    Sigmoid,
    Softmax,
)
from torch_ao_ext.nn.quantized.modules.attention import MultiheadAttention
from torch_ao_ext.nn.quantized.modules.batchnorm import BatchNorm2d, BatchNorm3d
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
)
from torch_ao_ext.nn.quantized.modules.rnn import LSTM
from torch_ao_ext.nn.quantized.modules.stubs import DeQuantize, Quantize

__all__ = [
    "ELU",
    "LSTM",
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
    "MultiheadAttention",
    "PReLU",
    "QFunctional",
    "Quantize",
    "ReLU6",
    "Sigmoid",
    "Softmax",
]
