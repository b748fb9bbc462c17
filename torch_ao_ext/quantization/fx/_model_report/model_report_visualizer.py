"""Tables and plots of what ModelReport found."""

from collections import OrderedDict
from types import ModuleType
from typing import Any

import torch

__all__ = ["ModelReportVisualizer"]

_ABSENT = "Not Applicable"


def _needs(package: str, name: str) -> ModuleType:
    """An optional package.

    Raises:
        ImportError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"ModelReportVisualizer: needs {package}; pip install {package}") from error


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value


def _by_channel(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, torch.Tensor) and value.dim() > 0)


class ModelReportVisualizer:
    """Tables and plots; filters choose layers and values by a part of their names, "" takes all.

    Args:
        generated_reports: name of the layer -> name of the value -> value, a list or 1-D tensor for one
            by channel.
    """

    TABLE_TENSOR_KEY = "tensor_level_info"
    TABLE_CHANNEL_KEY = "channel_level_info"

    # Columns before the values.
    NUM_NON_FEATURE_TENSOR_HEADERS = 2
    NUM_NON_FEATURE_CHANNEL_HEADERS = 3

    CHANNEL_NUM_INDEX = 2

    def __init__(self, generated_reports: "OrderedDict[str, Any]") -> None:
        self.generated_reports = generated_reports

    def get_all_unique_module_fqns(self) -> set[str]:
        """Names of the layers."""
        return set(self.generated_reports)

    def get_all_unique_feature_names(self, plottable_features_only: bool = True) -> set[str]:
        """Names of the values.

        Args:
            plottable_features_only: those that are tensors.
        """
        return {
            name
            for found in self.generated_reports.values()
            for name, value in found.items()
            if not plottable_features_only or isinstance(value, torch.Tensor)
        }

    def _filtered(self, feature_filter: str, module_fqn_filter: str) -> dict[str, dict[str, Any]]:
        return {
            fqn: {name: value for name, value in found.items() if feature_filter in name}
            for fqn, found in self.generated_reports.items()
            if module_fqn_filter in fqn
        }

    def generate_filtered_tables(
        self, feature_filter: str = "", module_fqn_filter: str = ""
    ) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """Two tables: values of layers, and values of their channels.

        Args:
            feature_filter: part of the names of values.
            module_fqn_filter: part of the names of layers.

        Returns:
            "tensor_level_info" and "channel_level_info" -> (headers, rows); rows begin with a number and
            the layer, those of channels with the channel as well. "Not Applicable" stands for what a layer
            does not have.
        """
        chosen = self._filtered(feature_filter, module_fqn_filter)
        names: tuple[set[str], set[str]] = (set(), set())
        for found in chosen.values():
            for name, value in found.items():
                names[_by_channel(value)].add(name)
        whole, single = sorted(names[0]), sorted(names[1])
        rows = [[i, fqn, *(_plain(found.get(name, _ABSENT)) for name in whole)]
                for i, (fqn, found) in enumerate(chosen.items())] if whole else []  # fmt: skip
        channels: list[list[Any]] = []
        for fqn, found in chosen.items():
            for channel in range(max((len(found[name]) for name in single if name in found), default=0)):
                values = [_plain(found[name][channel]) if name in found else _ABSENT for name in single]
                channels.append([len(channels), fqn, channel, *values])
        return {
            self.TABLE_TENSOR_KEY: (["idx", "layer_fqn", *whole] if rows else [], rows),
            self.TABLE_CHANNEL_KEY: (["idx", "layer_fqn", "channel", *single] if channels else [], channels),
        }

    def generate_table_visualization(self, feature_filter: str = "", module_fqn_filter: str = "") -> None:
        """Prints the tables of `generate_filtered_tables`.

        Raises:
            ImportError: no package tabulate.
        """
        tabulate = _needs("tabulate", "tabulate").tabulate
        tables = self.generate_filtered_tables(feature_filter, module_fqn_filter)
        parts = []
        for title, key, columns in (
            ("Layers", self.TABLE_TENSOR_KEY, self.NUM_NON_FEATURE_TENSOR_HEADERS),
            ("Channels", self.TABLE_CHANNEL_KEY, self.NUM_NON_FEATURE_CHANNEL_HEADERS),
        ):
            headers, rows = tables[key]
            if len(headers) > columns:
                parts.append(f"{title}\n{tabulate(rows, headers=headers)}")
        print("\n\n".join(parts) if parts else "No values for a table.")

    def _points(self, feature_filter: str, module_fqn_filter: str) -> tuple[bool, dict[int, list[Any]]]:
        """Whether a value is by channel, and number of each layer that has it -> its values.

        Raises:
            ValueError: none or several values.
        """
        tables = self.generate_filtered_tables(feature_filter, module_fqn_filter)
        (whole, rows), (single, channels) = tables[self.TABLE_TENSOR_KEY], tables[self.TABLE_CHANNEL_KEY]
        names = whole[self.NUM_NON_FEATURE_TENSOR_HEADERS :] + single[self.NUM_NON_FEATURE_CHANNEL_HEADERS :]
        if len(names) != 1:
            raise ValueError(
                "ModelReportVisualizer: argument 'feature_filter' must choose one value "
                f"(get_all_unique_feature_names), got {names}"
            )
        layers = list(self._filtered(feature_filter, module_fqn_filter))
        found: dict[int, list[Any]] = {}
        for row in channels or rows:
            if not isinstance(row[-1], str):
                found.setdefault(layers.index(row[1]), []).append(row[-1])
        return bool(channels), found

    def generate_plot_visualization(self, feature_filter: str, module_fqn_filter: str = "") -> None:
        """A line over the layers; of values by channel, their mean.

        Args:
            feature_filter: chooses one value that is a number.
            module_fqn_filter: part of the names of layers.

        Raises:
            ImportError: no package matplotlib.
            ValueError: none or several values chosen.
        """
        plt = _needs("matplotlib", "matplotlib.pyplot")
        by_channel, found = self._points(feature_filter, module_fqn_filter)
        axes = plt.subplot()
        axes.set_title(f"{feature_filter} Plot")
        axes.set_xlabel("layer")
        axes.set_ylabel(feature_filter)
        plt.xticks(list(found))
        means = [sum(values) / len(values) for values in found.values()]
        axes.plot(list(found), means, label="mean of channels" if by_channel else feature_filter)
        axes.legend(loc="upper right")
        plt.show()

    def generate_histogram_visualization(
        self, feature_filter: str, module_fqn_filter: str = "", num_bins: int = 10
    ) -> None:
        """How often a value is how large, over all layers and channels.

        Args:
            feature_filter: chooses one value that is a number.
            module_fqn_filter: part of the names of layers.
            num_bins: bars.

        Raises:
            ImportError: no package matplotlib.
            ValueError: none or several values chosen.
        """
        plt = _needs("matplotlib", "matplotlib.pyplot")
        _, found = self._points(feature_filter, module_fqn_filter)
        axes = plt.subplot()
        axes.set_title(f"{feature_filter} Histogram")
        axes.set_xlabel(feature_filter)
        axes.set_ylabel("Frequency")
        values = [value for values in found.values() for value in values]
        _, bins, _ = plt.hist(values, bins=num_bins, rwidth=0.8)
        plt.xticks(bins)
        plt.show()
