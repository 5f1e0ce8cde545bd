"""Requests that can be sent to a served model as they are, with the answers that it gave when it was exported."""

import json
from pathlib import Path

import numpy as np

from tfheads.serving.server_files import REST_PORT

FOLDER = "requests"
MOST_VALUES = 1000  # of an output that is shown


def request_files(name: str, examples: dict[str, tuple[dict, dict]]) -> dict[str, str]:
    """The contents of the files by their names.

    Args:
        name: what the server calls the model.
        examples: for each signature the inputs and the outputs, by name, as arrays or what becomes one.
    """
    files = {"rest.sh": rest_script(name, list(examples))}
    files["grpc_requests.py"] = Path(__file__).with_name("grpc_requests.py").read_text(encoding="utf-8")
    for signature, (inputs, outputs) in examples.items():
        inputs = {key: _plain(np.asarray(value)) for key, value in inputs.items()}
        files[f"{signature}.json"] = _json({"signature_name": signature, "inputs": inputs})
        files[f"{signature}.answer.json"] = _json({"outputs": rest_outputs(outputs)})
    return {f"{FOLDER}/{file}": content for file, content in files.items()}


def rest_outputs(outputs: dict):
    """Outputs as the server's REST interface gives them: a single one without its name; of large ones the shape."""
    shown = {}
    for key, value in sorted(outputs.items()):
        value = np.asarray(value)
        large = f"{value.dtype} of shape {list(value.shape)}, not shown here"
        shown[key] = _plain(value) if value.size <= MOST_VALUES else large
    return shown if len(shown) > 1 else next(iter(shown.values()))


def rest_script(name: str, signatures: list[str]) -> str:
    """A shell script of curl commands."""
    lines = [
        "#!/bin/sh",
        f"# Sends the requests of this directory to a server: sh rest.sh [http://localhost:{REST_PORT}]",
        'cd "$(dirname "$0")" || exit 1',
        f"server=${{1:-http://localhost:{REST_PORT}}}",
        f'curl --silent --show-error "$server/v1/models/{name}"',
    ]
    for signature in signatures:
        lines.append(f'curl --silent --show-error --data @{signature}.json "$server/v1/models/{name}:predict"')
    return "\n".join([*lines, ""])


def _plain(value: np.ndarray):
    """An array as JSON data; float32 with the digits that it has."""
    if value.dtype.kind == "f":
        return np.vectorize(lambda number: float(f"{number:.7g}"), otypes=[object])(value).tolist()
    if value.dtype.kind in "OS":
        return np.vectorize(_text, otypes=[object])(value).tolist() if value.size else value.tolist()
    return value.tolist()


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _json(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
