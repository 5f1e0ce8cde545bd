"""Version directories: one appears whole or not at all, since TensorFlow Serving loads what it sees."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfheads.checkpoints.atomic import locked, remove_abandoned

PREFIX = ".tfheads-version-"
ABANDONED_AFTER = 3600.0  # seconds, longer than any export takes


def check_version(directory: str | os.PathLike, version: int, overwrite: bool) -> None:
    """Raises if a version cannot be written, before work is done for it.

    Raises:
        ValueError: `version` is no whole number from 1.
        NotADirectoryError: `directory` is a file.
        FileExistsError: the version exists and is not to be replaced.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"version must be a whole number from 1, got {version!r}")
    if Path(directory).exists() and not Path(directory).is_dir():
        raise NotADirectoryError(f"directory must not be a file, got {directory}")
    target = Path(directory, str(version))
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists: give another version, or overwrite=True")


@contextlib.contextmanager
def new_version(directory: str | os.PathLike, version: int, overwrite: bool) -> Iterator[Path]:
    """A directory to write into, which becomes `directory/<version>` when the block ends well.

    TensorFlow Serving looks only at names that are numbers, so it does not see the directory before. Processes that
    export at once leave each other's directories alone: each holds the lock of its own.

    Raises:
        FileExistsError: the version has come into being meanwhile.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / str(version)
    with contextlib.ExitStack() as lock:
        with locked(directory):
            remove_abandoned(directory, PREFIX, ABANDONED_AFTER)
            staging = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
            lock.enter_context(locked(staging))
        old = staging / "old"
        try:
            (staging / "new").mkdir()
            yield staging / "new"
            _flush(staging / "new")
            with locked(directory):
                check_version(directory, version, overwrite)
                if target.exists():
                    target.rename(old)
                (staging / "new").rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _flush(directory: Path) -> None:
    """Puts the files on the disk before their directory gets its name, so that a power failure leaves no empty ones."""
    for path in directory.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
