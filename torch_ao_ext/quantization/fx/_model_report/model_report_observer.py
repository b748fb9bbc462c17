"""The observer of ModelReport."""

from typing import Any

import torch

from torch_ao_ext.quantization.observer import ObserverBase
from torch_ao_ext.quantization.observer._base import _QINT8

__all__ = ["ModelReportObserver"]

_BY_CHANNEL = (
    "min_val", "max_val", "average_percentile_ratio", "percentile_batches_tracked", "constant_channels",
)  # fmt: skip


class ModelReportObserver(ObserverBase):
    """Ranges of batches and of all data, ranges and outliers by channel.

    Buffers, with C places on ch_axis: `epoch_activation_min`, `epoch_activation_max` over all data;
    `min_val`, `max_val` `[C]`; `average_percentile_ratio` `[C]`, the mean over batches of largest value /
    percentile; `percentile_batches_tracked` `[C]`, batches in it (not those whose two values are 0);
    `constant_channels` `[C]`, batches in which the channel had one value.
    Attributes: `num_batches_tracked`, `average_batch_activation_range`.

    Args:
        ch_axis: of the channels.
        comp_percentile: fraction of a channel's values up to the percentile, in (0, 1).

    Raises:
        ValueError: comp_percentile out of range.
    """

    epoch_activation_min: torch.Tensor
    epoch_activation_max: torch.Tensor
    min_val: torch.Tensor
    max_val: torch.Tensor
    comp_percentile: torch.Tensor
    average_percentile_ratio: torch.Tensor
    percentile_batches_tracked: torch.Tensor
    constant_channels: torch.Tensor

    def __init__(self, ch_axis: int = 1, comp_percentile: float = 0.9) -> None:
        super().__init__(_QINT8)
        if not 0 < comp_percentile < 1:
            raise ValueError(
                "ModelReportObserver: argument 'comp_percentile' must be above 0 and below 1, got "
                f"{comp_percentile}"
            )
        self.ch_axis = ch_axis
        self.register_buffer("comp_percentile", torch.tensor([comp_percentile]))
        for name in ("epoch_activation_min", "epoch_activation_max"):
            self.register_buffer(name, torch.empty(()))
        for name in _BY_CHANNEL:
            self.register_buffer(name, torch.empty(0))
        self.reset_batch_and_epoch_values()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds a batch and returns it; an empty one changes nothing.

        Raises:
            ValueError: no such axis, or another number of channels than before.
        """
        values = x.detach().to(self.epoch_activation_min.dtype)
        if values.numel() == 0:
            return x
        if not -values.dim() <= self.ch_axis < values.dim():
            raise ValueError(
                f"ModelReportObserver: argument 'x' must have a dimension {self.ch_axis}, got {values.dim()} "
                "dimensions"
            )
        channels = values.transpose(0, self.ch_axis).flatten(1)
        if self.min_val.numel() not in (0, channels.shape[0]):
            raise ValueError(
                f"ModelReportObserver: argument 'x' must have {self.min_val.numel()} channels in dimension "
                f"{self.ch_axis}, as before, got {channels.shape[0]}"
            )
        low, high = torch.aminmax(channels, dim=1)
        self._add_ranges(low, high)
        self._add_ratios(channels, low, high)
        return x

    def _add_ranges(self, low: torch.Tensor, high: torch.Tensor) -> None:
        least, most, seen = low.min(), high.max(), self.num_batches_tracked
        self.epoch_activation_min.copy_(torch.min(self.epoch_activation_min, least))
        self.epoch_activation_max.copy_(torch.max(self.epoch_activation_max, most))
        total = self.average_batch_activation_range * seen + (most - least)
        self.average_batch_activation_range = total / (seen + 1)
        self.num_batches_tracked = seen + 1
        if self.min_val.numel() > 0:
            low, high = torch.min(low, self.min_val), torch.max(high, self.max_val)
        self.min_val.resize_(low.shape).copy_(low)
        self.max_val.resize_(high.shape).copy_(high)

    def _add_ratios(self, channels: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
        place = int(self.comp_percentile * (channels.shape[1] - 1))
        percentile = channels.kthvalue(place + 1, dim=1).values
        counts = ((percentile != 0) | (high != 0)).to(torch.int32)
        ratio = torch.nan_to_num(high / percentile) * counts
        if self.average_percentile_ratio.numel() == 0:
            self.average_percentile_ratio = torch.zeros_like(ratio)
            self.percentile_batches_tracked = torch.zeros_like(counts)
            self.constant_channels = torch.zeros_like(counts)
        tracked = self.percentile_batches_tracked
        total = self.average_percentile_ratio * tracked + ratio
        self.average_percentile_ratio.copy_(torch.nan_to_num(total / (tracked + counts)))
        tracked += counts
        self.constant_channels += (high == low).to(torch.int32)

    def get_batch_to_epoch_ratio(self) -> torch.Tensor:
        """Mean range of a batch / range of all data; near 1 where all batches look alike.

        Raises:
            ValueError: no data, infinite data, or all data one value.
        """
        whole = self.epoch_activation_max - self.epoch_activation_min
        if not bool(whole.isfinite()) or whole == 0:
            raise ValueError(
                f"ModelReportObserver: must have seen finite values that differ, got a range of "
                f"{whole.item()}"
            )
        return self.average_batch_activation_range / whole

    def reset_batch_and_epoch_values(self) -> None:
        """Forgets what was seen."""
        device = self.max_val.device
        self.num_batches_tracked = 0
        self.average_batch_activation_range = torch.tensor(0.0, device=device)
        self.epoch_activation_min = torch.tensor(float("inf"), device=device)
        self.epoch_activation_max = torch.tensor(float("-inf"), device=device)
        for name in _BY_CHANNEL:
            setattr(self, name, torch.empty(0, device=device))

    def calculate_qparams(self) -> Any:
        """Raises: it is no observer of a quantized value."""
        raise RuntimeError(
            "ModelReportObserver: has no qparams; generate_model_report(remove_inserted_observers=True) "
            "removes it before conversion"
        )
