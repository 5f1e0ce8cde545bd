"""A small Hugging Face Hub on a local port, for tests that use the real huggingface_hub client.

    with fake_hub() as hub:
        hub.add("someone/model", {"config.json": "{}", "model.safetensors": b"..."})
        huggingface_hub.snapshot_download("someone/model")              # comes from this server
        huggingface_hub.HfApi().create_repo("me/new")                    # with hub.token, which is the saved one
        hub.files("me/new")                                              # {path: bytes} of the branch "main"
        hub.repositories["me/new"].history()                             # commits, newest first: .title, .files, .oid
        hub.fail(3, status=503)                                          # the next three requests fail
        hub.fail(1, status=None, path="/commit/")                        # drops the connection of the next commit
        hub.requests                                                     # [("POST", "/api/repos/create"), ...]

While the context is open, the client of this process talks to the server: the constants of huggingface_hub and the
environment are changed, and changed back afterwards. The cache is in a temporary directory and the transfers are plain
HTTP (Xet is off). A process that a test starts needs `env={**os.environ, **hub.environment}`. Large files (those that
are not text, or have more than `large` bytes) go through the LFS protocol, as on the Hub. Supported are: models and
datasets, create and delete a repository, branches, preupload, LFS, commit, pull requests, model and tree information,
HEAD and GET of files with ranges, private and gated repositories, tokens.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import os
import re
import socket
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants, hf_api
from huggingface_hub.utils import _http

USER = "tester"
TOKEN = "hf_fakeTokenOfTheTests"


@dataclass
class Commit:
    """One state of a repository."""

    oid: str
    title: str
    files: dict[str, bytes]
    description: str = ""
    parent: "Commit | None" = None


@dataclass
class Repository:
    """A repository: `branches` also holds pull requests, as "refs/pr/1"."""

    name: str
    private: bool = False
    gated: bool = False
    branches: dict[str, Commit] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, bytes], branch: str = "main", description: str = "") -> Commit:
        """Adds a commit with exactly these files."""
        parent = self.branches.get(branch)
        seed = json.dumps([self.name, title, branch, parent and parent.oid, sorted(files)]).encode()
        commit = Commit(hashlib.sha1(seed).hexdigest(), title, files, description, parent)
        self.branches[branch] = commit
        return commit

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, or with an id."""
        if revision in self.branches:
            return self.branches[revision]
        every = (commit for branch in self.branches for commit in self.history(branch))
        return next((commit for commit in every if commit.oid.startswith(revision)), None)

    def history(self, branch: str = "main") -> list[Commit]:
        """The commits of a branch, newest first."""
        commits, commit = [], self.branches.get(branch)
        while commit is not None:
            commits.append(commit)
            commit = commit.parent
        return commits


@dataclass
class Failure:
    count: int
    status: int | None
    path: str
    method: str | None


