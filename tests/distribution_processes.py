"""Starts `tests.distribution_cases` in processes of their own, one for each worker, and reads what they found."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
# How the same cases are run: name, strategy, replicas of a process, processes.
ALONE = ("one device", "none", 0, 1)
MIRRORED = [("mirrored 2", "mirrored", 2, 1), ("mirrored 4", "mirrored", 4, 1)]
WORKERS = [("multi_worker 2", "multi_worker", 1, 2), ("multi_worker 3", "multi_worker", 1, 3)]
BOTH = [("multi_worker 2 x 2", "multi_worker", 2, 2)]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Processes:
    """The processes of one strategy, which run while others are looked at.

    Args:
        kind: an entry of the lists above.
        directory: for their output.
        cases: names of functions in `tests.distribution_cases`.
    """

    def __init__(self, kind: tuple, directory: Path, cases: Sequence[str]):
        self.name, strategy, replicas, count = kind
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
        command = [sys.executable, "-m", "tests.distribution_cases", strategy, str(replicas), str(directory), *cases]
        self.processes, self.began = [], time.monotonic()
        for index in range(count):
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
            environment.pop("TF_CONFIG", None)
            if count > 1:
                task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                environment["TF_CONFIG"] = json.dumps(task)
            with open(self.directory / f"worker-{index}.log", "w") as log:
                started = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            self.processes.append(started)

    def wait(self, seconds: float = 1800.0) -> list[int]:
        """The exit codes; those who are not done in time are killed."""
        until = time.monotonic() + seconds
        try:
            return [process.wait(max(until - time.monotonic(), 0.1)) for process in self.processes]
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()

    def log(self, index: int = 0) -> str:
        """What a worker printed."""
        return (self.directory / f"worker-{index}.log").read_text(encoding="utf-8", errors="replace")

    def found(self, case: str) -> list[dict[str, np.ndarray]]:
        """What a case gave, for each worker."""
        return [dict(np.load(self.directory / f"{case}-{index}.npz")) for index in range(len(self.processes))]


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], most: float) -> dict[str, float]:
    """The entries that are further from what is expected than `most` times their size, and by how much."""
    wrong = {}
    for name, value in expected.items():
        if found[name].shape != value.shape:
            wrong[name] = np.inf
            continue
        gap = np.abs(found[name].astype("float64") - value.astype("float64"))
        far = (gap / np.maximum(np.abs(value.astype("float64")), 1.0)).max(initial=0.0)
        if not far <= most:
            wrong[name] = float(far)
    return wrong
