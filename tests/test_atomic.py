"""Saving into a directory: killed at any step or out of room, it holds the old checkpoint or the new one."""

import errno
import json
import os
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.quick_cases import slow_but_these
from tfheads.checkpoints import atomic, hub
from tfheads.checkpoints.atomic import finish_interrupted_save, replaced_directory, require_finished
from tfheads.checkpoints.safetensors_files import TensorSource, write_shards
from tfheads.checkpoints.tensor_files import open_tensors


def save(target, number, shards=1, entry="config.json"):
    """A checkpoint whose every file says which save it is from."""
    with replaced_directory(target, entry=entry) as staging:
        names = [f"layer{i}" for i in range(shards)]
        sources = [TensorSource.of(name, np.full(100, number, np.float32)) for name in names]
        write_shards(sources, staging, max_shard_size=400)
        (staging / "templates").mkdir()
        (staging / "templates" / "chat.jinja").write_text(str(number))
        (staging / entry).write_text(json.dumps({"number": number, "layers": shards}))


def load(target):
    """The number of the checkpoint, None if it does not load, an AssertionError if it is a mixture."""
    try:
        config = json.loads((target / "config.json").read_text())
    except FileNotFoundError:
        return None
    with open_tensors(target) as files:
        assert len(files) == config["layers"]
        numbers = {float(files.read(name)[0]) for name in files.names()}
    assert numbers == {config["number"]}
    assert (target / "templates" / "chat.jinja").read_text() == str(config["number"])
    return config["number"]


def visible(target):
    return sorted(path.name for path in target.iterdir())


@pytest.fixture
def old(tmp_path):
    """A directory with a checkpoint in three shards and files of the user."""
    target = tmp_path / "checkpoint"
    save(target, 1, shards=3)
    (target / ".git").mkdir()
    (target / ".git" / "HEAD").write_text("main")
    (target / "tokenizer.json").write_text("{}")
    (target / "notes.txt").write_text("mine")
    return target


USERS_FILES = [".git", "notes.txt", "tokenizer.json"]


def test_a_new_directory(tmp_path):
    target = tmp_path / "a" / "b"
    save(target, 1)
    assert load(target) == 1
    assert visible(target) == ["config.json", "model.safetensors", "templates"]


def test_old_weights_go_and_other_files_stay(old):
    save(old, 2)
    assert load(old) == 2
    assert visible(old) == sorted([*USERS_FILES, "config.json", "model.safetensors", "templates"])
    assert (old / "notes.txt").read_text() == "mine"
    (old / "pytorch_model.bin").write_text("old")
    save(old, 3, shards=2)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert visible(old) == sorted([*USERS_FILES, *shards, "model.safetensors.index.json", "config.json", "templates"])
    assert load(old) == 3


# Every call by which atomic.py changes or flushes the disk, directly or through pathlib and shutil.
CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")


def killed_at(step, action):
    """Runs an action in a process that dies before its call number `step` changes the disk; whether it died."""
    child = os.fork()
    if child == 0:
        count = 0

        def wrap(function):
            def call(*arguments, **keywords):
                nonlocal count
                count += 1
                if count == step:
                    os._exit(77)
                return function(*arguments, **keywords)

            return call

        try:
            for name in CALLS:
                setattr(os, name, wrap(getattr(os, name)))
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 77)
    return status == 77


def copy(directory, to):
    if to.exists():
        shutil.rmtree(to)
    return Path(shutil.copytree(directory, to, symlinks=True))


@pytest.mark.parametrize("shards", slow_but_these([1], [1, 2]))
def test_killed_at_every_step(old, tmp_path, shards):
    before, after, step = set(), set(), 1
    while True:
        target = copy(old, tmp_path / "killed")
        died = killed_at(step, lambda target=target: save(target, 2, shards=shards))
        state = load(target)
        before.add(state)
        if 2 not in after and (target / atomic.COMMIT_DIRECTORY / atomic.PLAN).exists():
            # The save has just happened: kills while it is completed change nothing about that.
            again = 1
            while killed_at(again, lambda target=target: finish_interrupted_save(target)):
                assert load(target) in (state, None, 2)
                again += 1
        finish_interrupted_save(target)
        assert load(target) in (1, 2)
        after.add(load(target))
        # The next save cleans up.
        save(target, 3)
        assert load(target) == 3
        assert visible(target) == sorted([*USERS_FILES, "config.json", "model.safetensors", "templates"])
        if not died:
            break
        step += 1
    assert step > 15
    assert before == {1, None, 2}
    assert after == {1, 2}


