"""Sparsifiers of model weights."""
