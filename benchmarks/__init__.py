"""Benchmarks against peers, each run side by side: `python -m benchmarks.grader` and so on."""
