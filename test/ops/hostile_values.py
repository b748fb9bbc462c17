"""Mutations of one argument, by the type that the schema gives it."""

import warnings

import torch
from op_samples import ISLAND, samples
from op_shapes import is_tensor, readable, resized

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool,
    torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64, torch.float8_e4m3fn,
]  # fmt: skip
QUANTIZED = [torch.qint8, torch.quint8, torch.qint32]
INTEGERS = [
    -(2**63), -(2**63) + 1, -(2**31) - 1, -(2**31), -1000, -129, -128, -2, -1, 0, 1, 2, 3, 5, 7, 127, 128,
    255, 256, 1000, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1,
]  # fmt: skip
FLOATS = [
    float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 5e-324, 1e-45, 1e-39, 1.17e-38, 1e-20, 1e-3, 0.5,
    1.0, 3.0, 1e20, 1e38, 3.4e38, 1e39, 1.8e308, -1.0, -1e38,
]  # fmt: skip
JUNK = [None, "x", 1, 1.5, True, [], [1], [None], 2**70, b"relu", object, torch.float32, 1j]
# torch itself raises while it makes some of the tensors: then there is no mutation.
CANNOT = (RuntimeError, NotImplementedError, TypeError, ValueError)


def words():
    """Every word of every string in the samples, and others that look like one."""
    known = {w for calls in samples().values() for c in calls for a in c if isinstance(a, str)
             for w in a.split(",")}  # fmt: skip
    return sorted(known | {"gelu_tanh", "silu", "sigmoid", "hardswish", "native", "reference", "onednn"})


WORDS = words()


def texts(rng):
    pick = [rng.choice(WORDS) for _ in range(rng.choice((1, 2, 3, 9, 40)))]
    return rng.choice(
        [
            lambda: ",".join(pick),
            lambda: rng.choice(WORDS).upper(),
            lambda: rng.choice(WORDS) + rng.choice([",", " ", "\0", ",,", "\n", "é", "%s%n"]),
            lambda: "," * rng.choice((1, 2, 8, 100)),
            lambda: "a" * rng.choice((1, 100, 100000)),
            lambda: "".join(chr(rng.randrange(1, 0x2FF)) for _ in range(rng.randrange(30))),
            lambda: "",
        ]
    )()


def damaged(rng, program):
    """A program of several lines with a few words, lines or letters changed."""
    words = {*program.split(), *ISLAND.split(), "n", "i-1", "f0.5", "T%0,%1", "%0", "@9", "sx", "I0,1"}
    words = sorted(words)
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = program.split("\n")
        at = rng.randrange(len(lines))
        parts = lines[at].split(" ")
        kind = rng.randrange(5)
        if kind == 0:
            lines[at:at] = [rng.choice(lines)]
        elif kind == 1:
            del lines[at]
        elif kind == 2:
            letters = list(lines[at] or " ")
            letters[rng.randrange(len(letters))] = rng.choice("%@nifbsdIFT0123456789,. -:#")
            lines[at] = "".join(letters)
        else:
            parts[rng.randrange(len(parts))] = rng.choice(words)
            lines[at] = " ".join(parts)
        program = "\n".join(lines) or " "
    return program


def lists(rng, old, values):
    old = list(old) if isinstance(old, (list, tuple)) else []
    length = rng.choice((0, 1, 2, 3, 5, 1000))
    return rng.choice(
        [
            lambda: [rng.choice(values) for _ in range(length)],
            lambda: old[:-1],
            lambda: old + old,
            lambda: [*old, rng.choice(values)],
            lambda: [rng.choice(values) if rng.random() < 0.5 else v for v in old],
            lambda: [None] * length,
        ]
    )()


# --- tensors: each takes (rng, t) and gives another tensor -------------------


def cast(t, dtype):
    t = t.detach()
    if dtype in QUANTIZED:
        return torch.quantize_per_tensor(t.float(), 0.1, 0, dtype)
    return t.to(dtype)


