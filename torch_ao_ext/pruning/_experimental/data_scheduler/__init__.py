"""Schedules for data sparsifiers."""

from torch_ao_ext.pruning._experimental.data_scheduler.base_data_scheduler import BaseDataScheduler

__all__ = ["BaseDataScheduler"]
