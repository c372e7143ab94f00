"""Helpers for those who write the course: notebooks and the README's chapter table."""
