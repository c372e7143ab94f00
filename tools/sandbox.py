"""Start a process with limits and, where the system allows it, in a small world of its own.

Three protections, the strongest that works is taken:

- `namespaces` (Linux): no network, no other processes, and a file system that holds Python, the libraries and a
  copy of the course, all read-only, with some memory to write into. As root the process gets another user's number too.
- `user` (root where namespaces are refused, as in many containers): another user's number, which may write nowhere
  but in its folder; Python refuses sockets.
- `limits` (everything else, macOS too): limits of time, memory, files and processes; Python itself refuses sockets,
  other processes and writing elsewhere (grade_guard.py).

As a script this file is the launcher: it prepares the world, gives up its rights and becomes the runner. It uses the
standard library only, and no module of the course.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

PROTECTIONS = {
    "namespaces": "a world of its own: no network, no other processes, no files but copies",
    "user": "another user's number; Python refuses sockets",
    "limits": "limits of the system; Python refuses sockets and writing elsewhere",
}
OTHER_USER = 64_321
TRIAL_SECONDS = 120
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime",
          "/etc/alternatives")  # fmt: skip
DEVICES = ("null", "zero", "full", "random", "urandom")
NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
KEPT_FLAGS = 2 | 4 | 8 | 1024 | 2048  # nosuid, nodev, noexec, noatime, nodiratime: may not be dropped by a remount
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
SET_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES = 1, 38


@dataclass(frozen=True)
class Limits:
    """What one notebook may use; seconds are of the clock, sizes in bytes."""

    cell_seconds: float = 300
    notebook_seconds: float = 1200
    memory: int = 4 << 30  # of each process
    disk: int = 512 << 20  # of all it writes; of each file where there is no world of its own
    processes: int = 64  # threads count


class Started:
    """A process that was started, with the channel to it."""

    def __init__(
        self, process: subprocess.Popen, channel: socket.socket, protection: str, scratch: Path | None
    ) -> None:
        self.process, self.channel, self.protection, self.scratch = process, channel, protection, scratch
        self.status: int | None = None

    def end(self, patience: float = 0) -> int:
        """Kill what is left of it, delete its folder, and return its exit status (negative for a signal).

        With `patience` one that ends by itself has so many seconds for it, so that the status is its own.
        """
        if self.status is not None:
            return self.status
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=patience)
        self.process.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        self.channel.close()
        if self.scratch is not None:
            if self.protection == "user":
                subprocess.run([sys.executable, "-I", __file__, "--end-user"])
            delete(self.scratch)
        self.status = status - 256 if status > 192 else status
        return self.status


def ended_by(status: int) -> str:
    """Words for how a process ended."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"by {signal.Signals(-status).name}"
    return f"with exit status {status}"


def delete(folder: Path) -> None:
    """Delete a folder whatever rights were set in it; links are deleted, not followed."""
    for place, folders, _ in os.walk(folder):
        for each in folders:
            path = os.path.join(place, each)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def template(root: Path, chapter: str | None, folder: Path) -> Path:
    """Make the folder from which every notebook's world is made: the course without solutions, and the runner."""
    course = folder / "course"
    course.mkdir(parents=True)
    shutil.copytree(root / "shared", course / "shared", ignore=shutil.ignore_patterns("__pycache__", "*_solutions*"))
    work = course / (chapter or "work")
    work.mkdir()
    if chapter and (root / chapter).is_dir():
        for path in sorted((root / chapter).iterdir()):
            if path.is_file() and path.suffix != ".ipynb":
                shutil.copy(path, work)
    (folder / "runner").mkdir()
    for name in ("grade_runner.py", "grade_values.py", "grade_guard.py"):
        shutil.copy(root / "tools" / name, folder / "runner")
    return folder


def start(made: Path, work: str, protection: str, limits: Limits, *, trial: bool = False) -> Started:
    """Start the runner in a world made from a template; `work` is the folder of the course in which it works."""
    ours, theirs = socket.socketpair()
    scratch = None
    place = ""
    if protection != "namespaces":
        scratch = Path(tempfile.mkdtemp(prefix="grade-", dir=made.parent))
        shutil.copytree(made, scratch, dirs_exist_ok=True)
        place = str(scratch.resolve())
        give_away(scratch, work, protection == "user")
    setting = {
        "protection": protection, "template": str(made.resolve()), "place": place, "work": work, "trial": trial,
        "limits": asdict(limits), "channel": theirs.fileno(), "parent": os.getpid(),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-I", __file__, json.dumps(setting)], pass_fds=[theirs.fileno()], start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    theirs.close()
    return Started(process, ours, protection, scratch)


def give_away(scratch: Path, work: str, another_user: bool) -> None:
    """Make the folders that a notebook may write into, and let the other user have them and read the rest."""
    for name in ("home", "tmp"):
        (scratch / name).mkdir()
    if another_user:
        scratch.chmod(0o755)
        folder = scratch / "course" / work
        for path in (scratch / "home", scratch / "tmp", folder, *folder.rglob("*")):
            os.chown(path, OTHER_USER, OTHER_USER)


def strongest(made: Path, work: str, limits: Limits) -> str:
    """The strongest protection that works here. Raises OSError if not even Python starts with the limits."""
    possible = [each for each in PROTECTIONS if each != "user" or os.getuid() == 0]
    for protection in possible if sys.platform == "linux" else ["limits"]:
        started = start(made, work, protection, limits, trial=True)
        started.channel.settimeout(TRIAL_SECONDS)
        try:
            works = bool(started.channel.recv(8))
        except OSError:
            works = False
        started.end()
        if works:
            return protection
    raise OSError("Python does not start with these limits: allow more memory.")


# ------------------------------------------------------------------------------------------------- the launcher


def libc_call(name: str, *arguments: object) -> None:
    """Call a function of the C library. Raises OSError if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    converted = [each.encode() if isinstance(each, str) else each for each in arguments]
    if getattr(libc, name)(*converted) != 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, in this process's namespace."""
    libc_call("mount", source, target, kind, ctypes.c_ulong(flags), data)


def launch(setting: dict) -> None:
    """Prepare the world, and become the runner in it."""
    if sys.platform == "linux":
        libc_call("prctl", SET_DEATH_SIGNAL, signal.SIGKILL)
        first_to_go()
    if os.getppid() != setting["parent"]:
        sys.exit(1)
    if setting["protection"] == "namespaces":
        enter_namespaces()
        pid = os.fork()
        if pid:
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 256 + code)
        build_world(setting)
    become_runner(setting)


