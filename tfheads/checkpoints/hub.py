"""Checkpoints from and to the Hugging Face Hub, through huggingface_hub.

The address of the Hub (HF_ENDPOINT), offline mode (HF_HUB_OFFLINE), the cache (HF_HOME, HF_HUB_CACHE), the saved token
and proxies are those of huggingface_hub. A checkpoint is fetched without its copies in other formats, and uploaded in
one commit.
"""

import fnmatch
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm, validate_repo_id

from tfheads.checkpoints.atomic import (
    ENTRY_FILE,
    WEIGHT_FILES,
    require_finished,
)
from tfheads.checkpoints.model_card import CARD_FILE, is_generated
from tfheads.checkpoints.safetensors_files import SafetensorsFiles
from tfheads.checkpoints.tensor_files import read_index
from tfheads.checkpoints.torch_files import TorchFiles

# Configurations, tokenizers and templates; `*` also matches "/", so files in folders are excluded apart.
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.spm", "*.bpe", "*.jinja", "*.tiktoken")
SAFETENSORS = (SafetensorsFiles.single_name, "model-*.safetensors")
TORCH = (TorchFiles.single_name, "pytorch_model-*.bin")
NOT_UPLOADED = (".tfheads-*", ".git/*", ".cache/*", "*.lock", "__pycache__/*")


class DelayedProgress(tqdm):
    """The client's progress bar, which only appears when there is something to wait for."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **({"delay": 2} | options))


def resolve(
    name_or_path: str | os.PathLike,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    weights: bool = True,
) -> str:
    """The directory of a checkpoint: a local one as it is, or one of the Hub after it has been fetched into the cache.

    Arguments:
        name_or_path: a directory, or the id of a repository such as "gpt2" or "organization/name". A directory wins.
        revision: branch, tag or commit on the Hub.
        token: access token; True takes the saved one, False none at all.
        cache_dir: cache directory in place of the usual one.
        local_files_only: use the cache only.
        force_download: fetch again what is in the cache.
        weights: also fetch the weights: safetensors if there are any, otherwise `pytorch_model.bin`.

    Raises:
        FileNotFoundError: there is no such directory, repository or revision, or it has no weights.
        PermissionError: the repository is gated, or the token is not accepted.
        ConnectionError: the Hub cannot be reached, or must not be, and the cache does not have the checkpoint.
        ValueError: neither a directory nor a possible id.
    """
    path = Path(name_or_path).expanduser()
    if os.fspath(name_or_path) and path.is_dir():
        require_finished(path)
        return str(path)
    name = _repository_id(name_or_path)
    options = {
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "force_download": force_download,
    }
    with _plain_errors(name, revision, token):
        directory = _fetch(name, SMALL_FILES + (SAFETENSORS if weights else ()), options)
        if weights and not SafetensorsFiles.exists_in(directory):
            _fetch(name, TORCH, options)
        if weights:
            _fetch_named_shards(name, directory, options)
    if weights and not (SafetensorsFiles.exists_in(directory) or TorchFiles.exists_in(directory)):
        raise FileNotFoundError(
            f"The repository {name!r} has no weights: expected {SafetensorsFiles.single_name}, "
            f"{SafetensorsFiles.index_name()}, {TorchFiles.single_name} or {TorchFiles.index_name()}."
        )
    return directory


def fetch_folders(name_or_path: str, patterns: Sequence[str], **options) -> None:
    """Fetches files in folders of a repository, which `resolve` leaves out, to where `resolve` put the others.

    Arguments:
        name_or_path: the id of a repository; nothing is done for a directory.
        patterns: of paths, such as "*/config.json".
        options: `revision`, `token` and others of `resolve`.

    Raises:
        As `resolve`.
    """
    if not Path(name_or_path).expanduser().is_dir():
        name = _repository_id(name_or_path)
        with _plain_errors(name, options.get("revision"), options.get("token")):
            _fetch(name, patterns, options, ignored=())


def upload(
    directory: str | os.PathLike,
    repo_id: str,
    *,
    commit_message: str = "Upload model",
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    ignore_patterns: Sequence[str] = (),
) -> str:
    """Uploads a directory to a model repository of the Hub, in one commit; makes the repository if there is none.

    The repository never shows a new config.json with old weights: files are sent first and appear together. Weights
    there that belong to an older save are removed by the same commit. Files that are there already are not sent again,
    and a README.md that somebody wrote there is not replaced by one that tfheads made.

    Arguments:
        directory: what to upload, with its subdirectories, but without `.git` and unfinished saves.
        repo_id: "organization/name", or a name alone for a repository of one's own.
        commit_message: title of the commit.
        commit_description: text below the title.
        private: whether a new repository is private; None takes the default of the organization.
        token: access token; True or None takes the saved one.
        revision: the branch to commit to; it is made if it does not exist.
        create_pr: open a pull request in place of changing the branch.
        ignore_patterns: patterns of further paths to leave out.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        FileNotFoundError: the directory does not exist or is empty, or the repository cannot be made.
        PermissionError: no token, or one that may not write there.
        ConnectionError: the Hub cannot be reached.
        ValueError: an impossible id, or a model card that the Hub does not accept.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"There is no directory {directory} to upload.")
    require_finished(directory)
    paths = _files_to_upload(directory, (*NOT_UPLOADED, *ignore_patterns))
    if not paths:
        raise FileNotFoundError(f"There is nothing to upload in {directory}.")
    name = _repository_id(repo_id)
    with _plain_errors(name, revision, token):
        api = HfApi(token=token, library_name="tfheads")
        name = api.create_repo(name, private=private, exist_ok=True).repo_id
        if revision is not None and not create_pr:
            api.create_branch(name, branch=revision, exist_ok=True)
        if _keeps_card(api, name, revision, directory):
            paths.remove(CARD_FILE)
        operations = [CommitOperationAdd(path, directory / path) for path in paths]
        operations += _old_weights(api, name, revision, paths)
        commit = api.create_commit(
            name,
            operations,
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )
    return commit.pr_url or commit.commit_url


