"""Parts of the numeric suite for graphs: measures, matching, tables, loggers, results, candidates."""

__all__: list[str] = []
