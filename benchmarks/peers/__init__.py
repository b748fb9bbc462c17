"""What a user could run instead, one file per engine.

A builder takes a `case.Case` (a workload with its exported files) and returns a `case.Built`: a call, and
what that call really runs, read from the engine itself. It raises when an "int8" file runs in float.
"""
