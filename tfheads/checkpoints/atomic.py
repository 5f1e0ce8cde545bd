"""Saving into a directory so that a crash at any point leaves the old checkpoint or the new one, never a mixture.

A checkpoint is several files whose names are fixed, so no single rename can replace it. The directory may also be a
mount point, a git checkout, or hold logs that are being written, so it cannot be swapped for another one either. The
files are therefore changed in place, after everything that can go wrong has gone well, in an order in which nothing
loads halfway:

1. All new files are written into a hidden directory inside the target (`.tfheads-staging-...`) and flushed to the disk.
   The target is untouched: a full disk, an exception or a kill here costs nothing but the staging directory, which is
   removed at once or by the next save.
2. A list of what shall be moved and removed is added, and the hidden directory is renamed to `.tfheads-commit`. This
   one rename is the moment at which the save has happened.
3. The old entry file (config.json) is removed: from here on no library can load the directory, since all of them read
   that file first.
4. Weights of the old save that the new one does not replace are removed; then the new files are moved into place.
5. The new entry file is moved into place, last of all: the directory loads again, and everything in it is new.
6. The hidden directory is removed.

The directory is flushed between the steps, so that a power failure keeps their order. If the process dies in steps 3 to
5, `finish_interrupted_save` repeats them; saving does that first. Moves need no room on the disk. Processes that save
into the same directory wait for each other in steps 2 to 6. Other files stay as they are.

Whoever only reads never writes: a directory that was downloaded may hold any plan. `require_finished` refuses a
directory whose save was interrupted, and only its owner finishes it, by saving again. A plan is carried out if it names
nothing but files inside of the directory, without links on the way, and if the hidden directory holds what was written,
by size and digest.
"""

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: without locks, two processes should not save into one directory at once.
    fcntl = None

from tfheads.checkpoints.names_within import is_name_within

ENTRY_FILE = "config.json"
# Every file name under which a library would look for weights; what a save does not write anew is from an older save.
WEIGHT_FILES = (
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model-?????-of-?????.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "tf_model-?????-of-?????.h5",
    "tf_model.h5.index.json",
    "flax_model.msgpack",
    "flax_model-?????-of-?????.msgpack",
    "flax_model.msgpack.index.json",
)
STAGING_PREFIX = ".tfheads-staging-"
COMMIT_DIRECTORY = ".tfheads-commit"
PLAN = "plan.json"
LONGEST_PLAN = 2**20  # bytes; a plan of a thousand files has a tenth of it


@contextlib.contextmanager
def replaced_directory(
    target: str | os.PathLike, *, entry: str = ENTRY_FILE, stale: Sequence[str] = WEIGHT_FILES
) -> Iterator[Path]:
    """A staging directory whose files replace those of `target` when the block ends well; see the module's text.

    Arguments:
        target: the directory to save into; it is made if it does not exist.
        entry: the file that a reader needs first. It is removed first and put in place last; the block must write it.
        stale: patterns of file names that belong to a checkpoint: those that the block does not write are removed from
            the target. All other files stay.

    Yields:
        The empty staging directory. Whatever the block writes there, also in subdirectories, is put in place.

    Raises:
        NotADirectoryError: `target` is a file.
        OSError: the disk is full or the directory cannot be written; nothing in it has changed.
        ValueError: the block did not write `entry`.
    """
    target = Path(target)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"Cannot save into {target}: it is a file, not a directory.")
    made: list[Path] = []
    staging = None
    committed = False
    try:
        made += _make_directories(target)
        with contextlib.ExitStack() as lock:
            with locked(target):
                _finish(target, stale)
                remove_abandoned(target)
                staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=target))
                lock.enter_context(locked(staging))
            yield staging
            plan = _make_plan(staging, target, entry, stale)
            # Made before the commit, because it needs room on the disk.
            for name in plan["files"]:
                made += _make_directories((target / name).parent)
            with locked(target):
                # Another process may have died here since this save began.
                _finish(target, stale)
                os.rename(staging, target / COMMIT_DIRECTORY)
                committed = True
                _flush_directory(target)
                _carry_out(target, plan)
    except BaseException as error:
        if committed:
            if isinstance(error, OSError):
                raise _cannot_finish(target, error) from error
            raise
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)
        if number := _full_disk(error):
            text = f"Could not save to {target}: {os.strerror(number)}; nothing that was there has changed"
            raise OSError(number, text) from error
        raise


