"""States of runs on the disk: written whole or not at all, checked when they are read, found again.

A state is a directory `checkpoint-<steps>` with two files: `training_state.safetensors` (tensors by name) and
`training_state.json` (the position in the data, whatever else is plain, a checksum of each tensor). It is written
under another name, flushed to the disk and renamed. What a process that was killed leaves behind has other names and is
removed by the next one that saves.
"""

import json
import logging
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfheads.checkpoints.safetensors_files import SafetensorsFiles, TensorSource, write_safetensors

logger = logging.getLogger("tfheads")

TENSORS = "training_state.safetensors"
RECORD = "training_state.json"
UNFINISHED = ".unfinished-checkpoint-"


@dataclass(frozen=True)
class Position:
    """Where a run is.

    Attributes:
        epoch: number of the epoch, from 0.
        step: how many batches of it are done.
        global_step: how many batches are done in all.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0


@dataclass(frozen=True)
class SavedState:
    """A state on the disk that was found to be whole.

    Attributes:
        directory: where it is.
        position: where the run was.
        record: what its JSON file says.
    """

    directory: Path
    position: Position
    record: dict

    @classmethod
    def open(cls, directory: "str | os.PathLike") -> "SavedState":
        """Reads and checks a state.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged.
        """
        directory = Path(directory)
        if not (directory / RECORD).is_file():
            raise FileNotFoundError(f"{directory} has no {RECORD}, so it is no saved training state")
        try:
            record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
            position = Position(**record["position"])
            checksums = {name: int(value) for name, value in record["checksums"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{directory / RECORD} is damaged: {error}") from None
        state = cls(directory, position, record)
        try:
            with state.tensors() as tensors:
                if set(tensors.names()) != set(checksums):
                    raise ValueError(f"{directory / TENSORS} has other tensors than {RECORD} says")
                for name, checksum in checksums.items():
                    if _checksum(tensors.read(name)) != checksum:
                        raise ValueError(f"{directory / TENSORS} is damaged: {name} has changed")
        except FileNotFoundError:
            raise ValueError(f"{directory} is damaged: it has no {TENSORS}") from None
        return state

    def tensors(self) -> SafetensorsFiles:
        """The tensors of the state, read when asked for."""
        if not (self.directory / TENSORS).is_file():
            raise FileNotFoundError(f"{self.directory} has no {TENSORS}")
        return SafetensorsFiles(self.directory / TENSORS)


def latest(directory: "str | os.PathLike") -> SavedState | None:
    """The newest whole state in a directory; None if there is none at all.

    Damaged ones are passed over, which is said once for each.

    Args:
        directory: what `TrainingState` was given, or one `checkpoint-...` in it.

    Raises:
        ValueError: there are states, but all are damaged.
    """
    if (Path(directory) / RECORD).is_file():
        return SavedState.open(directory)
    found = checkpoints(directory)
    for path in reversed(found):
        try:
            return SavedState.open(path)
        except (ValueError, OSError) as error:
            logger.warning("%s; trying the state before it", error)
    if found:
        raise ValueError(
            f"all {len(found)} saved states in {directory} are damaged; remove them to train from the start"
        )
    return None


def checkpoints(directory: "str | os.PathLike") -> list[Path]:
    """The `checkpoint-<steps>` directories that hold states, fewest steps first."""
    return [path for path in named_as_checkpoints(directory) if is_own(path)]


def named_as_checkpoints(directory: "str | os.PathLike") -> list[Path]:
    """The `checkpoint-<steps>` directories of any program, fewest steps first."""
    directory = Path(directory)
    paths = directory.iterdir() if directory.is_dir() else ()
    numbered = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in paths if path.is_dir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]


def steps(checkpoint: Path) -> int:
    """The number in the name of a `checkpoint-<steps>` directory."""
    return int(checkpoint.name.rpartition("-")[2])


def write(directory: Path, position: Position, record: Mapping, tensors: Sequence[TensorSource]) -> Path:
    """Writes a state, in place of one of the same step.

    Args:
        directory: of the run.
        position: where the run is.
        record: what else goes into the JSON file.
        tensors: read while they are written.

    Returns:
        The directory of the state.

    Raises:
        OSError: it could not be written; nothing has changed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob(f"{UNFINISHED}*"):  # of a run that was killed while it saved
        shutil.rmtree(path, ignore_errors=True)
    target = directory / f"checkpoint-{position.global_step}"
    staging = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=directory))
    try:
        checksums: dict[str, int] = {}
        write_safetensors(staging / TENSORS, [_with_checksum(source, checksums) for source in tensors])
        with open(staging / RECORD, "w", encoding="utf-8") as file:
            json.dump({"position": vars(position), **record, "checksums": checksums}, file)
            file.flush()
            os.fsync(file.fileno())
        _flush(staging)
        if target.exists() and not remove(target):
            raise FileExistsError(f"{target} holds files that tfheads did not write: move them away")
        os.rename(staging, target)
        _flush(directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return target


def is_own(checkpoint: Path) -> bool:
    """Whether a `checkpoint-<steps>` directory holds a state or what is left of one, whatever else is in it."""
    return any((checkpoint / name).is_file() for name in (RECORD, TENSORS))


def remove(checkpoint: Path) -> bool:
    """Removes a state, and nothing that `write` has not written; returns whether nothing is left.

    A state alone in its directory goes under another name first, so that a kill in the middle leaves no half of it.
    """
    if not is_own(checkpoint):
        return False
    if {path.name for path in checkpoint.iterdir()} <= {RECORD, TENSORS}:
        emptied = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=checkpoint.parent))
        os.rename(checkpoint, emptied)
        shutil.rmtree(emptied, ignore_errors=True)
        return True
    for name in (RECORD, TENSORS):  # without the record it is no state any more
        (checkpoint / name).unlink(missing_ok=True)
    return False


def _with_checksum(source: TensorSource, checksums: dict[str, int]) -> TensorSource:
    def read() -> np.ndarray:
        array = source.read()
        checksums[source.name] = _checksum(array)
        return array

    return TensorSource(source.name, source.shape, source.dtype, read)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _flush(directory: Path) -> None:
    """Waits until the names in a directory are on the disk."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
