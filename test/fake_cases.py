"""Operator -> cases, for tests of fake kernels."""

import torch
from fake_attention import attention_cases, matmul_cases, scaled_dot_product_attention_cases, softmax_cases
from fake_convs import batch_norm_cases, conv_add_cases, conv_cases, conv_dynamic_cases, without_post_ops
from fake_layers import (
    bag_cases,
    binary_cases,
    channel_norm_cases,
    contiguous_cases,
    embedding_cases,
    interpolate_cases,
    lookup_cases,
    pool_cases,
    row_norm_cases,
    unpack_cases,
)
from fake_products import (
    add_cases,
    dynamic_cases,
    sparse_cases,
    static_cases,
    tensor_cases,
    weight_only_cases,
)
from fake_quantize import (
    channel_cases,
    choose_cases,
    dequantize_tensor_cases,
    qparam_tensors,
    quantize_tensor_cases,
    token_cases,
)
from fake_values import floats

ops = torch.ops.torch_ao

CASES = {
    "matmul": matmul_cases,
    "scaled_dot_product_attention": scaled_dot_product_attention_cases,
    "softmax": softmax_cases,
    "attention": attention_cases,
    "contiguous": contiguous_cases,
    "lookup": lookup_cases,
    "interpolate": interpolate_cases,
    **{
        name: lambda name=name: row_norm_cases(name)
        for name in ("layer_norm", "rms_norm", "add_layer_norm", "add_layer_norm_sum")
    },
    **{
        name: lambda name=name: channel_norm_cases(name)
        for name in ("group_norm", "instance_norm", "batch_norm")
    },
    "add": binary_cases,
    "mul": binary_cases,
    "requantize": lambda: (((*a[:3], *a[6:]), kw) for a, kw in binary_cases()),
    "max_pool1d": lambda: pool_cases(1, "max"),
    "max_pool2d": lambda: pool_cases(2, "max"),
    "max_pool3d": lambda: pool_cases(3, "max"),
    "avg_pool1d": lambda: pool_cases(1, "avg"),
    "avg_pool2d": lambda: pool_cases(2, "avg"),
    "avg_pool3d": lambda: pool_cases(3, "avg"),
    "adaptive_avg_pool1d": lambda: pool_cases(1, "adaptive"),
    "adaptive_avg_pool2d": lambda: pool_cases(2, "adaptive"),
    "adaptive_avg_pool3d": lambda: pool_cases(3, "adaptive"),
    "conv1d": lambda: conv_cases(1),
    "conv2d": lambda: conv_cases(2),
    "conv3d": lambda: conv_cases(3),
    "conv_transpose1d": lambda: conv_cases(1, transposed=True),
    "conv_transpose2d": lambda: conv_cases(2, transposed=True),
    "conv_transpose3d": lambda: conv_cases(3, transposed=True),
    "conv1d_dynamic": lambda: conv_dynamic_cases(1),
    "conv2d_dynamic": lambda: conv_dynamic_cases(2),
    "conv3d_dynamic": lambda: conv_dynamic_cases(3),
    "conv_transpose1d_dynamic": lambda: conv_dynamic_cases(1, transposed=True),
    "conv_transpose2d_dynamic": lambda: conv_dynamic_cases(2, transposed=True),
    "conv_transpose3d_dynamic": lambda: conv_dynamic_cases(3, transposed=True),
    "conv1d_relu": lambda: without_post_ops(conv_cases(1)),
    "conv2d_relu": lambda: without_post_ops(conv_cases(2)),
    "conv3d_relu": lambda: without_post_ops(conv_cases(3)),
    "conv2d_add": conv_add_cases,
    "conv2d_add_relu": conv_add_cases,
    "conv1d_bn": lambda: batch_norm_cases(conv_cases(1)),
    "conv2d_bn": lambda: batch_norm_cases(conv_cases(2)),
    "conv3d_bn": lambda: batch_norm_cases(conv_cases(3)),
    "conv1d_bn_relu": lambda: batch_norm_cases(conv_cases(1)),
    "conv2d_bn_relu": lambda: batch_norm_cases(conv_cases(2)),
    "conv3d_bn_relu": lambda: batch_norm_cases(conv_cases(3)),
    "conv_transpose1d_bn": lambda: batch_norm_cases(conv_cases(1, transposed=True)),
    "conv_transpose2d_bn": lambda: batch_norm_cases(conv_cases(2, transposed=True)),
    "conv_transpose3d_bn": lambda: batch_norm_cases(conv_cases(3, transposed=True)),
    "linear_bn": lambda: batch_norm_cases(static_cases()),
    "linear_bn_relu": lambda: batch_norm_cases(static_cases()),
    "embedding": embedding_cases,
    "embedding_bag": bag_cases,
    "embedding_prepack": lambda: (
        ((floats(n, k, dtype=dtype), bits), {})
        for n, k in ((4, 9), (0, 3), (3, 0))
        for bits in (8, 4, 2)
        for dtype in (torch.float32, torch.bfloat16)
    ),
    "embedding_unpack": unpack_cases,
    "linear_dynamic": dynamic_cases,
    "linear_relu_dynamic": lambda: (
        (a, {k: v for k, v in kw.items() if "post" not in k and k != "other"}) for a, kw in dynamic_cases()
    ),
    "linear": static_cases,
    "linear.tensor": tensor_cases,
    "linear_relu": static_cases,
    "linear_leaky_relu": lambda: static_cases(0.2),
    "linear_tanh": static_cases,
    "linear_add": add_cases,
    "linear_add_relu": add_cases,
    "linear_weight_only": weight_only_cases,
    "sparse_linear": lambda: sparse_cases(dynamic=False),
    "sparse_linear_dynamic": lambda: sparse_cases(dynamic=True),
    "quantize_per_tensor": quantize_tensor_cases,
    "quantize_per_tensor.tensor": lambda: qparam_tensors(quantize_tensor_cases()),
    "dequantize_per_tensor": dequantize_tensor_cases,
    "dequantize_per_tensor.tensor": lambda: qparam_tensors(dequantize_tensor_cases()),
    "quantize_per_channel": channel_cases,
    "dequantize_per_channel": lambda: channel_cases(dequantize=True),
    "quantize_per_token": token_cases,
    "dequantize_per_token": lambda: token_cases(dequantize=True),
    "choose_qparams": choose_cases,
    "choose_qparams_per_token": lambda: choose_cases(per_token=True),
}

# Their cases are in test/ops/test_rnn.py, test_cat.py and test_island.py.
LISTS = {"lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell", "cat", "island"}


def overload(name):
    packet, _, kind = name.partition(".")
    return getattr(getattr(ops, packet), kind or "default")
