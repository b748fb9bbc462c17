"""The error contract: every bad argument of every overload raises the right type and names
the op, the argument and the value. Tables come from the schemas, so a new argument is covered
without an edit here."""

import re
import warnings

import pytest
import torch
from op_cases import ENGINES
from op_samples import overload, samples

ops = torch.ops.torch_ao
ALL = samples()
NAMES = sorted(ALL)

# op: argument 'name' must <rule>, got <value>
CONTRACT = re.compile(r"^torch_ao::(\w+): argument '(\w+)' must .+, got .+", re.S)


def arguments(name):
    return overload(name)._schema.arguments


def positions(name, kind):
    """Arguments of a kind; a dtype is an int in the schema's type, but not here."""
    found = [i for i, a in enumerate(arguments(name)) if kind in str(a.type)]
    return [i for i in found if "dtype" not in arguments(name)[i].name]


def call_error(name, call):
    """The exception of a call; None when it returns."""
    try:
        overload(name)(*call)
    except Exception as error:
        return error
    return None


def assert_contract(error, kinds, name, argument=None):
    assert isinstance(error, kinds), (type(error), error)
    match = CONTRACT.match(str(error))
    assert match, str(error)
    assert match[1] == name.split(".")[0]
    if argument is not None:
        assert match[2] == argument, str(error)


def replaced(call, i, value):
    return (*call[:i], value, *call[i + 1 :])


TENSOR_CASES = [(n, i) for n in NAMES for i in positions(n, "Tensor")]
DTYPES = [
    torch.float64, torch.float16, torch.complex64, torch.bool, torch.int16, torch.uint16,
    torch.float32, torch.bfloat16, torch.uint8, torch.int8, torch.int32, torch.int64,
    torch.float8_e4m3fn,
]  # fmt: skip


@pytest.mark.parametrize(("name", "i"), TENSOR_CASES)
def test_dtypes(name, i):
    """A dtype is either taken, or refused as a TypeError that names it."""
    argument = arguments(name)[i].name
    refused = 0
    for call in ALL[name]:
        if call[i] is None:
            continue
        for dtype in DTYPES:
            bad = torch.zeros(call[i].shape, dtype=dtype)
            if dtype == call[i].dtype:
                continue
            error = call_error(name, replaced(call, i, bad))
            if isinstance(error, TypeError):
                refused += 1
                assert_contract(error, TypeError, name, argument)
                assert str(error).endswith(f"got {str(dtype).removeprefix('torch.')}")
            elif error is not None:  # a zero scale, an output dtype that no longer fits
                assert_contract(error, ValueError, name)
    assert refused >= 5


@pytest.mark.parametrize(("name", "i"), TENSOR_CASES)
def test_layouts_and_devices(name, i):
    warnings.simplefilter("ignore")  # torch's, about the layouts made here
    argument = arguments(name)[i].name
    for call in ALL[name]:
        t = call[i]
        if t is None or t.dim() == 0:
            continue
        bad = [t.to_sparse()]
        if t.dtype in (torch.float32, torch.bfloat16) and t.numel() and t.is_contiguous():
            bad.append(t.to_mkldnn())
        if t.dim() == 2 and t.numel():
            bad.append(t.to_sparse_csr())
        if t.dtype == torch.float32 and t.numel():
            bad.append(torch.quantize_per_tensor(t, 0.1, 0, torch.qint8))
        for b in bad:
            assert_contract(call_error(name, replaced(call, i, b)), TypeError, name, argument)


@pytest.mark.parametrize(("name", "i"), TENSOR_CASES)
def test_none(name, i):
    argument = arguments(name)[i]
    call = next(c for c in ALL[name] if c[i] is not None)
    error = call_error(name, replaced(call, i, None))
    if "Optional" not in str(argument.type):
        assert_contract(error, (TypeError, ValueError), name, argument.name)
        assert str(error).endswith("got None")
    elif error is not None:
        assert_contract(error, ValueError, name, argument.name)


def test_lazily_computed_values_are_seen():
    """Negative-bit views arrive materialized at every argument."""
    x, w, s, _, bias, *rest = ALL["linear_dynamic"][0]
    lazy = torch.complex(torch.zeros_like(bias), -bias).conj().imag
    assert lazy.is_neg()
    assert torch.equal(ops.linear_dynamic(x, w, s, None, lazy), ops.linear_dynamic(x, w, s, None, bias))


ANY_SHAPE = {
    ("embedding", "indices"), ("_histogram", "input"), ("_fake_quantize", "input"), ("_min_max", "input"),
    ("requantize", "input"), ("contiguous", "input"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "i"), TENSOR_CASES)