def dtype(rng, t):
    return cast(t, rng.choice(DTYPES * 2 + QUANTIZED))


def rank(rng, t):
    at = rng.randrange(t.dim() + 1)
    return rng.choice(
        [
            lambda: t.unsqueeze(at),
            lambda: t.reshape(-1),
            lambda: t.reshape(-1)[:1].reshape(()),
            lambda: t.squeeze(),
            lambda: t.reshape([1] * rng.randrange(1, 9) + list(t.shape)),
            lambda: torch.stack([t, t], at),
        ]
    )()


def size(rng, t):
    if t.dim() == 0:
        return t.reshape(1).expand(rng.choice((0, 2, 5)))
    d = rng.randrange(t.dim())
    return rng.choice(
        [
            lambda: t.narrow(d, 0, 0),
            lambda: t.narrow(d, 0, t.shape[d] - 1),
            lambda: t.narrow(d, 0, 1),
            lambda: torch.cat([t, t], d),
            lambda: torch.cat([t, t.narrow(d, 0, 1)], d),
            lambda: t.new_ones([rng.choice((0, 1, 2, 3, 5, 12)) for _ in range(rng.randrange(5))]),
            lambda: t.new_ones([rng.choice((1, 5, 12, 200)) for _ in range(2)]),
        ]
    )()


def layout(rng, t):
    """The same values at other addresses: every op must give the same result."""
    n, d = t.numel(), rng.randrange(max(t.dim(), 1))

    def offset():
        big = t.new_zeros(n + 13)
        out = big[7 : 7 + n].view(t.shape)
        return out.copy_(t)

    def misaligned():
        raw = bytearray(n * t.element_size() + 8)
        out = torch.frombuffer(raw, dtype=t.dtype, count=n, offset=1).view(t.shape)
        return out.copy_(t)

    def permuted():
        order = list(range(t.dim()))
        rng.shuffle(order)
        inverse = [order.index(i) for i in range(t.dim())]
        return t.permute(order).contiguous().permute(inverse)

    def row_gap():
        wide = t.new_zeros([*t.shape[:-1], t.shape[-1] + 3])
        return wide[..., 1:-2].copy_(t)

    return rng.choice(
        [
            offset, misaligned, permuted, row_gap,
            lambda: torch.stack([t, t], -1)[..., 1],
            lambda: t.flip(d).contiguous().flip(d),
            lambda: t.clone(),
            lambda: torch.nn.Parameter(t.clone(), requires_grad=False),
            lambda: t.t().contiguous().t(),
            lambda: t.to(memory_format=torch.channels_last),
            lambda: torch.complex(torch.zeros_like(t), -t).conj().imag,
        ]
    )()  # fmt: skip


def overlap(rng, t):
    n = t.numel()
    return rng.choice(
        [
            lambda: t.reshape(-1)[:1].expand(t.shape),
            lambda: t.narrow(0, 0, 1).expand(t.shape),
            lambda: t.clone().as_strided(t.shape, [1] * t.dim()),
            lambda: t.clone().as_strided(t.shape, [0] * t.dim(), n - 1),
            lambda: t.reshape(-1).repeat(2).as_strided(t.shape, [2 if s > 1 else 0 for s in t.shape]),
        ]
    )()


def huge(rng, t):
    """More elements than memory, by repetition of one."""
    big = rng.choice((2**40, 2**45, 2**61, 2**62))
    shape = [big if i == rng.randrange(t.dim()) else s for i, s in enumerate(t.shape)] if t.dim() else [big]
    # torch would copy all of a lazily negated tensor before the library sees it.
    return t.resolve_conj().resolve_neg().reshape(-1)[:1].expand(shape)


def shrunken(rng, t):
    out = t.clone()
    out.untyped_storage().resize_(rng.choice((0, t.element_size())))
    return out


