"""`linear_dynamic` and static `linear` against fp32 and torch.ao (x86, onednn).

    python benchmarks/ops/linear.py [--max-isa avx512_vnni] [--quick]

Every row: all candidates interleaved in this process, answers checked in the
same run. Exit status 1 when a floor is missed or an answer is wrong.
"""

import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from benchmarks.harness import cli, cold, frame, peers, report, roof, rounds, shapes  # noqa: E402
from benchmarks.harness.accuracy import linear_from_integers, sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

OURS = "torch_ao_ext"
AO = tuple(f"torch.ao {engine}" for engine in peers.TORCH_AO_ENGINES)
# Against the better of torch.ao's engines: (M, K, N) -> (target, floor).
ROW_GOALS = {(1, 768, 768): (1.8, 1.3), (1, 768, 3072): (1.5, 1.2), (1, 4096, 4096): (1.1, 1.0)}
BATCH_GOALS = {16: (1.2, 1.05), 128: (1.15, 1.05), 512: (1.15, 1.05)}
OVERHEAD_SHAPE, OVERHEAD_LIMIT = (1, 64, 32), 1.2  # times fp32 F.linear
ROOF_SHAPE, ROOF_TARGET = (512, 4096, 4096), 90.0  # % of the VNNI register loop
SQNR_SLACK_DB = 0.5  # a faster answer that is worse than the peer's does not count


def ratio_goal(shape):
    """(target, floor) against torch.ao, or None when the shape has no goal."""
    key = (shape.m, shape.k, shape.n)
    if key in ROW_GOALS:
        return ROW_GOALS[key]
    if key == ROOF_SHAPE:
        return None, 1.0
    if shape.m in BATCH_GOALS and max(shape.k, shape.n) <= 3072:
        return BATCH_GOALS[shape.m]
    # The rest: not slower than the peer, except where only the call counts.
    return (None, 1.0) if key != OVERHEAD_SHAPE else None


def calls(shape, mode, missing):
    """name -> (call, answer in f32) for one shape; ours absent when it does not load."""
    generator = torch.Generator().manual_seed(shape.m * 7919 + shape.k * 31 + shape.n)
    linear = nn.Linear(shape.k, shape.n)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(shape.n, shape.k, generator=generator) / shape.k**0.5)
        linear.bias.copy_(torch.randn(shape.n, generator=generator))
    x = torch.randn(shape.m, shape.k, generator=generator)
    table = {"fp32": functools.partial(nn.functional.linear, x, linear.weight, linear.bias)}
    if mode == "dynamic":
        _dynamic_calls(table, linear, x, missing)
    else:
        _static_calls(table, linear, x, missing)
    return table, linear, x


def _dynamic_calls(table, linear, x, missing):
    for engine in peers.TORCH_AO_ENGINES:
        with missing.noting(f"torch.ao {engine}"):
            packed = peers.torch_ao_weight(linear, engine)
            # reduce_range True is what torch.ao's own module passes.
            table[f"torch.ao {engine}"] = functools.partial(
                torch.ops.quantized.linear_dynamic.default, x, packed, True
            )
    with missing.noting(OURS):
        module = our_module(linear)
        b = module._buffers
        op = torch.ops.torch_ao.linear_dynamic.default
        table[OURS] = functools.partial(
            op, x, b["qweight"], b["weight_scale"], b["weight_zero_point"], b["qbias"]
        )
        table[OURS]()


def _static_calls(table, linear, x, missing):
    """u8 in, f32-comparable u8 out; the same qparams on both sides."""
    input_scale, input_zero_point = affine_qparams(x)
    y = table["fp32"]()
    output_scale, output_zero_point = affine_qparams(y)
    weight_scale = linear.weight.detach().abs().amax(1) / 127.5
    x_q = torch.quantize_per_tensor(x, input_scale, input_zero_point, torch.quint8)
    w_q = torch.quantize_per_channel(
        linear.weight.detach(),
        weight_scale.double(),
        torch.zeros(linear.out_features, dtype=torch.long),
        0,
        torch.qint8,
    )
    for engine in peers.TORCH_AO_ENGINES:
        with missing.noting(f"torch.ao {engine}"), peers.quantized_engine(engine):
            packed = torch.ops.quantized.linear_prepack(w_q, linear.bias.detach())
            table[f"torch.ao {engine}"] = functools.partial(
                torch.ops.quantized.linear.default, x_q, packed, output_scale, output_zero_point
            )
    with missing.noting(OURS):
        peers.ours()
        table[OURS] = functools.partial(
            torch.ops.torch_ao.linear.default,
            x_q.int_repr(),
            input_scale,
            input_zero_point,
            w_q.int_repr(),
            weight_scale,
            None,
            linear.bias.detach(),
            output_scale,
            output_zero_point,
        )
        table[OURS]()


def affine_qparams(x):
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = torch.tensor((high - low) / 255, dtype=torch.float32).item()
    return scale, min(255, max(0, round(-low / scale)))


def our_module(linear):
    """Our dynamic Linear made by the public call."""
    model = peers.ours().quantization.quantize_dynamic(nn.Sequential(linear))
    return model[0]


def as_float(answer, table):
    """torch.ao's static answers are quantized tensors, ours plain uint8."""
    if answer.is_quantized:
        return answer.dequantize()
    if answer.dtype == torch.uint8:
        arguments = table[OURS].args
        scale, zero_point = arguments[7], arguments[8]
        return (answer.float() - zero_point) * scale
    return answer