def test_sizes(name, i):
    """Dropping, adding, doubling or emptying a dimension: an error, or torch's own shape rule."""
    argument = arguments(name)[i].name
    raised = 0
    for call in ALL[name]:
        t = call[i]
        if t is None:
            continue
        bad = [t.unsqueeze(0), t.new_zeros(()) if t.dim() else t.new_zeros(2), torch.stack([t, t], -1)]
        for d in range(t.dim()):
            bad.append(torch.cat([t, t], d) if t.shape[d] else t)
            bad.append(t.narrow(d, 0, 0))
            bad.append(t.narrow(d, 0, t.shape[d] - 1) if t.shape[d] > 2 else t)
        for b in bad:
            error = call_error(name, replaced(call, i, b))
            if error is not None:
                raised += 1
                assert_contract(error, (ValueError, IndexError), name)
    takes_any_shape = argument == "input" and ("per_tensor" in name or "choose" in name)
    takes_any_shape = takes_any_shape or (name, argument) in ANY_SHAPE
    assert raised >= (0 if takes_any_shape else 2)


BAD_SCALES = [0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-39, 1e39, 5e-324]


@pytest.mark.parametrize("engine", ["", *ENGINES])
def test_scales(engine, forced):
    """The same text under every engine."""
    forced(engine)
    for name in NAMES:
        for i, a in enumerate(arguments(name)):
            if "scale" not in a.name or a.name == "scale_factors":
                continue
            texts = []
            for call in ALL[name][:4]:
                for value in BAD_SCALES:
                    if isinstance(call[i], torch.Tensor):
                        if not call[i].numel():
                            continue
                        bad = torch.full(call[i].shape, value, dtype=torch.float64).to(call[i].dtype)
                    else:
                        bad = value
                    error = call_error(name, replaced(call, i, bad))
                    if a.name == "other_scale" and call[i - 1] is None:
                        # No operand: not looked at. A forced engine may refuse the call.
                        assert error is None or isinstance(error, NotImplementedError)
                        continue
                    assert_contract(error, ValueError, name, a.name)
                    texts.append(str(error))
            assert texts


def test_one_bad_channel_is_named():
    x, w, s, *rest = ALL["linear_dynamic"][0]
    s = s.clone()
    s[3] = 0
    error = call_error("linear_dynamic", (x, w, s, *rest))
    assert str(error) == (
        "torch_ao::linear_dynamic: argument 'weight_scale' must hold finite, normal float32 "
        "numbers above 0, got 0 at position 3"
    )


INTEGERS = [-(2**63), -(2**31) - 1, -1000, -129, 256, 1000, 2**31, 2**62, 2**63 - 1]


@pytest.mark.parametrize("name", NAMES)
def test_integers(name):
    for i in positions(name, "int"):
        a = arguments(name)[i]
        if a.name == "memory_format":  # a number for torch's parser; see test_quantize.py
            continue
        for call in ALL[name]:
            for value in INTEGERS:
                if a.name == "weight_size":  # a list; what it must fit decides the text
                    for sizes in ([value, call[i][1]], [call[i][0], value]):
                        error = call_error(name, replaced(call, i, sizes))
                        if error is None and name.startswith("_prepack"):  # no input must fit
                            continue
                        assert_contract(error, ValueError, name)
                    continue
                if value in (256, 1000) and ("List[int]" in str(a.type) or a.name in ("bins", "levels")):
                    continue  # a valid stride, padding or count
                if a.name == "divisor_override" and abs(value) < 2**31:
                    continue
                if isinstance(call[i], list) and not a.N:  # one number is no list of any length
                    value = [value] * len(call[i])
                error = call_error(name, replaced(call, i, value))
                if a.name == "other_zero_point" and error is None:
                    assert call[i - 2] is None
                    continue
                if name == "lookup" and call[1].dim() == 1:  # one table for all: no axis
                    assert error is None
                    continue
                kinds = IndexError if a.name in ("axis", "dim") else ValueError
                assert_contract(error, kinds, name)
                one = value[0] if isinstance(value, list) else value
                assert str(error).endswith((f"got {value}", f"got {one}")) or "quant" in str(error)
    for i in positions(name, "Tensor"):
        if "zero_point" in arguments(name)[i].name:
            for call in ALL[name]:
                if call[i] is None or not call[i].numel():
                    continue
                for value in (-129, 256, 10**6):
                    error = call_error(name, replaced(call, i, torch.full_like(call[i], value)))
                    assert_contract(error, ValueError, name, arguments(name)[i].name)


