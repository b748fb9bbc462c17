"""MiniLM with its feed-forward layers pruned in blocks of 1x4: dense int8 against sparse int8.

    python benchmarks/models/pruned_minilm.py [--threads 1]

For each share of zeros WeightNormSparsifier prunes the 12 feed-forward layers in one go, without
training, so that SQNR against the unpruned model shows what this costs; SQNR against the pruned
float model is that of int8. Size is that of the files of `save_quantized`. Exit status 1 when a
floor is missed.
"""

import copy
import functools
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402

from benchmarks.harness import cli, frame, peers, report, rounds  # noqa: E402
from benchmarks.harness.accuracy import sqnr_db  # noqa: E402
from benchmarks.harness.goals import Goal  # noqa: E402
from benchmarks.models import minilm_model  # noqa: E402

FP32, DENSE, SPARSE = "fp32, pruned", "torch_ao_ext dense", "torch_ao_ext sparse"
ZEROS = (80, 90)  # %


def pruned(model, zeros):
    """A copy whose feed-forward weights have that share of zero blocks."""
    sparsifier = peers.ours().pruning.WeightNormSparsifier(
        sparsity_level=zeros / 100, sparse_block_shape=(1, 4), zeros_per_block=4
    )
    model = copy.deepcopy(model)
    layers = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    ends = ("intermediate.dense", "output.dense")
    names = [name for name in layers if name.endswith(ends) and ".attention." not in name]
    sparsifier.prepare(model, [{"tensor_fqn": f"{name}.weight"} for name in names])
    sparsifier.step()
    sparsifier.squash_mask(params_to_keep=("sparse_block_shape",))
    return model, names


def file_bytes(model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        peers.ours().save_quantized(model, path)
        return path.stat().st_size


def feed_forward_bytes(model, names):
    """Of the integers, indices and scales of these layers."""
    layers = (model.get_submodule(name) for name in names)
    return sum(t.numel() * t.element_size() for m in layers for t in m.state_dict().values())


def run_share(model, zeros, args, result):
    ours = peers.ours()
    float_, names = pruned(model, zeros)
    dense = ours.quantization.quantize_dynamic(float_)
    sparse = ours.nn.sparse.quantized.to_sparse_int8(float_)
    found = sum(type(sparse.get_submodule(name)) is not torch.nn.Linear for name in names)
    if found != len(names):
        raise RuntimeError(f"{found} of {len(names)} layers became sparse")
    sparse = ours.quantization.quantize_dynamic(sparse)
    models = {FP32: float_, DENSE: dense, SPARSE: sparse}
    sizes = feed_forward_bytes(sparse, names) / feed_forward_bytes(dense, names)
    files = file_bytes(sparse) / file_bytes(dense)
    for batch, tokens in minilm_model.SIZES:
        ids, mask = minilm_model.inputs(batch, tokens)
        answers = {n: minilm_model.hidden(m, ids, mask) for n, m in models.items()}
        original = minilm_model.hidden(model, ids, mask)
        sqnr = {name: sqnr_db(answers[FP32], answers[name]) for name in (DENSE, SPARSE)}
        calls = {n: functools.partial(minilm_model.hidden, m, ids, mask) for n, m in models.items()}
        timings, foreign = cli.measure(calls, args)
        goals = [
            Goal(f"sparse vs {peer}", rounds.speedup(timings, SPARSE, peer), None, floor)
            for peer, floor in ((FP32, 1.0), (DENSE, 1.0))
        ]
        goals.append(Goal("SQNR of the pruning itself", sqnr_db(original, answers[FP32]), None, None, "dB"))
        if (batch, tokens) == minilm_model.SIZES[0]:
            floor = 0.2 if zeros >= 90 else None
            note = "bytes of the layers"
            goals.append(Goal(note, sizes, None, floor, "x of dense", larger_is_better=False))
            goals.append(Goal("file of the whole model", files, None, None, "x of dense"))
        row = f"FFN {zeros} % zeros, {batch}x{tokens}"
        report.print_row(result.add(row, timings, goals, (), foreign, sqnr_db=sqnr))


def add_rows(args, result, missing):
    del missing
    with torch.no_grad():
        model = minilm_model.load()
        for zeros in ZEROS:
            run_share(model, zeros, args, result)


def main():
    return frame.run("pruned_minilm", cli.parser(__doc__, budget_s=5.0).parse_args(), add_rows)


if __name__ == "__main__":
    sys.exit(main())
