"""What `make demo` shows: a real trained sentence encoder in fp32, under torch.ao and under torch_ao_ext.

    python benchmarks/demo.py [--max-isa avx512_vnni]

MiniLM-L6 with its trained weights on real text: latency, size, accuracy, what
ran where. About a minute. Exit status 1 when int8 is slower than fp32 or the
SQNR is below 24 dB.
"""

import functools
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from benchmarks.harness import cli, environment, peers, report, rounds  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.models import minilm_model, variants  # noqa: E402
from benchmarks.models.variants import AO, FP32, OURS  # noqa: E402

SQNR_FLOOR_DB = 24.0
SECONDS_PER_SIZE = 12.0
PAIR_GAP = 0.05  # how far an int8 cosine similarity may be from the fp32 one


def build(missing):
    model = minilm_model.load()
    models = {FP32: model}
    for name, engine in zip(AO, peers.TORCH_AO_ENGINES, strict=True):
        with missing.noting(name):
            models[name] = peers.torch_ao_dynamic(model, engine)
    models[OURS] = variants.our_model(model)  # without it there is no demo: let it raise
    return models


def megabytes(name, model):
    """Size of the saved state: what a file of this model holds."""
    if name in AO:  # torch.ao keeps packed objects, not tensors
        import io

        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        return file.tell() / 1e6
    return sum(variants.model_bytes(model)) / 1e6


def latency(models, args, result):
    """One row per size; every candidate answers the same real text."""
    for size in minilm_model.SIZES:
        ids, mask = minilm_model.inputs(*size)
        reference = minilm_model.hidden(models[FP32], ids, mask)
        sqnr = {
            n: sqnr_db(reference, minilm_model.hidden(m, ids, mask)) for n, m in models.items() if n != FP32
        }
        calls = {n: functools.partial(minilm_model.hidden, m, ids, mask) for n, m in models.items()}
        timings, foreign = cli.measure(calls, args, attempts=1)
        goals = [
            Goal("faster than fp32", rounds.speedup(timings, OURS, FP32), None, 1.0),
            Goal("SQNR", sqnr[OURS], None, SQNR_FLOOR_DB, "dB"),
        ]
        best = rounds.best_of(timings, AO)
        if best:
            goals.append(Goal(f"faster than {best}", rounds.speedup(timings, OURS, best)))
        result.add(f"{size[0]} x {size[1]} tokens", timings, goals, (), foreign, sqnr_db=sqnr)


def similarities(models, result):
    """Cosine similarity of sentence pairs: int8 must rank them as fp32 does."""
    pairs = minilm_model.pairs()
    table = []
    for related, *sentences in pairs:
        ids, mask = minilm_model.tokenize(sentences, 32)
        row = {}
        for name in (FP32, OURS):
            a, b = minilm_model.embed(minilm_model.hidden(models[name], ids, mask), mask)
            row[name] = float(a @ b)
        table.append((related, sentences, row))
    failures = []
    for name in (FP32, OURS):
        lowest = min(row[name] for related, _, row in table if related)
        highest = max(row[name] for related, _, row in table if not related)
        if lowest <= highest:
            failures.append(
                f"{name}: a related pair ({lowest:.2f}) is below an unrelated one ({highest:.2f})"
            )
    gap = max(abs(row[FP32] - row[OURS]) for _, _, row in table)
    if gap > PAIR_GAP:
        failures.append(f"cosine similarity differs by {gap:.3f} from fp32, at most {PAIR_GAP}")
    result.add("sentence pairs", {}, (), failures, pairs=[(r, s, v) for r, s, v in table], gap=gap)
    return table


def show(models, table, result, caught):
    ext = peers.ours()
    names = list(models)
    sizes = {n: megabytes(n, m) for n, m in models.items()}
    width = 26
    print(f"\n{'':<{width}}" + "".join(f"{n:>18}" for n in names))
    for row in result.rows:
        cells = [row["timings"].get(n) for n in names]
        if any(cells):
            print(
                f"{'latency ' + row['id']:<{width}}"
                + "".join(f"{c['median_us'] / 1000:>15.2f} ms" for c in cells)
                + ("   (machine busy)" if row["noisy"] else "")
            )
            best = [g for g in row["goals"] if g["name"].startswith("faster")]
            print(f"{'':<{width}}" + ", ".join(f"{g['got']:.2f}x {g['name']}" for g in best))
    for row in result.rows:
        if row.get("sqnr_db"):
            print(
                f"{'SQNR ' + row['id']:<{width}}"
                + f"{'':>18}"
                + "".join(f"{row['sqnr_db'][n]:>15.1f} dB" for n in names[1:])
            )
    print(f"{'size of the state':<{width}}" + "".join(f"{sizes[n]:>15.1f} MB" for n in names))
    linears = {n: m for n, m in models.items() if n in (FP32, OURS)}
    print(
        f"{'  without embeddings':<{width}}"
        + "".join(
            f"{encoder_megabytes(linears[n]):>15.1f} MB" if n in linears else f"{'':>18}" for n in names
        )
    )

    print("\nsentence pairs, cosine similarity (fp32 | int8)")
    for related, sentences, row in table:
        print(
            f"  {row[FP32]:5.2f} | {row[OURS]:5.2f}  {'related  ' if related else 'unrelated'}  "
            f"{sentences[0]}  /  {sentences[1]}"
        )

    summary = ext.report(models[OURS])
    engines = sorted({r.engine for r in summary.rows if r.status == "int8"})
    print("\nwhat runs in int8 (torch_ao_ext.report)")
    print("  " + str(summary).splitlines()[-1])
    share = 100 * variants.int8_share(models[OURS], caught)
    print(f"  on real calls: {share:.1f} % of the linear layers' multiplies; engines: {', '.join(engines)}")
    layer = next(r.fqn for r in summary.rows if r.status == "int8")
    print("  one layer (torch_ao_ext.explain):")
    for line in str(ext.explain(models[OURS].get_submodule(layer))).splitlines():
        print("    " + line.replace("(root)", layer))


def encoder_megabytes(model):
    return sum(variants.model_bytes(model.encoder)) / 1e6


def main():
    p = cli.parser(__doc__, budget_s=SECONDS_PER_SIZE)
    args = p.parse_args()
    if args.max_isa:
        return environment.rerun_capped(args.max_isa)
    environment.set_threads(args.threads)
    result = report.Report("demo")
    print("all-MiniLM-L6-v2, trained weights, real English text; eager PyTorch, median of interleaved rounds")
    print(environment.describe(result.environment))
    missing = peers.Missing()
    with torch.no_grad():
        models = build(missing)
        latency(models, args, result)
        table = similarities(models, result)
        caught = variants.linear_inputs(models[FP32], *minilm_model.inputs(1, 32))
        show(models, table, result, caught)
    result.missing = missing.as_dict()
    for name, reason in result.missing.items():
        print(f"missing: {name}: {reason}")
    return report.conclude(result, args.output, args.label)


if __name__ == "__main__":
    sys.exit(main())
