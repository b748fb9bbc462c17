"""Parts of the numeric suite for graphs: measures, result types, QConfigs by candidate."""

__all__: list[str] = []
