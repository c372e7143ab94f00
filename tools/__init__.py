"""Helpers for those who write the course: notebooks and the README's chapter table."""

from course import print_any_text

print_any_text()
