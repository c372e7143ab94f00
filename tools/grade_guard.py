"""Where the system offers no isolation: Python itself refuses what a submission has no business with.

An audit hook cannot be taken away again by Python code, but it sees only what goes through Python: code that calls the
system by way of ctypes, which torch needs itself, passes by. It is the weakest of the protections; see TEACHING.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

NEVER = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.kill", "pty.",
    "resource.setrlimit", "os.symlink", "os.link",
)  # fmt: skip
ALLOWED = ("socket.gethostname", "socket.__new__")
WRITING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.truncate", "os.utime")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch_everything(folders: list[str]) -> None:
    """Refuse sockets, other processes, and writing outside some folders, from now on and for good."""
    sys.addaudithook(hook([os.path.realpath(folder) + os.sep for folder in folders], os.path.realpath, os.fsdecode))


def hook(folders: list[str], real: Callable, decoded: Callable) -> Callable[[str, tuple], None]:
    """The audit hook; what it calls is bound here, before a submission can replace it."""
    prefix, flag = tuple(folders), WRITE_FLAGS

    def inside(path: object) -> bool:
        return path is None or isinstance(path, int) or (real(decoded(path)) + "/").startswith(prefix)

    def refuse(event: str, arguments: tuple) -> None:
        if event.startswith(NEVER) and not event.startswith(ALLOWED):
            raise PermissionError(f"{event} is not allowed while a notebook is graded")
        if event == "open" and arguments[2] & flag and arguments[0] != "/dev/null" and not inside(arguments[0]):
            raise PermissionError(f"{arguments[0]} is outside the folder of this notebook")
        if event.startswith(WRITING) and not all(inside(each) for each in arguments[:2] if not isinstance(each, int)):
            raise PermissionError(f"{event} outside the folder of this notebook")

    return refuse
