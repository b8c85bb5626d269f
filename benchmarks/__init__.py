"""Load driver and scenarios that measure what an operation costs; `python -m benchmarks --help`."""
