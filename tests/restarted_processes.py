"""Starts `tests.resumed_run` in processes of its own, one for each worker, and waits for their end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.distribution_processes import ROOT, free_ports


def started(directory: Path, workers: int = 1, **options) -> list[subprocess.Popen]:
    """The processes of a run, or of its next attempt.

    Args:
        directory: of the run.
        workers: how many processes share it.
        options: of `tests.resumed_run`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.resumed_run", str(directory)]
    for name, value in options.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    found = []
    for index in range(workers):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("TF_CONFIG", None)
        if workers > 1:
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(task)
        with open(directory / f"worker-{index}.log", "a") as log:
            found.append(subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))
    return found


def ended(processes: list[subprocess.Popen], seconds: float = 900.0) -> list[int]:
    """The exit codes; those who are not done in time are killed."""
    until = time.monotonic() + seconds
    try:
        return [process.wait(max(until - time.monotonic(), 0.1)) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


def log(directory: Path, index: int = 0) -> str:
    """What a worker printed in all attempts."""
    return (directory / f"worker-{index}.log").read_text(encoding="utf-8", errors="replace")


def losses(directory: Path) -> list[str]:
    """The lines of each step and each epoch, those of the last attempt if there were several, in their order.

    Raises:
        AssertionError: attempts differ in a step.
    """
    lines: dict[tuple[str, str], str] = {}
    for line in (directory / "losses.txt").read_text(encoding="utf-8").splitlines():
        epoch, step = line.split()[:2]
        assert lines.setdefault((epoch, step), line) == line, f"step {step} of epoch {epoch} gave another loss"
    return list(lines.values())


def farthest(directory: Path, other: Path) -> float:
    """The largest difference of any weight or variable of the optimizer at the end of two runs."""
    one, two = np.load(directory / "final.npz"), np.load(other / "final.npz")
    assert set(one.files) == set(two.files)
    return max(float(np.abs(one[name].astype("float64") - two[name]).max(initial=0.0)) for name in one.files)