@pytest.mark.parametrize("name", NAMES)
def test_dtype_arguments(name):
    for i, a in enumerate(arguments(name)):
        if "dtype" not in a.name:
            continue
        for call in ALL[name]:
            for dtype in (torch.float64, torch.int32, torch.bool, torch.complex64, torch.qint8):
                error = call_error(name, replaced(call, i, dtype))
                assert_contract(error, TypeError, name, a.name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_bias_must_be_finite(value):
    for name in NAMES:
        for i, a in enumerate(arguments(name)):
            if a.name != "bias" or "norm" in name:  # a norm's bias gives what floats give
                continue
            for call in ALL[name]:
                if call[i] is None:
                    continue
                bad = call[i].clone()
                bad[2] = value
                error = call_error(name, replaced(call, i, bad))
                assert_contract(error, ValueError, name, "bias")
                assert "at position 2" in str(error)


POST_OPS = [
    ("foo", [], "post_ops", "'foo'"),
    ("relu,", [], "post_ops", "''"),
    (",", [], "post_ops", "''"),
    ("relu, tanh", [], "post_ops", "' tanh'"),
    ("ReLU", [], "post_ops", "'ReLU'"),
    ("relu\0", [], "post_ops", "'relu"),
    (",".join(["relu"] * 9), [], "post_ops", "9"),
    ("clamp", [], "post_op_args", "0"),
    ("clamp", [1.0], "post_op_args", "1"),
    ("relu", [1.0], "post_op_args", "1"),
    ("clamp", [1.0, -1.0], "post_op_args", "1 and -1"),
    ("clamp", [float("nan"), 1.0], "post_op_args", "nan"),
    ("leaky_relu", [float("inf")], "post_op_args", "inf"),
    ("add", [], "other", "None"),
    ("add,add", [], "post_ops", "'add,add'"),
    ("relu,prelu", [], "slope", "None"),
    ("relu,affine", [], "affine_weight", "None"),
]


@pytest.mark.parametrize("name", ["linear", "linear.tensor", "linear_dynamic"])
@pytest.mark.parametrize(("post_ops", "args", "argument", "got"), POST_OPS)
def test_post_ops(name, post_ops, args, argument, got):
    call = list(ALL[name][0])
    at = [a.name for a in arguments(name)].index("post_ops")
    call[at : at + 2] = [post_ops, args]
    if post_ops == "add,add":
        call[at + 2] = torch.zeros(3, 5)
    for rows in (3, 0):  # an empty batch is checked like any other
        call[0] = ALL[name][0][0][:rows]
        if post_ops == "add,add":
            call[at + 2] = torch.zeros(rows, 5)
        error = call_error(name, tuple(call))
        assert_contract(error, ValueError, name, argument)
        assert got in str(error)


def test_other_without_add():
    names = [a.name for a in torch.ops.torch_ao.linear_dynamic.default._schema.arguments]
    call = list(ALL["linear_dynamic"][0])
    call[names.index("other")] = torch.zeros(3, 5)
    assert_contract(call_error("linear_dynamic", call), ValueError, "linear_dynamic", "other")


def test_float_tensors_have_no_qparams():
    call = list(ALL["linear"][1])
    assert_contract(call_error("linear", replaced(call, 7, 0.5)), ValueError, "linear", "output_scale")
    assert_contract(call_error("linear", replaced(call, 8, 1)), ValueError, "linear", "output_zero_point")
    call[10:] = ["add", [], torch.zeros(2, 3, 5), 0.5, 0]
    assert_contract(call_error("linear", call), ValueError, "linear", "other_scale")
    call[10:] = ["add", [], torch.zeros(2, 3, 5), 1.0, 1]
    assert_contract(call_error("linear", call), ValueError, "linear", "other_zero_point")


@pytest.mark.parametrize(("name", "i"), TENSOR_CASES)
def test_shrunken_storage(name, i):
    """storage.resize_() leaves the sizes as they were: a read would go past the end."""
    for call in ALL[name]:
        t = call[i]
        if t is None or t.numel() == 0:
            continue
        for layout in (lambda t: t.clone(), lambda t: torch.stack([t, t], -1)[..., 1]):
            bad = layout(t)
            bad.untyped_storage().resize_(bad.element_size() if t.numel() > 1 else 0)
            error = call_error(name, replaced(call, i, bad))
            assert_contract(error, ValueError, name, arguments(name)[i].name)
            assert "storage" in str(error)


def test_shape_product_overflow():
    """Refused before anything is allocated."""
    x = torch.zeros(1, dtype=torch.uint8).expand(2**62, 1)
    w, s = torch.ones(8, 1, dtype=torch.int8), torch.ones(1)
    with pytest.raises(ValueError, match="torch_ao::linear: argument 'input' must give an output of fewer"):
        ops.linear(x, 0.1, 0, w, s, None, None, 1.0, 0, torch.float32)
    with pytest.raises(ValueError, match="torch_ao::linear_dynamic: argument 'input' must give an output"):
        ops.linear_dynamic(torch.zeros(1).expand(2**62, 1), w, s)


@pytest.mark.parametrize("name", NAMES)
def test_no_memory(name):
    """A repetition of one value that no memory holds: an error that says so, or another first."""
    for i in positions(name, "Tensor"):
        for call in ALL[name]:
            if call[i] is None or not call[i].numel() or not call[i].dim():
                continue
            big = call[i].reshape(-1)[:1].expand(2**42, *call[i].shape[1:])
            error = call_error(name, replaced(call, i, big))
            if error is None and name.startswith("_prepack"):  # looked at, not copied
                continue
            kinds = (ValueError, TypeError, torch.OutOfMemoryError)
            assert_contract(error, kinds, name)
            if isinstance(error, torch.OutOfMemoryError):
                assert "need no more memory than there is, got sizes [" in str(error)
                assert "4398046511104" in str(error)  # of the tensor, or of what it broadcasts to


@pytest.mark.parametrize(("name", "i"), TENSOR_CASES)
def test_one_meta_tensor(name, i):
    """Nothing is computed on meta, so a result in memory would be uninitialized."""
    for call in ALL[name]:
        if call[i] is None:
            continue
        mixed = replaced(call, i, call[i].to("meta"))
        if name.startswith("_prepack") or all(t.is_meta for t in mixed if isinstance(t, torch.Tensor)):
            assert call_error(name, mixed) is None
            continue
        error = call_error(name, mixed)
        assert_contract(error, TypeError, name)
        assert "must be on the meta device, as another argument is, got a tensor on device cpu" in str(error)


def test_dtype_numbers():
    """c10's number of a dtype is taken; one that names no dtype is refused by the contract."""
    x = torch.randn(2, 3)
    assert ops.quantize_per_tensor.default(x, 0.1, 0, 0, 100, 1).dtype == torch.int8
    error = call_error("quantize_per_tensor", (x, 0.1, 0, 0, 100, 199))
    assert_contract(error, TypeError, "quantize_per_tensor", "dtype")
    assert str(error).endswith("got dtype number 199") or str(error).endswith("got dtype number -57")


def test_forced_engine_that_refuses(forced):
    weight = torch.ones(4, 300000, dtype=torch.int8)
    x = torch.zeros(1, 300000, dtype=torch.uint8)
    args = (x, 0.1, 0, weight, torch.ones(1), None, None, 1.0, 0, torch.float32)
    forced("native")
    with pytest.raises(NotImplementedError, match=r"^torch_ao::linear: no engine accepts.*:\n  native: .+"):
        ops.linear(*args)
    forced("")
    assert ops.linear(*args).abs().max() == 0
    states = ops._explain(weight)
    assert '"engine": "reference"' in states and '"native"' in states


@pytest.mark.parametrize("scales", [0, 1])
@pytest.mark.parametrize("zero_points", [0, 1])
def test_weight_without_rows(scales, zero_points):
    """One zero point for all of no channels finds no scale beside it."""
    weight = torch.empty(0, 4, dtype=torch.int8)
    weight_side = (weight, torch.ones(scales), torch.full((zero_points,), 3))
    assert ops.linear_dynamic(torch.ones(2, 4), *weight_side).shape == (2, 0)
    x = torch.ones(2, 4, dtype=torch.uint8)
    assert ops.linear(x, 0.1, 0, *weight_side, None, 0.1, 0).shape == (2, 0)


def test_set_engine_names_the_valid_ones():
    with pytest.raises(ValueError, match="native, onednn, xnnpack, reference or '', got 'blas'"):
        ops._set_engine("blas")


def test_inputs_are_not_written():
    for name in NAMES:
        for call in ALL[name]:
            before = [(t.clone(), t._version) if isinstance(t, torch.Tensor) else None for t in call]
            overload(name)(*call)
            for t, b in zip(call, before, strict=True):
                if b is not None:
                    assert torch.equal(t, b[0]) and t._version == b[1]
