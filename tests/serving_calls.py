"""Exports of small models, and calls of their signatures in a process without tfheads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from tfheads.preprocessing import GraphTokenizer, graph_tokenizer

GRAPHS = {}
CLIENT = Path(__file__).with_name("serving_client.py")
INTERPRETER = os.environ.get("TFHEADS_SERVING_PYTHON", sys.executable)
"""The Python of the client: another one has another TensorFlow."""


def exported(model, tokenizer, directory: Path, **options) -> str:
    """A SavedModel of a model; that the tokenizers agree is tested elsewhere."""
    graph = in_graph(tokenizer)
    with mock.patch("tfheads.serving.export._in_graph", lambda model, tokenizer, offsets: graph):
        return model.export_serving(directory, tokenizer, **options)


def in_graph(tokenizer) -> GraphTokenizer:
    """The tokenizer in the graph, made once for each."""
    key = tokenizer.backend_tokenizer.to_str()
    if key not in GRAPHS:
        GRAPHS[key] = graph_tokenizer(tokenizer, check=False)
    return GRAPHS[key]


def call(calls: list, folder: Path) -> list:
    """Answers of signatures in a process that imports tensorflow and tensorflow_text alone."""
    (folder / "calls.json").write_text(json.dumps(calls))
    command = [INTERPRETER, str(CLIENT), str(folder / "calls.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["forbidden"] == []
    return result["answers"]


def texts(values: list) -> list:
    """Strings or bytes, also in lists, as the client wants them."""

    def plain(value):
        if isinstance(value, list):
            return [plain(one) for one in value]
        return (value if isinstance(value, bytes) else value.encode()).decode("latin-1")

    return ["string", plain(values)]


def decoded(value):
    """What the client gave, as text."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value.encode("latin-1").decode("utf-8")