def _repository_id(name: str | os.PathLike) -> str:
    text = os.fspath(name)
    if not isinstance(text, str) or not text or text.startswith((".", "/", "~")) or os.path.isabs(text):
        raise FileNotFoundError(f"There is no directory {text!r}.")
    try:
        validate_repo_id(text)
    except HFValidationError:
        raise ValueError(
            f"{text!r} is neither a directory nor the id of a repository on the Hub, such as 'organization/name'."
        ) from None
    return text


def _fetch(name: str, patterns: Sequence[str], options: dict, ignored: Sequence[str] = ("*/*",)) -> str:
    arguments = {
        "allow_patterns": list(patterns),
        "ignore_patterns": list(ignored),
        "library_name": "tfheads",
        "tqdm_class": DelayedProgress,
    }
    try:
        return snapshot_download(name, **arguments, **options)
    except Exception as error:
        if not _is_connection_error(error):
            raise
        # The client turns to its cache only for some of the ways in which a connection fails.
        try:
            return snapshot_download(name, **arguments, **(options | {"local_files_only": True}))
        except LocalEntryNotFoundError:
            raise error from None


def _fetch_named_shards(name: str, directory: str, options: dict) -> None:
    """Fetches shards whose names are not the usual ones."""
    for files in (SafetensorsFiles, TorchFiles):
        index = Path(directory, files.index_name())
        if not index.is_file() or Path(directory, files.single_name).is_file():
            continue
        missing = sorted({shard for shard in read_index(index).values() if not Path(directory, shard).exists()})
        if missing and (files is SafetensorsFiles or not SafetensorsFiles.exists_in(directory)):
            _fetch(name, missing, options)


def _files_to_upload(directory: Path, ignored: Sequence[str]) -> list[str]:
    paths = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory).as_posix()
        if path.is_file() and not any(_matches(relative, pattern) for pattern in ignored):
            if not path.resolve().is_relative_to(directory.resolve()):
                raise ValueError(f"files to upload must lie in {directory}, {relative} is a link to {path.resolve()}")
            paths.append(relative)
    return paths


def _matches(path: str, pattern: str) -> bool:
    return fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(path, f"*/{pattern}")


