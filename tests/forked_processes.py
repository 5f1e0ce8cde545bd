"""Processes for tests that need TensorFlow of their own: forks of one that has imported everything, once.

The imports take longer than most of what such a process does.
"""

import importlib
import json
import multiprocessing
import os
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.quick_tensorflow import leave_out_optimisation

IMPORTED = ["tests.resumed_run", "tests.distribution_cases", "tf_keras"]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def forked(function: str, log: Path, *arguments, cluster: str = "") -> BaseProcess:
    """A started process.

    Args:
        function: "module.name", what it calls.
        log: the file to which it appends what it prints.
        arguments: of the function.
        cluster: its TF_CONFIG.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_run, args=(function, log, cluster, arguments))
    process.start()
    return process


def forked_workers(function: str, directory: Path, count: int, *arguments) -> list[BaseProcess]:
    """The started processes of a cluster, each with its log in the directory; a single one has no cluster."""
    directory.mkdir(parents=True, exist_ok=True)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    found = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        cluster = json.dumps(task) if count > 1 else ""
        found.append(forked(function, directory / f"worker-{index}.log", *arguments, cluster=cluster))
    return found


def _run(function: str, log: Path, cluster: str, arguments: tuple) -> None:
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.pop("TF_CONFIG", None)
    if cluster:
        os.environ["TF_CONFIG"] = cluster
    leave_out_optimisation()
    module, name = function.rsplit(".", 1)
    getattr(importlib.import_module(module), name)(*arguments)


def ended(processes: list[BaseProcess], seconds: float = 900.0) -> list[int]:
    """The exit codes; those who are not done in time are killed."""
    until = time.monotonic() + seconds
    for process in processes:
        process.join(max(until - time.monotonic(), 0.1))
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]
