"""What this machine is. Used where speed depends on it, and by the benchmarks."""

import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


@cache
def processor_name() -> str:
    """The name of this machine's processor, as far as the system tells."""
    with suppress(OSError):  # only Linux has the file
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
