"""Training runs that are killed on purpose and go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

KILL = -getattr(signal, "SIGKILL", signal.SIGTERM)
# Importing torch takes longer than these runs: on Linux one process imports it and becomes a new one for each run.
KILLING = """
import os, signal, sys
import torch._dynamo  # which AdamW imports when the first one is made
import shared.formats.checkpoints as checkpoints, shared.training.metrics_log as metrics_log
import shared.training.trainer as training

for place, count in (run.split(":") for run in sys.argv[2:]):
    child = os.fork() if sys.platform == "linux" else 0
    if child == 0:
        break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != (0 if place == "nowhere" else -signal.SIGKILL):
        sys.exit(f"killed in {place}: exit status {status}")
else:
    sys.exit()

def deadly(module, name):
    real, calls = getattr(module, name), []
    def call(*arguments, **named):
        calls.append(1)
        if len(calls) == int(count):
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return real(*arguments, **named)
    setattr(module, name, call)
places = {
    "save": (checkpoints, "save_tensors"), "rename": (os, "replace"), "log": (metrics_log, "append_jsonl"),
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
    runs = [f"{place}:{count}" for place, count in kills]
    for together in [runs] if sys.platform == "linux" else [[run] for run in runs]:
        command = [sys.executable, "-c", KILLING + trainer, str(out), *together]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
        ends = sys.platform == "linux" or together[0].startswith("nowhere")
        assert done.returncode == (0 if ends else KILL), (together, done.stderr)
