"""The operators torch.ops.torch_ao.* as documented functions, and their fake kernels."""

from torch_ao_ext.ops import _fake_quantize, _histogram  # noqa: F401  (fake kernels)
from torch_ao_ext.ops.attention import attention
from torch_ao_ext.ops.cat import cat
from torch_ao_ext.ops.choose_qparams import choose_qparams, choose_qparams_per_token
from torch_ao_ext.ops.contiguous import contiguous
from torch_ao_ext.ops.conv import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from torch_ao_ext.ops.conv_bn import (
    conv1d_bn,
    conv1d_bn_relu,
    conv2d_bn,
    conv2d_bn_relu,
    conv3d_bn,
    conv3d_bn_relu,
    conv_transpose1d_bn,
    conv_transpose2d_bn,
    conv_transpose3d_bn,
)
from torch_ao_ext.ops.conv_dynamic import (
    conv1d_dynamic,
    conv2d_dynamic,
    conv3d_dynamic,
    conv_transpose1d_dynamic,
    conv_transpose2d_dynamic,
    conv_transpose3d_dynamic,
)
from torch_ao_ext.ops.conv_fused import (
    conv1d_relu,
    conv2d_add,
    conv2d_add_relu,
    conv2d_relu,
    conv3d_relu,
)
from torch_ao_ext.ops.elementwise import add, mul, requantize
from torch_ao_ext.ops.embedding import (
    embedding,
    embedding_bag,
    embedding_prepack,
    embedding_unpack,
)
from torch_ao_ext.ops.interpolate import interpolate
from torch_ao_ext.ops.island import island
from torch_ao_ext.ops.linear import (
    linear,
    linear_add,
    linear_add_relu,
    linear_leaky_relu,
    linear_relu,
    linear_tanh,
)
from torch_ao_ext.ops.linear_bn import linear_bn, linear_bn_relu
from torch_ao_ext.ops.linear_dynamic import linear_dynamic, linear_relu_dynamic
from torch_ao_ext.ops.linear_weight_only import linear_weight_only
from torch_ao_ext.ops.lookup import lookup
from torch_ao_ext.ops.matmul import matmul
from torch_ao_ext.ops.norm import (
    add_layer_norm,
    add_layer_norm_sum,
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)
from torch_ao_ext.ops.pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from torch_ao_ext.ops.quantize_per_channel import dequantize_per_channel, quantize_per_channel
from torch_ao_ext.ops.quantize_per_tensor import dequantize_per_tensor, quantize_per_tensor
from torch_ao_ext.ops.quantize_per_token import dequantize_per_token, quantize_per_token
from torch_ao_ext.ops.rnn import gru, gru_cell, lstm, lstm_cell, rnn, rnn_cell
from torch_ao_ext.ops.scaled_dot_product_attention import scaled_dot_product_attention
from torch_ao_ext.ops.softmax import softmax
from torch_ao_ext.ops.sparse_linear import (
    BlockSparse,
    from_block_sparse,
    sparse_linear,
    sparse_linear_dynamic,
    to_block_sparse,
)

__all__ = [
    "BlockSparse",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "add",
    "add_layer_norm",
    "add_layer_norm_sum",
    "attention",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "cat",
    "choose_qparams",
    "choose_qparams_per_token",
    "contiguous",
    "conv1d",
    "conv1d_bn",
    "conv1d_bn_relu",
    "conv1d_dynamic",
    "conv1d_relu",
    "conv2d",
    "conv2d_add",
    "conv2d_add_relu",
    "conv2d_bn",
    "conv2d_bn_relu",
    "conv2d_dynamic",
    "conv2d_relu",
    "conv3d",
    "conv3d_bn",
    "conv3d_bn_relu",
    "conv3d_dynamic",
    "conv3d_relu",
    "conv_transpose1d",
    "conv_transpose1d_bn",
    "conv_transpose1d_dynamic",
    "conv_transpose2d",
    "conv_transpose2d_bn",
    "conv_transpose2d_dynamic",
    "conv_transpose3d",
    "conv_transpose3d_bn",
    "conv_transpose3d_dynamic",
    "dequantize_per_channel",
    "dequantize_per_tensor",
    "dequantize_per_token",
    "embedding",
    "embedding_bag",
    "embedding_prepack",
    "embedding_unpack",
    "from_block_sparse",
    "group_norm",
    "gru",
    "gru_cell",
    "instance_norm",
    "interpolate",
    "island",
    "layer_norm",
    "linear",
    "linear_add",
    "linear_add_relu",
    "linear_bn",
    "linear_bn_relu",
    "linear_dynamic",
    "linear_leaky_relu",
    "linear_relu",
    "linear_relu_dynamic",
    "linear_tanh",
    "linear_weight_only",
    "lookup",
    "lstm",
    "lstm_cell",
    "matmul",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mul",
    "quantize_per_channel",
    "quantize_per_tensor",
    "quantize_per_token",
    "requantize",
    "rms_norm",
    "rnn",
    "rnn_cell",
    "scaled_dot_product_attention",
    "softmax",
    "sparse_linear",
    "sparse_linear_dynamic",
    "to_block_sparse",
]
