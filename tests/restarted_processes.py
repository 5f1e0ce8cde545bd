"""Starts runs of `tests.resumed_run` in processes of their own, one for each worker, and waits for their end.

The processes are forks of one that has imported everything, which takes longer than a run.
"""

import json
import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from tests.distribution_processes import free_ports


def started(directory: Path, workers: int = 1, **options) -> list[BaseProcess]:
    """The processes of a run, or of its next attempt.

    Args:
        directory: of the run.
        workers: how many processes share it.
        options: of `tests.resumed_run`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.resumed_run"])
    arguments = [str(directory)]
    for name, value in options.items():
        arguments += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    found = []
    for index in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        cluster = json.dumps(task) if workers > 1 else ""
        found.append(context.Process(target=attempt, args=(directory / f"worker-{index}.log", cluster, arguments)))
        found[-1].start()
    return found


def attempt(path: Path, cluster: str, arguments: list[str]) -> None:
    """What a process does, with its output in a file."""
    with open(path, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.pop("TF_CONFIG", None)
    if cluster:
        os.environ["TF_CONFIG"] = cluster
    from tests import resumed_run

    resumed_run.main(arguments)


def ended(processes: list[BaseProcess], seconds: float = 900.0) -> list[int]:
    """The exit codes; those who are not done in time are killed."""
    until = time.monotonic() + seconds
    for process in processes:
        process.join(max(until - time.monotonic(), 0.1))
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def log(directory: Path, index: int = 0) -> str:
    """What a worker printed in all attempts."""
    return (directory / f"worker-{index}.log").read_text(encoding="utf-8", errors="replace")


def losses(directory: Path) -> list[str]:
    """The lines of each step and each epoch, in their order.

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
