"""Sparsifiers of model weights."""

__all__: list[str] = []
