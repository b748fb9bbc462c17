"""Peers of single operators compute what the operator does, and a wrong answer is found."""

import warnings

import pytest
import torch

from benchmarks.harness import peers
from benchmarks.ops import attention, conv_bn, embedding, observer, quantize, sparse_linear


@pytest.fixture(autouse=True)
def _quiet(_warnings_are_errors):
    """torch.ao's tensors warn of their dtypes."""
    warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor")
    with torch.no_grad():
        peers.ours()
        yield


def test_ways_to_quantize_are_a_step_from_the_input():
    missing = peers.Missing()
    table, failures = quantize.calls(4, 64, 32, 1, missing)
    assert failures == []
    assert {quantize.STEPS, quantize.ORT, quantize.TORCHAO} == (set(table) | set(missing.as_dict())) - {
        quantize.FUSED, quantize.STATIC, quantize.AO,
    }  # fmt: skip
    x = torch.randn(4, 64)
    q, scale, zero_points = torch.zeros(4, 64), torch.ones(4, 1), 0
    off = quantize.steps_off({quantize.STEPS: lambda: (q, scale, zero_points)}, x)
    assert off == {quantize.STEPS: pytest.approx(x.abs().max().item())}


def test_onnxruntime_has_one_scale(tmp_path):
    pytest.importorskip("onnxruntime")
    from benchmarks.peers import quantize_peers

    x = torch.randn(3, 8)
    q, scale, zero_point = quantize_peers.onnxruntime_call(x, 1, tmp_path)()
    assert q.dtype == torch.uint8 and q.shape == x.shape
    assert scale == pytest.approx((x.max() - x.min()).item() / 255, rel=1e-5)
    assert 0 < zero_point < 255


def test_torchao_has_a_scale_for_each_row():
    pytest.importorskip("torchao")
    from benchmarks.peers import quantize_peers

    x = torch.randn(3, 8) * torch.tensor([[1.0], [10.0], [100.0]])
    q, scale, _ = quantize_peers.torchao_call(x)()
    assert q.dtype == torch.int8 and q.int().abs().amax(1).min() >= 126
    assert scale.shape == (3, 1) and scale[2] > 20 * scale[0]


def test_attention_of_torchao_has_its_operators_arguments():
    pytest.importorskip("torchao")
    small = attention.Attention(attention.Shape("small", 1, 2, 16, 8))
    name = "torchao::qscaled_dot_product"
    if torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"):
        answer = small.torchao()()
    else:
        with pytest.raises(RuntimeError, match="this wheel .* holds no CPU kernel qscaled_dot_product"):
            small.torchao()
        library = torch.library.Library("torchao", "IMPL")
        library.impl("qscaled_dot_product", rule, "CPU")
        try:
            answer = small.torchao()()
        finally:
            library._destroy()
    noise = (small.real(answer) - small.exact).square().sum()
    assert small.exact.square().sum() > 300 * noise  # 25 dB


def rule(
    q, k, v, mask=None, dropout=0.0, causal=False, factor=None, q_scale=1.0, q_zp=0, k_scale=1.0, k_zp=0,
    v_scale=1.0, v_zp=0, a_scale=1.0, a_zp=0, o_scale=1.0, o_zp=0,
):  # fmt: skip
    """What torchao says of its arguments."""
    assert mask is None and (dropout, causal) == (0.0, False)
    q, k, v = (
        (x.float() - zp) * scale
        for x, scale, zp in ((q, q_scale, q_zp), (k, k_scale, k_zp), (v, v_scale, v_zp))
    )
    weights = torch.softmax(q @ k.transpose(-1, -2) * factor, -1)
    weights = ((weights / a_scale).round() + a_zp).clamp(0, 255)
    y = (weights - a_zp) * a_scale @ v
    return ((y / o_scale).round() + o_zp).clamp(0, 255).to(torch.uint8)


def test_observers_of_three_libraries_agree():
    modules = observer.libraries(peers.Missing())
    data = [torch.randn(4, 6), torch.randn(4, 6)]
    for name in observer.OBSERVERS:
        calls = {label: observer.calibrate(getattr(m, name), data) for label, m in modules.items()}
        assert observer.far(calls) == [], name
        scale, zero_points = calls[observer.AO]()
        calls[observer.AO] = lambda s=scale, z=zero_points: (2 * s, z)
        assert observer.far(calls) == [f"qparams of {observer.AO} differ"]


def test_training_steps_of_three_libraries_agree():
    modules = observer.libraries(peers.Missing())
    with torch.enable_grad():
        for name in observer.FAKES:
            x = torch.randn(6, 4)
            calls = {k: observer.training_step(getattr(m.fake_quantize, name), x) for k, m in modules.items()}
            assert observer.far(calls, "values") == [], name
            y, gradient = calls[observer.OURS]()
            assert gradient.shape == x.shape and 0 < (y - x).abs().max() < 0.05
            calls[observer.AO] = lambda y=y, gradient=gradient: (y, 2 * gradient)
            assert observer.far(calls, "values") == [f"values of {observer.AO} differ"]


def test_openvinos_dense_product_is_asked_for_once(monkeypatch):
    asked = []

    def refuse(*_):
        asked.append(1)
        raise RuntimeError("dense")

    monkeypatch.setattr(sparse_linear.sparse_peers, "openvino_call", refuse)
    missing, rows = peers.Missing(), sparse_linear.shapes.read_sparse("sparse_linear")[:2]
    for shape in rows:
        table = sparse_linear.calls(shape, 1, missing)
        assert sparse_linear.OPENVINO not in table and sparse_linear.answer_failures(table) == []
    assert len(asked) == 1 and "dense" in missing.as_dict()[sparse_linear.OPENVINO]


def test_the_compiled_layer_is_the_float_one(monkeypatch):
    monkeypatch.setattr(conv_bn.torch_peers, "compiled_now", lambda module, inputs: module)
    shape = next(s for s in sparse_linear.shapes.read_conv("conv") if s.layer == "mobilenetv2 depthwise 56")
    table = conv_bn.calls(shape, compiles=True)
    torch.testing.assert_close(table[conv_bn.COMPILED](), table[conv_bn.FP32](), rtol=1e-5, atol=1e-4)
    assert conv_bn.COMPILED not in conv_bn.calls(shape)


@pytest.mark.parametrize("switches, rows", [
    ([], 12), (["--sizes"], 32), (["--sizes", "--only", "x 20 zipf"], 6),
])  # fmt: skip
def test_each_table_of_bags_is_packed_once(monkeypatch, switches, rows):
    seen = []
    monkeypatch.setattr(embedding, "run_row", lambda shape, *_: seen.append((shape.rows, shape.dim)))
    embedding.add_rows(embedding.parse(switches), None, None)
    changes = [a for a, b in zip(seen, [None, *seen], strict=False) if a != b]
    assert len(seen) == rows and len(changes) == len(set(seen))
