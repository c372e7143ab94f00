"""Benchmarks against peers, each run side by side: `python -m benchmarks.grader` and so on."""

from course import print_any_text

print_any_text()