def elsewhere(rng, t):
    return rng.choice(
        [
            lambda: t.to("meta"),
            lambda: torch.empty(t.shape, dtype=t.dtype, device="meta"),
            lambda: t.to_sparse(),
            lambda: t.to_sparse_csr(),
            lambda: t.to_mkldnn(),
            lambda: torch.nested.nested_tensor([t, t]),
            lambda: torch.nested.nested_tensor([t, t], layout=torch.jagged),
        ]
    )()


def grad(rng, t):
    return t.clone().requires_grad_()


def values(rng, t):
    out = t.clone()
    special = FLOATS if t.is_floating_point() else [v for v in INTEGERS if in_range(v, t.dtype)]
    flat = out.view(-1)
    if rng.random() < 0.4 or not flat.numel():
        return out.fill_(rng.choice(special))
    for _ in range(rng.choice((1, 1, 3, 20))):
        flat[rng.randrange(flat.numel())] = rng.choice(special)
    return out


def in_range(value, dtype):
    return dtype == torch.bool or torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max


# Weighted: what reaches deep code comes more often than what the first check stops.
TENSOR = [
    dtype, dtype, rank, rank, size, size, size, layout, layout, layout, layout, overlap, huge, shrunken,
    elsewhere, grad, values, values, values,
]  # fmt: skip


def tensor(rng, old, others):
    if not is_tensor(old) or rng.random() < 0.04:
        return rng.choice([None, *others, *others, torch.zeros(3), torch.ones(5, dtype=torch.int8), 1, "x"])
    if rng.random() < 0.05:
        return None
    if not readable(old):  # a mutation before this one: torch itself may fault on it
        return old
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rng.choice(TENSOR)(rng, old)


def mutated(rng, call, arguments):
    """The call with one argument replaced, or all sizes; `arguments` are the schema's."""
    if rng.random() < 0.08:
        return resized(call, rng, choices=(1, 2, 3, 7, 16, 17, 33, 130))
    if rng.random() < 0.01:
        return rng.choice([call[:-1], (*call, 1), call[::-1], call + call])
    i = rng.randrange(len(call)) if call else 0
    if i >= len(arguments):
        return call
    old, name = call[i], arguments[i].name
    kind = str(arguments[i].type).removeprefix("Optional[").removesuffix("]")
    others = [t for t in call if is_tensor(t)]
    if rng.random() < 0.02:
        new = rng.choice(JUNK)
    elif kind == "Tensor":
        new = tensor(rng, old, others)
    elif "Tensor" in kind:  # a list of them
        new = list(old or [])
        if new and rng.random() < 0.7:
            at = rng.randrange(len(new))
            new[at] = tensor(rng, new[at], others)
        else:
            new = rng.choice([new[:-1], new + new, [], others])
        if any(is_tensor(t) and not readable(t) for t in new):
            new = [t for t in new if is_tensor(t)]  # torch's parser prints a list that it refuses
    elif "dtype" in name:
        new = rng.choice([*DTYPES, *QUANTIZED, None, 0, 1, 5, 44, 999, -1, 2**31])
    elif kind == "str":
        program = isinstance(old, str) and "\n" in old and rng.random() < 0.8
        new = damaged(rng, old) if program else texts(rng)
    elif "List" in kind:
        new = lists(rng, old, FLOATS if "float" in kind else INTEGERS)
    elif kind == "bool":
        new = rng.choice([True, False, not old])
    elif kind == "int":
        new = rng.choice(INTEGERS)
    elif kind == "float":
        new = rng.choice(FLOATS)
    else:
        new = rng.choice(JUNK + INTEGERS + FLOATS)
    return (*call[:i], new, *call[i + 1 :])


def hostile(rng, calls, arguments):
    """One of the calls after up to three mutations."""
    call = rng.choice(calls)
    for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 1, 2, 2, 3))):
        try:
            call = mutated(rng, call, arguments)
        except CANNOT:
            continue
        except IndexError:  # narrow() of nothing
            continue
    return call