def first_to_go() -> None:
    """If the machine's memory ends, let the system end this process and its children before all others."""
    with contextlib.suppress(OSError):  # no /proc, or not allowed: the limits remain
        Path("/proc/self/oom_score_adj").write_text("1000")


def enter_namespaces() -> None:
    """Separate mounts, processes, network and shared memory from the system's."""
    spaces = NEWNS | NEWPID | NEWNET | NEWIPC
    if os.getuid() == 0:
        libc_call("unshare", spaces)
        return
    user, group = os.getuid(), os.getgid()
    libc_call("unshare", spaces | NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"1000 {user} 1")
    Path("/proc/self/gid_map").write_text(f"1000 {group} 1")


def build_world(setting: dict) -> None:
    """A root folder in memory with Python, the libraries and the course, read-only, and places to write."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    new = setting["template"] + "/world"
    os.makedirs(new, exist_ok=True)
    mount("tmpfs", new, "tmpfs", MS_NOSUID | MS_NODEV, f"size={setting['limits']['disk']},nr_inodes=100000,mode=755")
    for path in dict.fromkeys((*SYSTEM, *map(os.path.abspath, (sys.prefix, sys.base_prefix, sys.exec_prefix)))):
        show(path, new)
    for name in DEVICES:
        show(f"/dev/{name}", new)
    bind(setting["template"] + "/runner", new + "/runner")
    work = setting["work"]
    for name in ("course", "home", "tmp", "proc", "dev/shm", f"course/{work}"):
        os.makedirs(f"{new}/{name}", exist_ok=True)
    bind(setting["template"] + "/course/shared", new + "/course/shared")
    shutil.copytree(f"{setting['template']}/course/{work}", f"{new}/course/{work}", dirs_exist_ok=True)
    for name in ("home", "tmp", "dev/shm", f"course/{work}"):
        os.chmod(f"{new}/{name}", 0o777)
    with contextlib.suppress(OSError):  # refused inside some containers: do without
        mount("proc", new + "/proc", "proc", MS_NOSUID | MS_NODEV | 8)
    os.chdir(new)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(PIVOT_ROOT[platform.machine()], b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    libc_call("umount2", ".", 2)
    os.chdir("/")


def show(path: str, new: str) -> None:
    """Let a path of the system be seen in the new world, under the same name, read-only; links stay links."""
    target = new + path
    if os.path.lexists(target) or not os.path.lexists(path):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        show(os.path.realpath(path), new)
    elif os.path.realpath(path) != path:
        show(os.path.realpath(path), new)
        os.symlink(os.path.realpath(path), target)
    else:
        bind(path, target)


def bind(path: str, target: str) -> None:
    """Show a file or folder at another place, read-only, with all that is mounted below it."""
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        Path(target).touch()
    mount(path, target, flags=MS_BIND | MS_REC)
    device = path.startswith("/dev/")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
        if place == target or place.startswith(target + "/"):
            kept = os.statvfs(place).f_flag & KEPT_FLAGS
            mount(
                "none", place, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | kept | (0 if device else MS_NODEV)
            )


def become_runner(setting: dict) -> None:
    """Give up rights, set the limits, and execute the runner in this process's place."""
    if os.getuid() == 0 and setting["protection"] != "limits":
        os.setgroups([])
        os.setgid(OTHER_USER)
        os.setuid(OTHER_USER)
    if sys.platform == "linux":
        libc_call("prctl", SET_DEATH_SIGNAL, signal.SIGKILL)
        libc_call("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    set_limits(setting["limits"], setting["protection"])
    place = setting["place"]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": place + "/home", "TMPDIR": place + "/tmp", "USER": "student",
        "LOGNAME": "student", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
        "MPLBACKEND": "agg", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        "COURSE_LEDGER": place + "/home/ledger.jsonl",
    }  # fmt: skip
    options = ["--try"] * setting["trial"] + ["--guard"] * (setting["protection"] != "namespaces")
    runner = ["-I", "-B", "-X", "utf8", "-c", RUN, place + "/runner", str(setting["channel"]), *options]
    os.execve(sys.executable, [sys.executable, *runner], environment)


RUN = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('grade_runner', run_name='__main__')"


def set_limits(limits: dict, protection: str) -> None:
    """Set those limits that the system has."""
    seconds = int(limits["notebook_seconds"]) + 5
    wanted = {"CORE": 0, "CPU": seconds, "FSIZE": limits["disk"], "NOFILE": 512}
    wanted["DATA" if sys.platform == "linux" else "AS"] = limits["memory"]
    if protection != "limits":  # otherwise the teacher's own processes would count
        wanted["NPROC"] = limits["processes"]
    for name, value in wanted.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        except (ValueError, OSError):  # macOS refuses some
            continue


if __name__ == "__main__":
    if sys.argv[1] == "--end-user":
        os.setuid(OTHER_USER)
        os.kill(-1, signal.SIGKILL)
    else:
        launch(json.loads(sys.argv[1]))