def require_finished(target: str | os.PathLike) -> None:
    """Requires a directory in which no save was interrupted; call before reading. Nothing in it is changed.

    Raises:
        ValueError: its files are half those of an interrupted save.
    """
    commit = Path(target) / COMMIT_DIRECTORY
    if not os.path.lexists(commit / PLAN):
        return
    entry, old_entry = _entry_of(commit)
    if (commit / entry).exists() and _digest(Path(target) / entry) in (None, old_entry):
        raise ValueError(
            f"{target} holds a save that was interrupted while its files were put in place: if it is yours, "
            "save into it again or call tfheads.checkpoints.atomic.finish_interrupted_save; a download must be repeated"
        )


def finish_interrupted_save(target: str | os.PathLike, stale: Sequence[str] = WEIGHT_FILES) -> bool:
    """Completes a save into a directory of one's own whose process died half-way; returns whether there was one.

    Arguments:
        target: the directory.
        stale: patterns of file names that the save may remove; see `replaced_directory`.

    Raises:
        OSError: there was one, but the directory cannot be written.
        ValueError: what the directory holds was not written by such a save.
    """
    target = Path(target)
    if not os.path.lexists(target / COMMIT_DIRECTORY):
        return False
    try:
        with locked(target):
            return _finish(target, stale)
    except OSError as error:
        raise _cannot_finish(target, error) from error


def _cannot_finish(target: Path, error: OSError) -> OSError:
    return OSError(
        error.errno,
        f"The files of a save into {target} are complete, but could not be put in place ({error.strerror}); "
        "the next save or load does it once that is repaired",
    )


def _make_plan(staging: Path, target: Path, entry: str, stale: Sequence[str]) -> dict:
    """Checks that the commit can succeed, writes what it shall do, and flushes everything to the disk."""
    files = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if not path.is_dir())
    if entry not in files:
        raise ValueError(f"A save must write {entry!r}, but it wrote {', '.join(files) or 'nothing'}.")
    for name in files:
        # Looked at now, because after the commit a move must not fail.
        if (target / name).is_dir():
            raise IsADirectoryError(f"Cannot save the file {name!r} into {target}: a directory has that name.")
        for parent in Path(name).parents:
            if (target / parent).exists() and not (target / parent).is_dir():
                raise NotADirectoryError(f"Cannot save the file {name!r} into {target}: {str(parent)!r} is a file.")
        _flush_file(staging / name)
    old = [path.name for path in target.iterdir() if not path.is_dir() or path.is_symlink()]
    remove = sorted(name for name in old if name not in files and any(fnmatch.fnmatch(name, p) for p in stale))
    written = {name: {"size": (staging / name).stat().st_size, "sha256": _digest(staging / name)} for name in files}
    plan = {"entry": entry, "files": written, "remove": remove, "old_entry": _digest(target / entry)}
    (staging / PLAN).write_text(json.dumps(plan), encoding="utf-8")
    _flush_file(staging / PLAN)
    for directory in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
        _flush_directory(directory)
    return plan


def _finish(target: Path, stale: Sequence[str]) -> bool:
    """Steps 3 to 6 of an interrupted save, if there is one; may be repeated from any point."""
    commit = target / COMMIT_DIRECTORY
    if not os.path.lexists(commit):
        return False
    if commit.is_symlink() or not commit.is_dir():
        raise ValueError(f"{commit} must be a directory that an interrupted save left, got another file: remove it")
    if not os.path.lexists(commit / PLAN):
        shutil.rmtree(commit)  # step 6 was interrupted: there is nothing to do but to repeat it
        return False
    return _carry_out(target, _checked_plan(target, stale))


def _carry_out(target: Path, plan: dict) -> bool:
    commit, entry = target / COMMIT_DIRECTORY, plan["entry"]
    unfinished = (commit / entry).exists()
    # A new entry file that is neither ours nor the old one: another program has saved here after the crash, and wins.
    ours = _digest(target / entry) in (None, plan["old_entry"])
    if unfinished and ours:
        _remove_file(target / entry)
        _flush_directory(target)
        for name in plan["remove"]:
            _remove_file(target / name)
        for name in plan["files"]:
            if name != entry and (commit / name).exists():
                os.replace(commit / name, target / name)
        for directory in {(target / name).parent for name in plan["files"]}:
            _flush_directory(directory)
        os.replace(commit / entry, target / entry)
        _flush_directory(target)
    shutil.rmtree(commit)
    return unfinished and ours


