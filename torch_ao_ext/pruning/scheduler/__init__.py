"""Schedules of the sparsity level."""
