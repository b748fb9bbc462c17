"""Training with fake quantization in two processes (DistributedDataParallel over gloo)."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__)


def run(rank, folder, kind):
    """One process: trains on its own data, writes its integers."""
    import warnings

    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    from torch_ao_ext import quantization as tq
    from torch_ao_ext.quantization.pt2e import move_exported_model_to_eval
    from torch_ao_ext.quantization.quantize_fx import convert_fx, prepare_qat_fx

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    ).train()
    if kind == "eager":
        fused = tq.fuse_modules_qat(tq.QuantWrapper(net), ["module.0", "module.1", "module.2"])
        fused.qconfig = tq.get_default_qat_qconfig("onednn")
        model = tq.prepare_qat(fused.train())
    else:
        model = prepare_qat_fx(net, tq.get_default_qat_qconfig_mapping("onednn"), (torch.randn(2, 3, 8, 8),))
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), 0.05)
    torch.manual_seed(10 + rank)
    for _ in range(4):
        optimizer.zero_grad()
        parallel(torch.randn(8, 3, 8, 8) * (1 + rank)).square().mean().backward()
        optimizer.step()
    with torch.no_grad():  # buffers of rank 0 go to all at the start of a forward
        parallel.eval() if kind == "eager" else move_exported_model_to_eval(model)
        model.apply(tq.disable_observer)
        parallel(torch.zeros(1, 3, 8, 8))
    state = {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    int8 = tq.convert(model) if kind == "eager" else convert_fx(model)
    torch.manual_seed(5)
    y = int8(torch.randn(4, 3, 8, 8))
    torch.save((state, y), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["eager", "fx"])
def test_processes_agree(kind, tmp_path):
    start = [sys.executable, str(HERE), str(tmp_path), kind]
    others = [subprocess.Popen([*start, str(rank)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    for other in others:
        _, error = other.communicate(timeout=240)
        assert other.returncode == 0, error[-3000:]
    (first, y), (second, z) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first.keys() == second.keys() and any("min_val" in key for key in first)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert torch.equal(y, z) and y.abs().sum() > 0


def test_synchronized_batch_norms():
    """convert_sync_batchnorm reaches into layers that hold a batch norm, and keeps the rest."""
    from torch import nn

    from torch_ao_ext import quantization as tq

    net = tq.fuse_modules_qat(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(), ["0", "1"])
    net.qconfig = tq.get_default_qat_qconfig("onednn")
    model = tq.prepare_qat(net)
    model(torch.randn(4, 3, 6, 6))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(model[0].bn, nn.SyncBatchNorm)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(v, after[k]) for k, v in before.items())
    assert type(tq.convert(model.eval())[0]).__name__ == "Conv2d"


if __name__ == "__main__":
    run(int(sys.argv[3]), sys.argv[1], sys.argv[2])
