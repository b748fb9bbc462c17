"""Sparsity of activations."""