def _keeps_card(api: HfApi, name: str, revision: str | None, directory: Path) -> bool:
    """Whether the repository has a model card by another hand, which a card made by tfheads must not replace."""
    new = directory / CARD_FILE
    if not new.is_file() or not is_generated(new.read_text(encoding="utf-8", errors="replace")):
        return False
    try:
        old = api.hf_hub_download(name, CARD_FILE, revision=revision)
    except RemoteEntryNotFoundError:
        return False
    return not is_generated(Path(old).read_text(encoding="utf-8", errors="replace"))


def _old_weights(api: HfApi, name: str, revision: str | None, paths: Sequence[str]) -> list[CommitOperationDelete]:
    """Removals of the weights that an older save left in the repository, if the upload brings a whole checkpoint."""
    if ENTRY_FILE not in paths or not any(fnmatch.fnmatch(path, "*.safetensors") for path in paths):
        return []
    there = [path for path in api.list_repo_files(name, revision=revision) if path not in paths]
    return [
        CommitOperationDelete(path)
        for path in there
        if any(fnmatch.fnmatch(path, pattern) for pattern in WEIGHT_FILES if not pattern.startswith(("tf_", "flax_")))
    ]


@contextmanager
def _plain_errors(name: str, revision: str | None, token: str | bool | None) -> Iterator[None]:
    """Turns the errors of huggingface_hub into one sentence each."""
    try:
        yield
    except Exception as error:
        # The client wraps what went wrong with one of several files.
        inner = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        plain = _plain_error(inner, name, revision, token)
        if plain is None:
            raise
        raise plain from error


def _plain_error(error: Exception, name: str, revision: str | None, token: str | bool | None) -> Exception | None:
    endpoint = constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return PermissionError(
            f"The repository {name!r} is gated: ask for access on {endpoint}/{name} and pass a token that has it."
        )
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(f"The repository {name!r} has no revision {revision!r}.")
    if isinstance(error, RepositoryNotFoundError):
        return FileNotFoundError(
            f"{name!r} is neither a directory here nor a repository on {endpoint} that "
            f"{'this token' if token else 'you'} can see (a private one needs a token with access to it)."
        )
    if isinstance(error, LocalTokenNotFoundError):
        return PermissionError(f"There is no saved token for {endpoint}: log in with `hf auth login` or pass one.")
    if isinstance(error, OfflineModeIsEnabled | IncompleteSnapshotError | LocalEntryNotFoundError):
        return ConnectionError(_not_cached(name, revision, error))
    if isinstance(error, HfHubHTTPError):
        return _http_error(name, error)
    if isinstance(error, HFValidationError):
        return ValueError(f"{name!r} is not the id of a repository on the Hub, such as 'organization/name'.")
    if _is_connection_error(error):
        return ConnectionError(f"{endpoint} could not be reached for {name!r} ({type(error).__name__}).")
    return None


def _is_connection_error(error: Exception) -> bool:
    # The client's errors of connections and time limits come from a module that is not public.
    module = type(error).__module__
    return module.startswith(("httpx", "httpcore")) or isinstance(error, ConnectionError | TimeoutError)


def _not_cached(name: str, revision: str | None, error: Exception) -> str:
    what = f"{name!r}" if revision is None else f"{name!r} (revision {revision!r})"
    if constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled):
        return f"{what} is not a directory, and the Hub may not be asked because HF_HUB_OFFLINE is set."
    cause = error.__cause__
    if cause is None:
        return (
            f"{what} is not a directory and not completely in the cache, and local_files_only=True forbids to fetch it."
        )
    reason = f"status {cause.response.status_code}" if isinstance(cause, HfHubHTTPError) else type(cause).__name__
    return f"{what} is not a directory and not in the cache, and {constants.ENDPOINT} did not answer ({reason})."


def _http_error(name: str, error: HfHubHTTPError) -> OSError:
    status = error.response.status_code
    said = f": {error.server_message}" if error.server_message else ""
    if status in (401, 403):
        return PermissionError(
            f"{constants.ENDPOINT} does not accept the token for {name!r} (status {status}){said.rstrip('.')}."
        )
    return ConnectionError(f"{constants.ENDPOINT} answered {name!r} with status {status}{said.rstrip('.')}.")
