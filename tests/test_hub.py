"""Checkpoints from and to the Hub, with the real client against a local server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from tests.fake_hub import fake_hub
from tfheads.checkpoints import hub as checkpoints_hub
from tfheads.checkpoints.hub import resolve, upload
from tfheads.checkpoints.model_card import MARK
from tfheads.checkpoints.safetensors_files import TensorSource, write_shards
from tfheads.checkpoints.tensor_files import open_tensors


@pytest.fixture
def hub():
    with fake_hub() as server:
        yield server


@pytest.fixture
def checkpoint(tmp_path):
    """A directory with a checkpoint in two shards."""
    return make_checkpoint(tmp_path / "checkpoint", shards=2)


def make_checkpoint(directory, shards=1, number=1.0):
    directory.mkdir(parents=True)
    sources = [TensorSource.of(f"layer{i}", np.full(1000, number, np.float32)) for i in range(shards)]
    write_shards(sources, directory, max_shard_size=4000)
    (directory / "config.json").write_text(json.dumps({"number": number}))
    (directory / "tokenizer.json").write_text("{}")
    return directory


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def names(directory):
    return sorted(path.name for path in Path(directory).iterdir())


def test_a_local_directory_as_it_is(checkpoint, hub):
    assert resolve(checkpoint) == str(checkpoint)
    assert hub.requests == []


def test_a_directory_wins_over_a_repository(checkpoint, hub, monkeypatch):
    hub.add("checkpoint", contents(checkpoint))
    monkeypatch.chdir(checkpoint.parent)
    assert resolve("checkpoint") == "checkpoint"
    assert hub.requests == []


def test_an_interrupted_save_is_refused_and_left_as_it_is(checkpoint):
    commit = checkpoint / ".tfheads-commit"
    commit.mkdir()
    (checkpoint / "config.json").rename(commit / "config.json")
    plan = {"entry": "config.json", "files": {"config.json": {}}, "remove": ["../mine.txt"], "old_entry": None}
    (commit / "plan.json").write_text(json.dumps(plan))
    for action in (lambda: resolve(checkpoint), lambda: upload(checkpoint, "tester/tiny")):
        with pytest.raises(ValueError, match="holds a save that was interrupted"):
            action()
    assert not (checkpoint / "config.json").exists() and (commit / "config.json").exists()


def test_links_out_of_a_directory_are_not_uploaded(checkpoint, tmp_path):
    (tmp_path / "secret").write_text("mine")
    (checkpoint / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="notes.txt is a link to .*secret"):
        upload(checkpoint, "tester/tiny")


def test_fetches_what_a_checkpoint_needs(checkpoint, hub):
    extra = {
        "README.md": "card",
        "pytorch_model.bin": b"\0old",
        "tf_model.h5": b"\0old",
        "flax_model.msgpack": b"\0old",
        "onnx/config.json": "{}",
        "merges.txt": "a b",
        "spiece.model": b"\0",
        "chat_template.jinja": "{{ messages }}",
        "modeling_custom.py": "raise SystemExit",
    }
    hub.add("someone/model", contents(checkpoint) | extra)
    directory = resolve("someone/model")
    assert names(directory) == sorted([*names(checkpoint), "merges.txt", "spiece.model", "chat_template.jinja"])
    with open_tensors(directory) as files:
        assert files.read("layer1")[0] == 1.0
    hub.requests.clear()
    assert resolve("someone/model") == directory
    assert not [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]


def test_an_old_id_without_an_organization(checkpoint, hub, capsys):
    hub.add("gpt2", contents(checkpoint))
    assert "config.json" in names(resolve("gpt2"))
    capsys.readouterr()
    resolve("gpt2")
    # Nothing to wait for, nothing to say.
    assert capsys.readouterr() == ("", "")


def test_weights_of_pytorch_only_without_safetensors(hub):
    hub.add("someone/old", {"config.json": "{}", "pytorch_model.bin": b"\0old"})
    assert names(resolve("someone/old")) == ["config.json", "pytorch_model.bin"]
    index = {"weight_map": {"a": "part-one.bin"}}
    hub.add(
        "someone/odd", {"config.json": "{}", "pytorch_model.bin.index.json": json.dumps(index), "part-one.bin": b"\0"}
    )
    assert "part-one.bin" in names(resolve("someone/odd"))


def test_shards_with_unusual_names(hub):
    index = {"weight_map": {"a": "weights-1.safetensors"}}
    files = {"model.safetensors.index.json": json.dumps(index), "weights-1.safetensors": b"\0", "x.safetensors": b"\0"}
    hub.add("someone/odd", {"config.json": "{}"} | files)
    assert names(resolve("someone/odd")) == ["config.json", "model.safetensors.index.json", "weights-1.safetensors"]


def test_a_shard_of_an_index_may_not_leave_the_directory(hub):
    index = {"weight_map": {"a": "../../secret"}}
    hub.add("someone/evil", {"config.json": "{}", "model.safetensors.index.json": json.dumps(index)})
    with pytest.raises(ValueError, match="not a plain file name"):
        resolve("someone/evil")


def test_without_weights(hub):
    hub.add("someone/empty", {"config.json": "{}"})
    with pytest.raises(FileNotFoundError, match="'someone/empty' has no weights: expected model.safetensors"):
        resolve("someone/empty")
    assert names(resolve("someone/empty", weights=False)) == ["config.json"]


def test_revisions(tmp_path, hub):
    first = make_checkpoint(tmp_path / "first", number=1.0)
    second = make_checkpoint(tmp_path / "second", number=2.0)
    repository = hub.add("someone/model", contents(first))
    hub.add("someone/model", contents(second))
    hub.add("someone/model", contents(first), branch="v1")
    for revision, number in [(None, 2.0), ("v1", 1.0), (repository.history()[1].oid, 1.0)]:
        with open_tensors(resolve("someone/model", revision=revision)) as files:
            assert files.read("layer0")[0] == number
    with pytest.raises(FileNotFoundError, match="'someone/model' has no revision 'v9'"):
        resolve("someone/model", revision="v9")


def test_cache_directory(checkpoint, hub, tmp_path):
    hub.add("someone/model", contents(checkpoint))
    assert str(tmp_path / "cache") in resolve("someone/model", cache_dir=tmp_path / "cache")
    hub.requests.clear()
    resolve("someone/model", cache_dir=tmp_path / "cache", local_files_only=True)
    assert hub.requests == []
    resolve("someone/model", cache_dir=tmp_path / "cache", force_download=True)
    assert (
        "GET",
        "/someone/model/resolve/{}/config.json".format(hub.repositories["someone/model"].branches["main"].oid),
    ) in (hub.requests)


def test_private_and_gated_repositories(checkpoint, hub):
    hub.add("someone/private", contents(checkpoint), private=True)
    hub.add("someone/gated", contents(checkpoint), gated=True)
    assert "config.json" in names(resolve("someone/private"))
    with pytest.raises(FileNotFoundError, match="'someone/private' is neither a directory here nor a repository"):
        resolve("someone/private", token=False, cache_dir=checkpoint / "cache")
    with pytest.raises(PermissionError, match="'someone/gated' is gated: ask for access"):
        resolve("someone/gated", token=False)
    assert "config.json" in names(resolve("someone/gated", token=hub.token))


def test_a_wrong_token_is_not_shown(checkpoint, hub):
    hub.add("someone/model", contents(checkpoint))
    with pytest.raises(OSError, match="someone/model") as error:
        resolve("someone/model", token="hf_wrongAndSecret")
    assert "hf_wrongAndSecret" not in str(error.value)


def test_unknown_names(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="'someone/nothing' is neither a directory here nor a repository"):
        resolve("someone/nothing")
    for path in (tmp_path / "nothing", "./nothing", "~/nothing", ""):
        with pytest.raises(FileNotFoundError, match="There is no directory"):
            resolve(path)
    for name in ("a/b/c", "two words", "-x"):
        with pytest.raises(ValueError, match="neither a directory nor the id of a repository"):
            resolve(name)


def test_without_a_network(checkpoint, hub, monkeypatch):
    hub.add("someone/model", contents(checkpoint))
    directory = resolve("someone/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert resolve("someone/model") == directory
    with pytest.raises(ConnectionError, match="'someone/other' .* because HF_HUB_OFFLINE is set"):
        resolve("someone/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ConnectionError, match="not completely in the cache, and local_files_only=True"):
        resolve("someone/other", local_files_only=True)
    assert hub.requests == []


def test_a_server_that_does_not_answer(checkpoint, hub, monkeypatch):
    hub.add("someone/model", contents(checkpoint))
    hub.fail(1000, status=500)
    with pytest.raises(ConnectionError, match="'someone/model' .*did not answer .status 500"):
        resolve("someone/model")
    hub.recover()
    directory = resolve("someone/model")
    # What is in the cache is used when the Hub is down.
    hub.fail(1000, status=None)
    assert resolve("someone/model") == directory
    hub.recover()


def test_the_environment_is_honoured(checkpoint, hub):
    """HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN and HF_HUB_OFFLINE, in a process of its own."""
    hub.add("someone/private", contents(checkpoint), private=True)
    code = "import sys; from tfheads.checkpoints.hub import resolve; print(resolve(sys.argv[1]))"

    def run(name, **environment):
        # The package itself and the card of a model are heavy to import, and not needed for this.
        stub = (
            "import sys, types; p = types.ModuleType('tfheads'); p.__path__ = ['tfheads']; sys.modules['tfheads'] = p; "
            "card = types.ModuleType('card'); card.CARD_FILE = card.is_generated = None; "
            "sys.modules['tfheads.checkpoints.model_card'] = card; "
        )
        return subprocess.run(
            [sys.executable, "-c", stub + code, name],
            env={**os.environ, **hub.environment, **environment},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
        )

    result = run("someone/private")
    assert result.stdout.strip().startswith(hub.environment["HF_HUB_CACHE"]), result.stderr
    assert hub.requests
    hub.requests.clear()
    assert run("someone/private", HF_HUB_OFFLINE="1").returncode == 0
    assert "HF_HUB_OFFLINE is set" in run("someone/other", HF_HUB_OFFLINE="1").stderr
    assert hub.requests == []


def test_upload_and_fetch_again(checkpoint, hub):
    (checkpoint / "folder").mkdir()
    (checkpoint / "folder" / "notes.txt").write_text("kept")
    for name in (".git", ".tfheads-staging-abc", ".cache"):
        (checkpoint / name).mkdir()
        (checkpoint / name / "file").write_text("left out")
    url = upload(checkpoint, "tester/new", commit_message="First", private=True)
    repository = hub.repositories["tester/new"]
    assert repository.private
    commit = repository.history()[0]
    assert url == f"{hub.endpoint}/tester/new/commit/{commit.oid}"
    assert commit.title == "First"
    assert set(commit.files) == {*names_of_uploads(checkpoint), ".gitattributes"}
    with open_tensors(resolve("tester/new")) as files:
        assert files.read("layer0")[0] == 1.0


def names_of_uploads(directory):
    return [name for name in contents(directory) if not name.startswith(".")]


def test_a_second_upload_is_one_commit_and_removes_old_weights(checkpoint, hub, tmp_path):
    upload(checkpoint, "tester/model")
    files = hub.files("tester/model") | {"pytorch_model.bin": b"\0old", "notes.txt": b"mine"}
    hub.repositories["tester/model"].commit("by hand", files)
    upload(make_checkpoint(tmp_path / "second", number=2.0), "tester/model")
    history = hub.repositories["tester/model"].history()
    assert len(history) == 4
    kept = {".gitattributes", "notes.txt", "config.json", "tokenizer.json", "model.safetensors"}
    assert set(history[0].files) == kept
    upload(tmp_path / "second", "tester/model")
    assert len(hub.repositories["tester/model"].history()) == 4


def test_large_files_are_sent_once(tmp_path, hub):
    hub.large = 1000
    directory = make_checkpoint(tmp_path / "model")
    upload(directory, "tester/model")
    assert len([path for method, path in hub.requests if method == "PUT"]) == 1
    (directory / "config.json").write_text('{"number": 1.0, "more": 1}')
    upload(directory, "tester/model")
    assert len([path for method, path in hub.requests if method == "PUT"]) == 1


def test_a_name_alone_is_ones_own(checkpoint, hub):
    assert "/tester/short/commit/" in upload(checkpoint, "short")


def test_branches_and_pull_requests(checkpoint, hub):
    upload(checkpoint, "tester/model", revision="experiment")
    assert "config.json" in hub.files("tester/model", "experiment")
    assert "config.json" not in hub.files("tester/model")
    upload(checkpoint, "tester/model", revision="experiment")
    url = upload(checkpoint, "tester/model", create_pr=True)
    assert url == f"{hub.endpoint}/tester/model/discussions/1"
    assert "config.json" in hub.files("tester/model", "refs/pr/1")
    assert "config.json" not in hub.files("tester/model")


def test_a_card_by_hand_stays_on_the_hub(checkpoint, hub):
    upload(checkpoint, "tester/model")
    (checkpoint / "README.md").write_text(f"{MARK} first")
    upload(checkpoint, "tester/model")
    (checkpoint / "README.md").write_text(f"{MARK} second")
    upload(checkpoint, "tester/model")
    assert hub.files("tester/model")["README.md"].endswith(b"second")
    files = hub.files("tester/model") | {"README.md": b"by hand"}
    hub.repositories["tester/model"].commit("by hand", files)
    (checkpoint / "README.md").write_text(f"{MARK} third")
    upload(checkpoint, "tester/model")
    assert hub.files("tester/model")["README.md"] == b"by hand"
    hub.fail(1000, status=503, path="README.md")
    with pytest.raises(ConnectionError):
        upload(checkpoint, "tester/model", revision="other")
    hub.recover()
    (checkpoint / "README.md").write_text("mine")
    upload(checkpoint, "tester/model")
    assert hub.files("tester/model")["README.md"] == b"mine"


def test_a_bad_card_is_refused_before_anything_is_sent(checkpoint, hub):
    (checkpoint / "README.md").write_text("---\nbase_model: /home/me\n---\n")
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        upload(checkpoint, "tester/model")
    assert "config.json" not in hub.files("tester/model")


def test_uploads_that_fail(checkpoint, hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no directory"):
        upload(tmp_path / "nothing", "tester/model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="nothing to upload"):
        upload(tmp_path / "empty", "tester/model")
    with pytest.raises(ValueError, match="'a/b/c' is neither"):
        upload(checkpoint, "a/b/c")
    with pytest.raises(PermissionError, match="does not accept the token for 'tester/model'"):
        upload(checkpoint, "tester/model", token="hf_wrong")
    with pytest.raises(PermissionError, match="'forbidden/model' .status 403"):
        upload(checkpoint, "forbidden/model")
    assert hub.repositories == {}
    upload(checkpoint, "tester/model")
    (checkpoint / "config.json").write_text("changed")
    hub.fail(1, status=500, path="/commit/")
    with pytest.raises(ConnectionError, match="answered 'tester/model' with status 500"):
        upload(checkpoint, "tester/model")
    hub.fail(1, status=None, path="/commit/")
    with pytest.raises(ConnectionError, match="could not be reached for 'tester/model'"):
        upload(checkpoint, "tester/model")
    assert hub.files("tester/model")["config.json"] != b"changed"
    upload(checkpoint, "tester/model")
    assert hub.files("tester/model")["config.json"] == b"changed"


def test_not_logged_in(checkpoint):
    with fake_hub(logged_in=False) as hub:
        hub.add("someone/model", contents(checkpoint))
        assert "config.json" in names(resolve("someone/model"))
        with pytest.raises(PermissionError, match="does not accept the token"):
            upload(checkpoint, "tester/model")


def test_a_failure_in_the_middle_of_a_large_upload(tmp_path, hub, monkeypatch):
    hub.large = 1000
    hub.fail(1, status=400, path="/lfs/")
    with pytest.raises(ConnectionError, match="status 400"):
        upload(make_checkpoint(tmp_path / "model"), "tester/model")
    assert "config.json" not in hub.files("tester/model")
    assert checkpoints_hub.constants is constants