class FakeHub:
    """The server's state; see the text of the module."""

    def __init__(self, large: int):
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.token = TOKEN
        self.large = large
        self.endpoint = ""
        self.environment: dict[str, str] = {}
        self.stored: dict[str, bytes] = {}
        self.errors: list[Exception] = []
        self._failures: list[Failure] = []
        self._lock = threading.RLock()
        self._pull_requests = itertools.count(1)

    def add(
        self, name: str, files: dict[str, str | bytes], *, branch: str = "main", private=False, gated=False
    ) -> Repository:
        """Makes a repository, or adds a commit to it, with these files."""
        repository = self.repositories.setdefault(name, Repository(name, private, gated))
        encoded = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        repository.commit("initial commit", encoded, branch)
        return repository

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """The files of a branch."""
        return self.repositories[name].branches[branch].files

    def fail(self, count: int = 1, *, status: int | None = 500, path: str = "", method: str | None = None) -> None:
        """Lets the next `count` requests whose path contains `path` fail with a status; None drops the connection."""
        with self._lock:
            self._failures.append(Failure(count, status, path, method))

    def recover(self) -> None:
        """Ends all failures."""
        with self._lock:
            self._failures.clear()

    def next_failure(self, method: str, path: str) -> Failure | None:
        with self._lock:
            for failure in self._failures:
                if failure.count > 0 and failure.path in path and failure.method in (None, method):
                    failure.count -= 1
                    return failure
        return None

    def pull_request(self) -> int:
        return next(self._pull_requests)

    def is_large(self, path: str, size: int, sample: bytes) -> bool:
        return size > self.large or b"\0" in sample


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *arguments) -> None:
        pass

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunked()
        split = urlsplit(self.path)
        path, self.query = unquote(split.path), parse_qs(split.query)
        self.hub.requests.append((self.command, path))
        failure = self.hub.next_failure(self.command, path)
        if failure is not None and failure.status is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        try:
            if failure is not None:
                raise Refused(failure.status, "the test wants this to fail")
            with self.hub._lock:
                for method, pattern, action in ROUTES:
                    match = re.fullmatch(pattern, path)
                    if match and self.command in method:
                        action(self, **{key: value for key, value in match.groupdict().items() if value is not None})
                        return
            raise Refused(404, f"the fake Hub has no {self.command} {path}")
        except Refused as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            self.send(json.dumps({"error": error.message}).encode(), error.status, headers)
        except OSError:
            raise
        except Exception as error:
            self.hub.errors.append(error)
            raise

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def _chunked(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": len(content)} | (headers or {})
        ).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer(self, value: object, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), status)

    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    def authorised(self) -> bool:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {self.hub.token}"):
            raise Refused(401, "Invalid user token.")
        return given is not None

    def must_be_authorised(self) -> None:
        if not self.authorised():
            raise Refused(401, "Invalid username or password.")

    def repository(self, name: str) -> Repository:
        repository, authorised = self.hub.repositories.get(name), self.authorised()
        if repository is None or (repository.private and not authorised):
            raise Refused(404 if authorised else 401, "Repository not found", "RepoNotFound")
        return repository

    def commit_of(self, name: str, revision: str) -> Commit:
        commit = self.repository(name).find(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # What follows are the routes.

    def who_am_i(self) -> None:
        self.must_be_authorised()
        self.answer({"type": "user", "name": USER, "fullname": USER, "auth": {}, "orgs": []})

    def validate_yaml(self) -> None:
        front = re.match(r"---\n(.*?)\n---\n", self.json()["content"], re.DOTALL)
        if front and re.search(r"^base_model: /", front[1], re.MULTILINE):
            self.answer({"errors": [{"message": '"base_model" is not an id'}], "warnings": []}, 400)
        else:
            self.answer({"errors": [], "warnings": []})

    def create(self) -> None:
        self.must_be_authorised()
        values = self.json()
        name = f"{values.get('organization') or USER}/{values['name']}"
        if values.get("type") == "dataset":
            name = f"datasets/{name}"
        if values.get("organization") == "forbidden":
            raise Refused(403, "You don't have the rights to create a model under this namespace")
        url = {"url": f"{self.hub.endpoint}/{name}"}
        if name in self.hub.repositories:
            self.answer({"error": "You already created this model repo", **url}, 409)
            return
        repository = Repository(name, private=values.get("visibility") == "private" or bool(values.get("private")))
        repository.commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.hub.repositories[name] = repository
        self.answer(url)

    def delete(self) -> None:
        self.must_be_authorised()
        values = self.json()
        self.hub.repositories.pop(f"{values.get('organization') or USER}/{values['name']}", None)
        self.answer({})

    def branch(self, name: str, branch: str) -> None:
        self.must_be_authorised()
        repository = self.repository(name)
        if branch in repository.branches:
            raise Refused(409, "Reference already exists")
        repository.branches[branch] = self.commit_of(name, self.json().get("startingPoint", "main"))
        self.answer({})

    def preupload(self, name: str, revision: str) -> None:
        self.must_be_authorised()
        there = self.commit_of(name, revision).files
        files = []
        for file in self.json()["files"]:
            path = file["path"]
            large = self.hub.is_large(path, file["size"], base64.b64decode(file["sample"]))
            known = {"oid": object_id(there[path], self.hub)} if path in there else {}
            mode = "lfs" if large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
        self.answer({"files": files})

    def lfs_batch(self, name: str) -> None:
        self.must_be_authorised()
        self.repository(name)
        objects = []
        for item in self.json()["objects"]:
            upload = {"href": f"{self.hub.endpoint}/lfs/{item['oid']}"}
            actions = {} if item["oid"] in self.hub.stored else {"actions": {"upload": upload}}
            objects.append({"oid": item["oid"], "size": item["size"], **actions})
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content does not have this hash")
        self.hub.stored[oid] = self.body
        self.answer({})

    def commit(self, name: str, revision: str) -> None:
        self.must_be_authorised()
        repository = self.repository(name)
        files = dict(self.commit_of(name, revision).files)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        for line in lines[1:]:
            kind, value = line["key"], line["value"]
            path = value["path"]
            if kind == "file":
                files[path] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    raise Refused(400, f"the content of {path} was not uploaded")
                files[path] = self.hub.stored[value["oid"]]
            elif kind == "deletedFile":
                if path not in files:
                    raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
                del files[path]
            else:
                files = {other: content for other, content in files.items() if not other.startswith(path)}
        answer = {}
        branch = revision
        if "create_pr" in self.query:
            number = self.hub.pull_request()
            branch = f"refs/pr/{number}"
            repository.branches[branch] = repository.find(revision)
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{name}/discussions/{number}"
        commit = repository.commit(header["summary"], files, branch, header.get("description", ""))
        url = f"{self.hub.endpoint}/{name}/commit/{commit.oid}"
        self.answer({"success": True, "commitUrl": url, "commitOid": commit.oid, **answer})

    def information(self, name: str, revision: str = "main") -> None:
        repository, commit = self.repository(name), self.commit_of(name, revision)
        self.answer(
            {
                "id": name.removeprefix("datasets/"),
                "sha": commit.oid,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "tags": [],
                "downloads": 0,
                "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            }
        )

    def tree(self, name: str, revision: str, folder: str = "") -> None:
        commit = self.commit_of(name, revision)
        files = [
            file_information(path, content, self.hub)
            for path, content in sorted(commit.files.items())
            if path.startswith(folder)
        ]
        self.answer(files)

    def paths_information(self, name: str, revision: str) -> None:
        commit = self.commit_of(name, revision)
        wanted = self.json().get("paths", [])
        self.answer([file_information(path, commit.files[path], self.hub) for path in wanted if path in commit.files])

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository, commit = self.repository(name), self.commit_of(name, revision)
        if repository.gated and not self.authorised():
            raise Refused(401, f"Access to model {name} is restricted.", "GatedRepo")
        if path not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound")
        content = commit.files[path]
        headers = {
            "ETag": f'"{object_id(content, self.hub)}"',
            "X-Repo-Commit": commit.oid,
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and self.command == "GET":
            start, end = int(asked[1]), int(asked[2]) + 1 if asked[2] else len(content)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            self.send(content[start:end], 206, headers)
        else:
            self.send(content, 200, headers)


NAME = r"(?P<name>(?:datasets/)?[^/]+(?:/[^/]+)?)"
API = r"/api/(?:models/)?(?P<name>(?:datasets/)?[^/]+(?:/[^/]+)?)"
REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", Handler.who_am_i),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("POST", r"/api/repos/create", Handler.create),
    ("DELETE", r"/api/repos/delete", Handler.delete),
    ("POST", rf"{API}/branch/(?P<branch>.+)", Handler.branch),
    ("POST", rf"{API}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"{API}/commit/{REVISION}", Handler.commit),
    ("POST", rf"{API}/paths-info/{REVISION}", Handler.paths_information),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_upload),
    ("GET", rf"{API}/revision/{REVISION}", Handler.information),
    ("GET", rf"{API}/tree/{REVISION}(?:/(?P<folder>.*))?", Handler.tree),
    ("GET", API, Handler.information),
    ("GET HEAD", rf"/{NAME}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
]


def object_id(content: bytes, hub: FakeHub) -> str:
    """The id by which the Hub knows a file: that of git, or the SHA-256 of a large one."""
    if hub.is_large("", len(content), content[:512]):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def file_information(path: str, content: bytes, hub: FakeHub) -> dict:
    oid = object_id(content, hub)
    value = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if len(oid) == 64:
        value["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 100}
    return value


@contextlib.contextmanager
def fake_hub(large: int = 100_000, logged_in: bool = True) -> Iterator[FakeHub]:
    """Runs a Hub while the context is open, and points huggingface_hub to it.

    Arguments:
        large: files with more bytes than this go through LFS.
        logged_in: whether `hub.token` is the saved token of the user.
    """
    hub = FakeHub(large)
    handler = type("Handler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        hub.environment = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": home,
            "HF_HUB_CACHE": os.path.join(home, "hub"),
            "HF_TOKEN": hub.token if logged_in else "",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
        }
        for name, value in hub.environment.items():
            patch.setenv(name, value)
        # The client reads its environment once, when it is imported.
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_URL_HOSTS", frozenset({"127.0.0.1", *constants.HF_URL_HOSTS}))
        patch.setattr(constants, "HF_HUB_CACHE", hub.environment["HF_HUB_CACHE"])
        patch.setattr(constants, "HF_TOKEN_PATH", os.path.join(home, "token"))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(hf_api.api, "endpoint", hub.endpoint)
        # Retries follow at once.
        patch.setattr(_http, "time", types.SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None}))
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
            huggingface_hub.close_session()
    # A mistake in this file, or a request that it does not know how to answer.
    if hub.errors:
        raise hub.errors[0]
