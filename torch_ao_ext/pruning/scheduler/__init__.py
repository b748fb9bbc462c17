"""Schedules of the sparsity level."""

__all__: list[str] = []
