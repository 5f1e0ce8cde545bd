"""`tfheads serve`: starts TensorFlow Serving on a model's directory. The server itself is TensorFlow's."""

import json
import os
import shutil
from pathlib import Path

from tfheads.serving.server_files import (
    BATCHING,
    GRPC_PORT,
    MANIFEST,
    REST_PORT,
    base_path,
    batching_flags,
    image,
    model_name,
)

PROGRAM = "tensorflow_model_server"


def server_command(
    directory: str | os.PathLike,
    *,
    port: int = GRPC_PORT,
    rest_port: int = REST_PORT,
    name: str | None = None,
    batching: bool = True,
) -> list[str]:
    """The command that serves a model: TensorFlow's server if it is installed, else a container of it.

    Args:
        directory: the model's directory, which holds the versions.
        port, rest_port: of gRPC and of REST.
        name: what the server calls the model; None for what it was called at export.
        batching: whether the server joins requests, if the model's signatures allow it.

    Raises:
        ValueError: no version in the directory, or a bad port or name.
        FileNotFoundError: there is neither the server nor Docker.
    """
    directory = Path(directory).resolve()
    if not any(path.parent.name.isdecimal() for path in directory.glob("*/saved_model.pb")):
        raise ValueError(f"directory must hold a version such as 1/saved_model.pb, {directory} has none")
    _check_ports(port, rest_port)
    name = _served_name(directory) if name is None else name
    if not name or name != model_name(Path("/", name)):
        raise ValueError(f"name must consist of letters, digits, '.', '_' and '-', got {name!r}")
    batching = batching and (directory / BATCHING).is_file()
    if program := shutil.which(PROGRAM):
        own = [f"--port={port}", f"--rest_api_port={rest_port}", f"--model_name={name}"]
        return [program, *own, f"--model_base_path={directory}", *(batching_flags(str(directory)) if batching else [])]
    if docker := shutil.which("docker"):
        return _container(docker, directory, port, rest_port, name, batching)
    raise FileNotFoundError(
        f"{PROGRAM} or docker must be installed and on PATH, neither was found: "
        "see https://www.tensorflow.org/tfx/serving/setup or https://docs.docker.com/engine/install"
    )


def serve(command: list[str]) -> None:
    """Becomes the server, so that signals and the exit code are its own."""
    os.execv(command[0], command)


def _container(docker: str, directory: Path, port: int, rest_port: int, name: str, batching: bool) -> list[str]:
    inside = base_path(name)
    command = [docker, "run", "--rm", f"--publish={port}:{GRPC_PORT}", f"--publish={rest_port}:{REST_PORT}"]
    command += [f"--mount=type=bind,source={directory},target={inside},readonly", f"--env=MODEL_NAME={name}"]
    return [*command, image(), *(batching_flags(inside) if batching else [])]


def _served_name(directory: Path) -> str:
    """The name in the manifest, or for a model of other origin that of the directory."""
    try:
        return json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["name"]
    except FileNotFoundError:
        return model_name(directory)


def _check_ports(port: int, rest_port: int) -> None:
    for argument, value in (("port", port), ("rest_port", rest_port)):
        if not 1 <= value <= 65535:
            raise ValueError(f"{argument} must be from 1 to 65535, got {value}")
    if port == rest_port:
        raise ValueError(f"rest_port must differ from port, both are {port}")