def _entry_of(commit: Path) -> tuple[str, str | None]:
    """The entry file's name in a plan that may come from elsewhere, and the digest of the one before."""
    plan = _read_plan(commit)
    return plan["entry"], plan.get("old_entry")


def _read_plan(commit: Path) -> dict:
    wrong = ValueError(f"{commit / PLAN} is not the plan of an interrupted save: remove {commit}, or download again")
    path = commit / PLAN
    if commit.is_symlink() or path.is_symlink() or path.stat().st_size > LONGEST_PLAN:
        raise wrong
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(plan, dict) or not is_name_within(plan.get("entry")) or "/" in plan["entry"]:
        raise wrong
    return plan


def _checked_plan(target: Path, stale: Sequence[str]) -> dict:
    """The plan of an interrupted save, which names nothing outside of the target and holds what was written.

    Raises:
        ValueError: it is none that a save has written.
    """
    commit = target / COMMIT_DIRECTORY
    plan = _read_plan(commit)
    files, remove = plan.get("files"), plan.get("remove")
    if not isinstance(files, dict) or not isinstance(remove, list) or plan["entry"] not in files:
        raise ValueError(f"{commit / PLAN} is not the plan of an interrupted save: remove {commit}")
    for name in remove:
        if not (is_name_within(name) and "/" not in name and any(fnmatch.fnmatch(name, one) for one in stale)):
            raise ValueError(f"{commit / PLAN} must remove old weights of {target} alone, got {name!r}")
    for name, written in files.items():
        if not is_name_within(name) or name.split("/")[0] == COMMIT_DIRECTORY:
            raise ValueError(f"{commit / PLAN} must name files within {target}, got {name!r}")
        for parent in (base / one for base in (commit, target) for one in Path(name).parents):
            if parent not in (commit, target) and parent.is_symlink():
                raise ValueError(f"{parent} must be a directory of {target} to finish a save, got a link")
        path = commit / name
        if not os.path.lexists(path):
            continue  # it is in place already
        if path.is_symlink() or not path.is_file() or not _is_as_written(path, written):
            raise ValueError(f"{path} is not what the interrupted save wrote: remove {commit}")
    return plan


def _is_as_written(path: Path, written) -> bool:
    return (
        isinstance(written, dict)
        and written.get("size") == path.stat().st_size
        and written.get("sha256") == _digest(path)
    )


def remove_abandoned(target: Path, prefix: str = STAGING_PREFIX, age: float = 0.0) -> None:
    """Removes the staging directories of processes that died before their commit.

    Arguments:
        target: the directory that they are in.
        prefix: how their names begin.
        age: for how many seconds they must have existed.
    """
    for staging in target.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), locked(staging, wait=False):
            if time.time() - staging.stat().st_mtime >= age:
                shutil.rmtree(staging)


@contextlib.contextmanager
def locked(directory: Path, wait: bool = True) -> Iterator[None]:
    """Holds the lock of a directory, which the system releases when the process dies."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Some network file systems have no locks; without waiting, "cannot tell" must count as "in use".
            if not wait:
                raise
        yield
    finally:
        os.close(descriptor)


def _make_directories(directory: Path) -> list[Path]:
    """Makes a directory and its parents; returns those that are new, outermost first."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return missing[::-1]


def _remove_empty(directories: list[Path]) -> None:
    for directory in reversed(directories):
        with contextlib.suppress(OSError):
            directory.rmdir()


def _remove_file(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _digest(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _flush_file(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _flush_directory(directory: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush directories, and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _full_disk(error: BaseException) -> int | None:
    """The error number if an exception says that the disk, the quota or a limit is exhausted."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError):
        return error.errno if error.errno in numbers else None
    # The tokenizers and safetensors libraries report it as text only.
    found = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, Exception) else None
    return int(found[1]) if found and int(found[1]) in numbers else None
