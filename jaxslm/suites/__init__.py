"""The suites of launch/evaluate.py: one module each, with `add_arguments(parser)` and `run(flags) -> summary`."""