@pytest.mark.slow
def test_killed_at_every_step_in_a_new_directory(tmp_path):
    step, died = 1, True
    while died:
        target = tmp_path / f"new{step}"
        died = killed_at(step, lambda target=target: save(target, 2))
        if target.exists():
            finish_interrupted_save(target)
            assert load(target) in (None, 2)
        save(target, 3)
        assert load(target) == 3
        step += 1
    assert step > 10


def test_an_exception_changes_nothing(old):
    files = visible(old)
    with pytest.raises(RuntimeError, match="mine"), replaced_directory(old) as staging:
        (staging / "config.json").write_text("{}")
        raise RuntimeError("mine")
    assert visible(old) == files
    assert load(old) == 1


@pytest.mark.parametrize("call", ["replace", "unlink", "rename", "fsync"])
def test_a_failing_disk(old, tmp_path, monkeypatch, call):
    """The same steps, but the call fails with an error instead of killing the process."""
    step, failed = 1, True
    while failed:
        target = copy(old, tmp_path / "failing")
        count = 0
        original = getattr(os, call)

        def failing(*arguments, step=step, original=original, **keywords):
            nonlocal count
            count += 1
            if count == step:
                raise OSError(errno.EIO, "Input/output error")
            return original(*arguments, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                save(target, 2)
                failed = False
            except OSError as error:
                assert "put in place" in str(error) or load(target) == 1
        finish_interrupted_save(target)
        assert load(target) in (1, 2)
        step += 1
    assert load(target) == 2


def test_a_full_disk(old):
    """A limit on the size of files, which the kernel enforces in the same way as a full disk."""
    files = visible(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(OSError, match="Could not save to .* nothing that was there has changed") as error:
            save(old, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert visible(old) == files
    assert load(old) == 1


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), Exception("No space left on device (os error 28)")],
)
def test_no_space_left(old, tmp_path, failure):
    files = visible(old)
    for target in (old, tmp_path / "new" / "one"):
        with pytest.raises(OSError, match="No space left on device; nothing") as error, replaced_directory(target):
            raise failure
        assert error.value.errno == errno.ENOSPC
    assert visible(old) == files
    assert not (tmp_path / "new").exists()