def check(table, mode, linear):
    """SQNR of every candidate against fp32, and what is wrong with ours."""
    reference = table["fp32"]()
    sqnr = {
        name: sqnr_db(reference, as_float(call(), table)) for name, call in table.items() if name != "fp32"
    }
    failures = []
    if OURS in sqnr:
        best = max((db for name, db in sqnr.items() if name != OURS), default=0.0)
        if sqnr[OURS] < best - SQNR_SLACK_DB:
            failures.append(f"SQNR {sqnr[OURS]:.1f} dB, peer {best:.1f} dB")
        if mode == "static":
            failures += check_static(table, linear)
    return sqnr, failures


def check_static(table, linear):
    """Ours against exact integers; XNNPACK may differ by one step, so one step is allowed here."""
    a = table[OURS].args
    real = linear_from_integers(a[0], a[1], a[2], a[3], a[4], a[6])
    expected = (torch.round(real / torch.tensor(a[7], dtype=torch.float32)) + a[8]).clamp(0, 255)
    off = (table[OURS]().float() - expected).abs().max().item()
    return [f"{off:.0f} steps from the exact result"] if off > 1 else []


def row_goals(timings, shape, mode, roof_gops, loop):
    """Goals of one row; `roof_gops` is the register loop timed in the same rounds."""
    if OURS not in timings:
        return []
    goals = []
    best = rounds.best_of(timings, AO)
    limits = ratio_goal(shape) if mode == "dynamic" else (None, None)
    if best and limits:
        goals.append(Goal(f"vs {best}", rounds.speedup(timings, OURS, best), *limits))
    elif best:
        goals.append(Goal(f"vs {best}", rounds.speedup(timings, OURS, best)))
    key = (shape.m, shape.k, shape.n)
    if key == OVERHEAD_SHAPE:
        slower = 1 / rounds.speedup(timings, OURS, "fp32")
        goals.append(Goal("time / fp32 op", slower, None, OVERHEAD_LIMIT, larger_is_better=False))
        if "module" in timings:
            slower = 1 / rounds.speedup(timings, "module", "nn.Linear")
            goals.append(Goal("time / nn.Linear", slower, None, OVERHEAD_LIMIT, larger_is_better=False))
    else:
        goals.append(Goal("vs fp32", rounds.speedup(timings, OURS, "fp32"), None, 1.0))
    if roof_gops and key == ROOF_SHAPE and mode == "dynamic":
        got = 100 * shape.ops / timings[OURS].median / 1e9 / roof_gops
        # The target is about VNNI; memory decides long before AMX's register loop does.
        target = ROOF_TARGET if loop != "amx" else None
        goals.append(Goal("of the register-loop roof", got, target, None, "%"))
    return goals


def run_row(shape, mode, args, missing, result, loop):
    table, linear, x = calls(shape, mode, missing)
    sampler = None
    key = (shape.m, shape.k, shape.n)
    with torch.no_grad():
        sqnr, failures = check(table, mode, linear)
        candidates = dict(table)
        if key == OVERHEAD_SHAPE and mode == "dynamic":
            candidates["nn.Linear"] = functools.partial(linear, x)
            if OURS in table:
                candidates["module"] = functools.partial(our_module(linear), x)
        if key == ROOF_SHAPE and mode == "dynamic" and loop:
            candidates["roof"] = sampler = roof.Sampler(loop, args.threads)
        timings, foreign = cli.measure(candidates, args)
    timings.pop("roof", None)
    roof_gops = sampler.gops if sampler else None
    row = result.add(
        f"{mode} {shape}",
        timings,
        row_goals(timings, shape, mode, roof_gops, loop),
        failures,
        foreign,
        shape=vars(shape),
        sqnr_db=sqnr,
        roof={loop: roof_gops} if sampler else None,
        gops={name: shape.ops / t.median / 1e9 for name, t in timings.items() if name in table},
    )
    report.print_row(row)


def run_cold_row(shape, args, missing, result):
    """A GEMV whose weights come from memory."""
    tables = [calls(shape, "dynamic", missing)[0] for _ in range(cold.copies(shape.k * shape.n))]
    candidates = {name: cold.in_turn([table[name] for table in tables]) for name in tables[0]}
    with torch.no_grad():
        timings, foreign = cli.measure(candidates, args)
    goals = []
    if OURS in timings:
        best = rounds.best_of(timings, AO)
        for peer in (best, "fp32") if best else ("fp32",):
            goals.append(Goal(f"vs {peer}", rounds.speedup(timings, OURS, peer), None, 1.0))
    report.print_row(result.add(f"dynamic {shape} cold", timings, goals, (), foreign, shape=vars(shape)))


def parse(argv=None):
    p = cli.parser(__doc__, budget_s=3.0)
    p.add_argument("--shapes", default="linear", help="file in benchmarks/shapes without .csv")
    p.add_argument("--only", help="rows whose id contains this text, e.g. 'dynamic M=1 '")
    return p.parse_args(argv)


def add_rows(args, result, missing):
    loop = roof.best_loop(result.environment["environment"].get("TORCH_AO_EXT_MAX_ISA"))
    for mode in ("dynamic", "static"):
        for shape in shapes.read_linear(args.shapes):
            if not args.only or args.only in f"{mode} {shape}":
                run_row(shape, mode, args, missing, result, loop)
                if mode == "dynamic" and (shape.m, shape.k, shape.n) in ROW_GOALS:
                    run_cold_row(shape, args, missing, result)


def main():
    return frame.run("linear", parse(), add_rows, needed=OURS)


if __name__ == "__main__":
    sys.exit(main())
