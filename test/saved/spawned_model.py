"""What a spawned worker of test_round_trip runs: importable by itself."""

import pickle

import torch

from torch_ao_ext import load_quantized


def run(path, pickled, x, queue):
    x = torch.tensor(x)
    queue.put((load_quantized(path)(x).tolist(), pickle.loads(pickled)(x).tolist()))
