"""Structured pruning, sparse data and sparse activations."""
