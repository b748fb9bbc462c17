"""Weights that come from memory: more of them in turn than a cache holds."""

import itertools

COLD_BYTES = 128 << 20  # of weights in turn: 4 times the largest L3 of one die


def copies(size):
    """How many weights of `size` bytes are more than a cache holds."""
    return -(-COLD_BYTES // size)


def in_turn(calls):
    """One call after the other, from the start again."""
    following = itertools.cycle(calls)
    return lambda: next(following)()
