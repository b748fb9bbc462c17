"""Data sparsity in Lightning training loops."""
