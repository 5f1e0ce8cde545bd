"""Runs PyTorch's side of a comparison in its own environment and reads what it saved."""

import subprocess
from pathlib import Path

import numpy as np

from benchmarks.environments import TOP, interpreter


def reference(folder: Path, **arguments) -> dict[str, np.ndarray]:
    """What benchmarks/peers/pytorch_reference.py saves for these arguments; the checkpoint is in folder/checkpoint.

    Raises:
        RuntimeError: it failed; its messages have been shown.
    """
    command = [str(interpreter("torch")), "-m", "benchmarks.peers.pytorch_reference", f"--folder={folder}"]
    for name, value in arguments.items():
        if value is True:
            command.append(f"--{name.replace('_', '-')}")
        elif value not in (None, False):
            command.append(f"--{name.replace('_', '-')}={value}")
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(command, cwd=TOP).returncode:
        raise RuntimeError(f"PyTorch's side failed: {' '.join(command)}")
    with np.load(folder / "reference.npz") as arrays:
        return dict(arrays)
