"""Helpers for those who write the course: notebooks and the README's chapter table."""

import sys

from course import print_any_text

print_any_text()
# With it jsonschema, which nbformat imports, builds a grammar of web addresses for a second in every process; no field
# of a notebook is one. So pytest imports this package before nbval (pyproject.toml).
sys.modules.setdefault("rfc3987_syntax", None)
