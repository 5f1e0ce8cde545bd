"""Starts `tests.distribution_cases` in processes of their own, one for each worker, and reads what they found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.forked_processes import ended, forked_workers

# How the same cases are run: name, strategy, replicas of a process, processes.
ALONE = ("one device", "none", 0, 1)
MIRRORED = [("mirrored 2", "mirrored", 2, 1), ("mirrored 4", "mirrored", 4, 1)]
WORKERS = [("multi_worker 2", "multi_worker", 1, 2), ("multi_worker 3", "multi_worker", 1, 3)]
BOTH = [("multi_worker 2 x 2", "multi_worker", 2, 2)]


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
        arguments = (strategy, replicas, str(self.directory), *cases)
        self.processes = forked_workers("tests.distribution_cases.main", self.directory, count, *arguments)

    def wait(self, seconds: float = 1800.0) -> list[int]:
        """The exit codes; those who are not done in time are killed."""
        return ended(self.processes, seconds)

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
