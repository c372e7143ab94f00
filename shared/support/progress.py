"""What long loops and commands show, in notebooks and terminals."""

import os
import sys

from tqdm.auto import tqdm


def progress_bar(total: int, *, unit: str, shown: bool = True, done: int = 0) -> tqdm:
    """A bar over `total` steps of which `done` are done; invisible unless `shown`, or with the variable TQDM_DISABLE.

    tqdm honours that variable in a terminal but not in a notebook, where the bar would become a part of the output.
    """
    quiet = not shown or os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(total=total, initial=done, unit=unit, disable=quiet)


def print_any_text() -> None:
    """Show what the output's encoding lacks (on Windows a pipe has cp1252) as \\uXXXX, in place of an error."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's has none
        sys.stdout.reconfigure(errors="backslashreplace")
