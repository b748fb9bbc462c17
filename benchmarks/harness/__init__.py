"""What every benchmark shares: fair rounds, the machine, goals, tables.

Rules: docs/benchmark_rules.md. A benchmark builds its candidates, hands them to
`rounds.measure` (interleaved, one process), checks the answers in the same run
and writes `report.Report`.
"""
