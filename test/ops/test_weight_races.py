"""Packing by many threads at once, and in forked children."""

import multiprocessing
import os
import threading

import op_reference as reference
import pytest
import torch
from op_cases import random_int
from weight_state import ops


def race(make_call, threads, rounds):
    """make_call(i) gives the function that all threads run at once in round i."""
    barrier = threading.Barrier(threads)
    calls = [make_call(i) for i in range(rounds)]
    failures = []

    def work():
        torch.set_num_threads(1)
        for call in calls:
            barrier.wait()
            try:
                call()
            except BaseException as error:
                failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not failures, failures[0]


def test_first_use_race_packs_once():
    scale, x = torch.rand(32) + 0.01, torch.randn(2, 48)
    before = ops._pack_count()

    def make_call(i):
        weight = random_int(torch.int8, 32, 48)
        expected = reference.linear_dynamic(x, weight, scale)

        def call():
            assert torch.equal(ops.linear_dynamic(x, weight, scale), expected)

        return call

    race(make_call, threads=32, rounds=500)
    assert ops._pack_count() - before == 500


def test_race_of_detach_first_use_and_clear():
    scale, x = torch.rand(32) + 0.01, torch.randn(2, 48)

    def make_call(i):
        weight = random_int(torch.int8, 32, 48)
        expected = reference.linear_dynamic(x, weight, scale)

        def call():
            for _ in range(5):
                assert torch.equal(ops.linear_dynamic(x, weight.detach(), scale), expected)
                if threading.get_ident() % 7 == 0:
                    ops._repack(weight)
                assert torch.equal(ops.linear_dynamic(x, weight, scale), expected)
                ops._explain(weight)

        return call

    race(make_call, threads=16, rounds=60)


def test_race_with_failing_packings():
    good, x = torch.rand(32) + 0.01, torch.randn(2, 48)
    bad = good.clone()
    bad[0] = -1.0

    def make_call(i):
        weight = random_int(torch.int8, 32, 48)
        expected = reference.linear_dynamic(x, weight, good)

        def call():
            with pytest.raises(ValueError, match="weight_scale"):
                ops.linear_dynamic(x, weight, bad)
            assert torch.equal(ops.linear_dynamic(x, weight, good), expected)

        return call

    race(make_call, threads=16, rounds=60)


def in_child(weights, scale, x, expected):
    # torch's own clone() and equal() of this size would hang here.
    results = [ops.linear_dynamic(x, w, scale) for w in weights]
    os._exit(0 if all((r.numpy() == expected.numpy()).all() for r in results) else 1)


@pytest.mark.parametrize("engine", ["native", "onednn", "xnnpack", "reference"])
def test_fork_after_parallel_use(engine, forced):
    """libgomp hangs in a forked child; our ops run serially there."""
    forced(engine)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        weight, scale = random_int(torch.int8, 512, 512), torch.rand(512) + 0.01
        unpacked = weight.clone()
        x = torch.randn(512, 128).repeat(1, 8)[:, ::2]  # not contiguous: copied by torch
        expected = ops.linear_dynamic(x, weight, scale)
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(
                target=in_child, args=([weight, unpacked], scale, x, expected)
            )
            child.start()
            child.join(timeout=20)
            hung = child.exitcode is None
            if hung:
                child.kill()
            assert not hung
            assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)