def test_bad_targets(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file, not a directory"), replaced_directory(tmp_path / "file"):
        pass
    wrong = pytest.raises(ValueError, match=r"must write 'config.json', but it wrote a\.txt")
    with wrong, replaced_directory(tmp_path / "new") as staging:
        (staging / "a.txt").write_text("")
    assert not (tmp_path / "new").exists()
    (tmp_path / "target" / "config.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"'config.json' into .*: a directory has that name"):
        save(tmp_path / "target", 1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "templates").write_text("a file")
    with pytest.raises(NotADirectoryError, match="'templates' is a file"):
        save(tmp_path / "other", 1)
    assert visible(tmp_path / "other") == ["templates"]


@pytest.mark.slow
def test_another_program_saved_after_the_crash(old):
    """What was saved last wins; the interrupted save does not come back over it."""
    step = 1
    while True:
        assert killed_at(step, lambda: save(old, 2, shards=2))
        if load(old) is None:
            break
        step += 1
    (old / "config.json").write_text(json.dumps({"number": 9, "layers": 1}))
    for path in old.glob("model*"):
        path.unlink()
    write_shards([TensorSource.of("layer0", np.full(100, 9, np.float32))], old)
    (old / "templates" / "chat.jinja").write_text("9")
    assert not finish_interrupted_save(old)
    assert load(old) == 9
    assert not (old / atomic.COMMIT_DIRECTORY).exists()


def test_a_save_does_not_remove_the_staging_of_another(tmp_path):
    with replaced_directory(tmp_path) as first:
        (first / "config.json").write_text("1")
        save(tmp_path, 2)
        assert first.is_dir()
    assert (tmp_path / "config.json").read_text() == "1"


def test_links_are_replaced_not_followed(tmp_path):
    """As in the cache of the Hub, where names are links to shared files."""
    blob = tmp_path / "blob"
    blob.write_text("shared")
    target = tmp_path / "snapshot"
    target.mkdir()
    (target / "config.json").symlink_to(blob)
    (target / "model-00001-of-00009.safetensors").symlink_to(tmp_path / "gone")
    save(target, 1)
    assert load(target) == 1
    assert blob.read_text() == "shared"
    assert visible(target) == ["config.json", "model.safetensors", "templates"]


def test_nothing_to_finish(tmp_path):
    assert not finish_interrupted_save(tmp_path)
    assert not finish_interrupted_save(tmp_path / "nowhere")
    assert sys.platform != "win32"


HOSTILE = {
    "removes what lies outside": {"remove": ["../mine.txt"]},
    "removes an absolute path": {"remove": ["/etc/hostname"]},
    "removes the user's own file": {"remove": ["notes.txt"]},
    "writes outside": {"files": {"../settings": None}},
    "writes into the plan's own directory": {"files": {f"{atomic.COMMIT_DIRECTORY}/plan.json": None}},
    "writes an absolute path": {"files": {"/settings": None}},
    "has another entry": {"entry": "../config.json"},
    "has files without digests": {"files": ["config.json"]},
    "has a file that was changed": {"files": {"config.json": {"size": 2, "sha256": "0" * 64}}},
    "is no object": None,
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_plan_from_elsewhere_changes_nothing(old, change):
    """Neither a reader nor a save carries it out, and nothing inside or outside of the directory changes."""
    (old.parent / "mine.txt").write_text("mine")
    commit = old / atomic.COMMIT_DIRECTORY
    commit.mkdir()
    (old / "config.json").rename(commit / "config.json")
    written = {"size": (commit / "config.json").stat().st_size, "sha256": atomic._digest(commit / "config.json")}
    plan = {"entry": "config.json", "files": {"config.json": written}, "remove": [], "old_entry": None}
    if change and isinstance(change.get("files"), dict) and "config.json" not in change["files"]:
        change = {**change, "files": {**change["files"], "config.json": written}}
    (commit / atomic.PLAN).write_text(json.dumps(None if change is None else {**plan, **change}))
    before = {path: path.read_bytes() for path in old.parent.rglob("*") if path.is_file()}
    for action in (
        lambda: require_finished(old),
        lambda: hub.resolve(old),
        lambda: finish_interrupted_save(old),
        lambda: save(old, 2),
    ):
        with pytest.raises(ValueError):
            action()
        assert {path: path.read_bytes() for path in old.parent.rglob("*") if path.is_file()} == before


def test_a_reader_refuses_half_a_save_and_its_owner_finishes_it(old):
    step = 1
    while True:
        assert killed_at(step, lambda: save(old, 2))
        if load(old) is None:
            break
        step += 1
    before = visible(old)
    with pytest.raises(ValueError, match="holds a save that was interrupted while its files were put in place"):
        hub.resolve(old)
    assert visible(old) == before
    assert finish_interrupted_save(old)
    assert hub.resolve(old) == str(old)
    assert load(old) == 2


@pytest.mark.parametrize("linked", [atomic.COMMIT_DIRECTORY, "templates"])
def test_no_save_is_finished_through_links(old, tmp_path, linked):
    step = 1
    while True:
        assert killed_at(step, lambda: save(old, 2))
        if load(old) is None:
            break
        step += 1
    elsewhere = tmp_path / "elsewhere"
    (old / linked).rename(elsewhere)
    (old / linked).symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"{linked}.* must be a directory"):
        finish_interrupted_save(old)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
