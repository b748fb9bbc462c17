"""int8 attention against torch's fused one in fp32, and its two products against torch.ao's.

    python benchmarks/ops/attention.py [--only 'BERT'] [--max-isa avx512_vnni]

Rows of attention: q, k, v are float32 and are quantized inside the timed call (uint8 per tensor);
the result is uint8. torch_ao_ext is the op attention, "three ops" are matmul, softmax and matmul,
whose weights have one scale. fp32 is F.scaled_dot_product_attention; "float" is our operator of this
name on the same float32 values. "torchao" is its int8 attention on the same uint8 values.
Rows of products start from integers on both sides. SQNR is against attention in float64, with
normal inputs. Exit status 1 when a floor is missed.
"""

import functools
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.peers import torchao_op_peers  # noqa: E402

FP32, AO, OURS, FLOAT = "fp32", "torch.ao", "torch_ao_ext", "torch_ao_ext float"
THREE, TORCHAO = "three ops", "torchao"
TARGET, FLOOR, LEAST_DB = 1.5, 1.0, 30.0
U8 = torch.uint8


@dataclass(frozen=True)
class Shape:
    """One layer's attention."""

    model: str
    batch: int
    heads: int
    length: int
    width: int

    def __str__(self):
        return f"{self.model} {self.batch}x{self.heads}x{self.length}x{self.width}"


SHAPES = (
    Shape("BERT-base", 1, 12, 128, 64),
    Shape("BERT-base", 8, 12, 128, 64),
    Shape("BERT-base", 1, 12, 384, 64),
    Shape("ViT-B", 1, 12, 197, 64),
    Shape("Whisper-tiny", 1, 6, 1500, 64),
    Shape("MiniLM", 1, 12, 32, 32),
)


def qparams(x):
    """(scale, zero point) of uint8 over the range of x."""
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = (high - low) / 255
    return scale, round(-low / scale)


class Attention:
    """Operands of one row and the ways to compute it."""

    def __init__(self, shape):
        sizes = (shape.batch, shape.length, shape.heads, shape.width)
        self.floats = [torch.randn(sizes) for _ in range(3)]
        self.heads = [x.transpose(1, 2) for x in self.floats]
        self.given = [qparams(x) for x in self.floats]
        self.factor = shape.width**-0.5
        q, k, v = (x.double() for x in self.heads)
        weights = torch.softmax(q @ k.transpose(-1, -2) * self.factor, -1)
        self.exact = weights @ v
        self.weight_scale = weights.max().item() / 255
        self.output = qparams(self.exact)
        self.scores = qparams(q @ k.transpose(-1, -2))
        self.ops = peers.ours().ops

    def quantized(self):
        quantize = torch.ops.torch_ao.quantize_per_tensor
        pairs = zip(self.floats, self.given, strict=True)
        return [quantize(x, *given, 0, 255, U8).transpose(1, 2) for x, given in pairs]

    def ours(self):
        q, k, v = self.quantized()
        a, b, c = self.given
        return self.ops.attention(q, *a, k, *b, v, *c, *self.output)

    def three_ops(self):
        q, k, v = self.quantized()
        scale, point = self.given[0]
        scores = self.ops.matmul(
            q, scale * self.factor, point, k.transpose(-1, -2), *self.given[1], output_dtype=torch.float32
        )
        weights = self.ops.softmax(scores, -1, output_scale=self.weight_scale, output_dtype=U8)
        return self.ops.matmul(weights, self.weight_scale, 0, v, *self.given[2], *self.output)

    def torchao(self):
        """torchao's operator, its kernel looked up once."""
        return torchao_op_peers.attention_call(
            self.quantized, self.factor, self.given, self.weight_scale, self.output
        )

    def float(self):
        return F.scaled_dot_product_attention(*self.heads)

    def own_float(self):
        return self.ops.scaled_dot_product_attention(*self.heads)

    def real(self, y):
        return (y.double() - self.output[1]) * self.output[0]


def run_attention(shape, args, result, missing):
    torch.manual_seed(0)
    attention = Attention(shape)
    sqnr = {
        OURS: sqnr_db(attention.exact, attention.real(attention.ours())),
        THREE: sqnr_db(attention.exact, attention.real(attention.three_ops())),
        FLOAT: sqnr_db(attention.exact, attention.own_float()),
    }
    calls = {
        FP32: attention.float,
        OURS: attention.ours,
        THREE: attention.three_ops,
        FLOAT: attention.own_float,
    }
    with missing.noting(TORCHAO):
        call = attention.torchao()
        sqnr[TORCHAO] = sqnr_db(attention.exact, attention.real(call()))
        calls[TORCHAO] = call
    timings, foreign = cli.measure(calls, args)
    goals = [
        Goal(f"vs {FP32}", rounds.speedup(timings, OURS, FP32), TARGET, FLOOR),
        Goal(f"float vs {FP32}", rounds.speedup(timings, FLOAT, FP32), TARGET, FLOOR),
    ]
    if TORCHAO in timings:
        goals.append(Goal(f"vs {TORCHAO}", rounds.speedup(timings, OURS, TORCHAO)))
    # Normal inputs of long rows average to nothing: the bound is for BERT's length.
    low = shape.length <= 128 and sqnr[OURS] < LEAST_DB
    failures = (f"SQNR {sqnr[OURS]:.1f} dB",) if low else ()
    report.print_row(result.add(f"attention {shape}", timings, goals, failures, foreign, sqnr_db=sqnr))


def products(attention):
    """name -> (integers of both operands with qparams, qparams of the result)."""
    q, k, v = attention.quantized()
    a, b, c = attention.given
    weights = attention.ops.softmax(
        torch.randn(*q.shape[:-1], q.shape[-2]), -1, output_scale=attention.weight_scale, output_dtype=U8
    )
    return {
        "q k^T": ((q, *a), (k.transpose(-1, -2), *b), attention.scores),
        "weights v": ((weights, attention.weight_scale, 0), (v, *c), attention.output),
    }


def as_quantized_tensor(integers, scale, point):
    """torch.ao's form of the same values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch._make_per_tensor_quantized_tensor(integers.contiguous(), scale, point)


def run_products(shape, args, result, missing):
    torch.manual_seed(0)
    attention = Attention(shape)
    for name, (a, b, output) in products(attention).items():
        calls = {OURS: functools.partial(attention.ops.matmul, *a, *b, *output)}
        with missing.noting(f"{AO}, {name}"):
            theirs = [as_quantized_tensor(*a), as_quantized_tensor(*b)]
            call = functools.partial(torch.ops.quantized.matmul, *theirs, *output)
            off = (call().int_repr().int() - calls[OURS]().int()).abs().max().item()
            if off > 1:
                raise ValueError(f"results are {off} steps apart")
            calls[AO] = call
        timings, foreign = cli.measure(calls, args)
        goals = []
        if AO in timings:
            goals.append(Goal(f"vs {AO}", rounds.speedup(timings, OURS, AO), TARGET, FLOOR))
        report.print_row(result.add(f"matmul {name} {shape}", timings, goals, (), foreign))


def add_rows(args, result, missing):
    with torch.no_grad():
        for shape in SHAPES:
            if args.only in str(shape):
                run_attention(shape, args, result, missing)
                run_products(shape, args, result, missing)


def main():
    p = cli.parser(__doc__, budget_s=2.0)
    p.add_argument("--only", default="", help="rows whose name contains this text")
    return frame.run("attention", p.parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
