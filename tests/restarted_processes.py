"""Starts runs of `tests.resumed_run` in processes of their own, one for each worker, and reads what they left."""

from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from tests.forked_processes import forked_workers


def started(directory: Path, workers: int = 1, **options) -> list[BaseProcess]:
    """The processes of a run, or of its next attempt.

    Args:
        directory: of the run.
        workers: how many processes share it.
        options: of `tests.resumed_run`.
    """
    arguments = [str(directory)]
    for name, value in options.items():
        arguments += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return forked_workers("tests.resumed_run.main", directory, workers, arguments)


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
