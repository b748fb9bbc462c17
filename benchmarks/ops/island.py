"""What lies between operators: 60 small ones from Python, traced, and as one island.

    python benchmarks/ops/island.py [--threads 1]

The time of one operator of the island bounds its overhead, which must be below 1 us. Exit
status 1 when it is not.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402

OPERATORS = 60
LOWERED, TRACED, ISLAND, TRACED_ISLAND = "lowered", "lowered, traced", "islands", "islands, traced"


def frozen(model, x):
    return torch.jit.freeze(torch.jit.trace(model, (x,)).eval())


def layers():
    """A lowered net of linear layers of 16 features, in four forms."""
    ours = peers.ours()
    from torch_ao_ext.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torch_ao_ext.quantization.quantizer import x86_inductor_quantizer as x86

    torch.manual_seed(0)
    x = torch.randn(1, 16)
    model = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(OPERATORS)]).eval()
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), quantizer)
    prepared(x)
    quantized = convert_pt2e(prepared)
    plain, merged = ours.lower(quantized, (x,), islands=False), ours.lower(quantized, (x,))
    forms = {LOWERED: plain, TRACED: frozen(plain, x), ISLAND: merged, TRACED_ISLAND: frozen(merged, x)}
    return {name: lambda form=form: form(x) for name, form in forms.items()}


def changes_of_scale():
    """requantize of 64 bytes, from Python and as an island."""
    peers.ours()
    q = torch.randint(-128, 128, (64,), dtype=torch.int8)
    lines = [f"torch_ao::requantize %{i} f0.1 i0 f0.1 i0 n s" for i in range(OPERATORS)]
    program = "\n".join(["torch_ao.island 1 inputs=1 constants=0", *lines, f"return %{OPERATORS}"])

    def python():
        y = q
        for _ in range(OPERATORS):
            y = torch.ops.torch_ao.requantize.default(y, 0.1, 0, 0.1, 0)
        return y

    return {LOWERED: python, ISLAND: lambda: torch.ops.torch_ao.island([q], [], program)[0]}


def add_rows(args, result, missing):
    del missing
    with torch.no_grad():
        for title, calls in (("linear 16x16", layers()), ("requantize 64", changes_of_scale())):
            expected = calls[LOWERED]()
            wrong = [name for name, call in calls.items() if not torch.equal(call(), expected)]
            timings, foreign = cli.measure(calls, args)
            each = timings[ISLAND].median / OPERATORS
            goals = [
                Goal("vs lowered", rounds.speedup(timings, ISLAND, LOWERED), None, 1.0),
                Goal("1 us over an operator", 1e-6 / each, None, 1.0 if title.startswith("req") else None),
            ]
            failures = tuple(f"{name} differs" for name in wrong)
            report.print_row(result.add(f"{OPERATORS} x {title}", timings, goals, failures, foreign))


def main():
    return frame.run("island", cli.parser(__doc__, budget_s=5.0).parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
