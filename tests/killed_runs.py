"""Training runs that are killed on purpose and go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

KILLING = """
import os, signal, sys
import shared.formats.checkpoints as checkpoints, shared.training.metrics_log as metrics_log
import shared.training.trainer as training

place, count = sys.argv[2], int(sys.argv[3])
def deadly(module, name):
    real, calls = getattr(module, name), []
    def call(*arguments, **named):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return real(*arguments, **named)
    setattr(module, name, call)
places = {
    "save": (checkpoints, "save_file"), "rename": (os, "replace"), "log": (metrics_log, "append_jsonl"),
    "step": (training.torch.optim.AdamW, "step"),
}
if place != "nowhere":
    deadly(*places[place])
"""


def run_killed(trainer: str, out: Path, kills: list[tuple[str, int]], root: Path) -> None:
    """Run a trainer's code, killed at the n-th call in each place of `kills` in turn; "nowhere" lets it end.

    `trainer` is Python code in which `sys.argv[1]` is the folder of the run.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for place, count in kills:
        command = [sys.executable, "-c", KILLING + trainer, str(out), place, str(count)]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
        killed = -signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM
        assert done.returncode == (0 if place == "nowhere" else killed), (place, done.stderr)
