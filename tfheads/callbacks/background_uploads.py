"""Uploads of saved models while the training goes on: one at a time, always the newest."""

import atexit
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from tfheads.callbacks.wandb import RUN_FILE
from tfheads.checkpoints import hub

logger = logging.getLogger("tfheads")

SNAPSHOT_PREFIX = ".tfheads-upload-"
NOT_UPLOADED = ("wandb", "runs", "logs", RUN_FILE)  # of the trackers: who goes on elsewhere has other runs


class BackgroundUploads:
    """Uploads directories to one repository of the Hub in a thread of its own.

    A directory is kept as it was when it was submitted: its weights by hard links, which a later save does not touch
    because it replaces files and never writes into them.

    Args:
        repo_id: id of the repository.
        token, private: as in `tfheads.checkpoints.hub.upload`.
        checkpoints: whether `checkpoint-...` directories are uploaded too.
    """

    def __init__(self, repo_id: str, token=None, private: bool | None = None, checkpoints: bool = False):
        self.repo_id = repo_id
        self.token = token
        self.private = private
        self.checkpoints = checkpoints
        self.commit_url: str | None = None
        self.failed = False
        self._said: str | None = None
        self._pending: tuple[Path, str] | None = None
        self._busy = False
        self._registered = False
        self._changed = threading.Condition()

    def submit(self, directory: Path, message: str) -> None:
        """Has a directory uploaded as it is now; one that still waits is dropped in its favour."""
        snapshot = self._snapshot(Path(directory))
        with self._changed:
            if self._pending is not None:
                shutil.rmtree(self._pending[0], ignore_errors=True)
            self._pending = (snapshot, message)
            if not self._busy:
                self._busy = True
                if not self._registered:
                    self._registered = True
                    _before_exit(self.wait)
                threading.Thread(target=self._run, name="tfheads-upload", daemon=True).start()

    def wait(self) -> None:
        """Returns when nothing is left to upload; shows that it waits."""
        description = f"Uploading to {self.repo_id}"
        with tqdm(desc=description, bar_format="{desc}: {elapsed}", delay=1, leave=False) as progress, self._changed:
            while self._busy:
                self._changed.wait(0.5)
                progress.update()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._pending is None:
                    self._busy = False
                    self._changed.notify_all()
                    return
                (snapshot, message), self._pending = self._pending, None
            try:
                self.commit_url = hub.upload(
                    snapshot, self.repo_id, commit_message=message, token=self.token, private=self.private
                )
                self.failed, self._said = False, None
            except Exception as error:  # whatever the network does, the training goes on
                self.failed = True
                self._say(f"{type(error).__name__}: {' '.join(str(error).split())}")
            finally:
                shutil.rmtree(snapshot, ignore_errors=True)

    def _say(self, text: str) -> None:
        if text != self._said:
            logger.warning("the upload to %s failed and is tried again at the next save: %s", self.repo_id, text)
        self._said = text

    def _snapshot(self, directory: Path) -> Path:
        for path in directory.glob(f"{SNAPSHOT_PREFIX}*"):  # of a program that was killed while it uploaded
            if not _is_alive(int(path.name.removeprefix(SNAPSHOT_PREFIX).partition("-")[0])):
                shutil.rmtree(path, ignore_errors=True)
        snapshot = Path(tempfile.mkdtemp(prefix=f"{SNAPSHOT_PREFIX}{os.getpid()}-", dir=directory))
        try:
            self._fill(snapshot, directory)
        except OSError:  # a full disk, which half a snapshot would keep full
            shutil.rmtree(snapshot, ignore_errors=True)
            raise
        return snapshot

    def _fill(self, snapshot: Path, directory: Path) -> None:
        for path in _files(directory):
            relative = path.relative_to(directory)
            if not path.is_file() or not self._is_wanted(relative):
                continue
            target = snapshot / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".safetensors":
                _link(path, target)
            else:
                shutil.copyfile(path, target)

    def _is_wanted(self, relative: Path) -> bool:
        top = relative.parts[0]
        if any(part.startswith(".") for part in relative.parts) or ".tfevents." in relative.name:
            return False
        if len(relative.parts) > 1 and top.startswith("checkpoint-"):
            return self.checkpoints
        return top not in NOT_UPLOADED


def _files(directory: Path) -> Iterator[Path]:
    """All files, but for those in hidden folders, which another thread may remove at this moment."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, target)


def _before_exit(function) -> None:
    """Has `function` called when the program ends, while threads can still be started: an upload starts some."""
    register = getattr(threading, "_register_atexit", None)
    try:
        (register or atexit.register)(function)
    except RuntimeError:  # the program is ending already
        function()
