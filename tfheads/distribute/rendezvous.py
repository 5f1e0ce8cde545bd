"""The meeting of all workers before TensorFlow's servers start, which would wait for each other without end.

The chief listens at its own address; the others come, say who they are, and get what the chief found. So a worker that
does not come, an address that is in use and workers that are not alike are one sentence on every worker, in bounded
time. Nothing but JSON goes over the wire, at most 64 kB.
"""

import contextlib
import json
import socket
import time
from collections.abc import Mapping

from tfheads.distribute.agreement import disagreement
from tfheads.distribute.clusters import Cluster

LONGEST = 65536
PAUSE = 0.2


def meet(cluster: Cluster, facts: Mapping[str, object], seconds: float = 300.0) -> Cluster:
    """Waits for all workers and compares what they say.

    Args:
        cluster: this worker's view of it.
        facts: plain values that must be the same on all workers, such as versions.
        seconds: how long to wait.

    Returns:
        The cluster with the addresses of all workers.

    Raises:
        ValueError: the workers are not alike.
        OSError: this worker's address is in use.
        TimeoutError: not all workers came.
    """
    until = time.monotonic() + seconds
    own = {"index": cluster.index, "address": cluster.addresses[cluster.index]}
    own["facts"] = json.loads(json.dumps({"workers": len(cluster), **facts}, default=str))
    with contextlib.closing(_listener(cluster)) as listener:
        answer = _as_chief(listener, cluster, own, until) if cluster.index == 0 else _as_worker(cluster, own, until)
    if "error" in answer:
        raise ValueError(answer["error"])
    return Cluster(tuple(answer["addresses"]), cluster.index, cluster.source)


def _listener(cluster: Cluster) -> socket.socket:
    """This worker's port, which must be free."""
    address = cluster.addresses[cluster.index]
    port = int(address.rpartition(":")[2])
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", port))
        listener.listen(len(cluster))
    except OSError as error:
        listener.close()
        raise OSError(
            f"the address {address} of worker {cluster.index} ({cluster.source}) must be free on this machine: "
            f"{error.strerror}; is another run going on, or do two workers have the same index?"
        ) from None
    return listener


def _as_chief(listener: socket.socket, cluster: Cluster, own: dict, until: float) -> dict:
    """Waits for the others, and answers all of them at once."""
    said, open_ones = {0: own}, []
    try:
        while len(said) < len(cluster):
            listener.settimeout(max(until - time.monotonic(), 0.01))
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                missing = ", ".join(str(index) for index in range(len(cluster)) if index not in said)
                answer = {"error": f"{len(said)} of {len(cluster)} workers came in time, missing are: {missing}"}
                _answer(open_ones, answer)
                raise TimeoutError(answer["error"]) from None
            connection.settimeout(10)
            message = _read(connection)
            if message is None:
                connection.close()
                continue
            open_ones.append(connection)
            index = message["index"]
            if index in said:
                answer = {"error": f"each worker must have an index of its own, two have {index}"}
                _answer(open_ones, answer)
                return answer
            said[index] = message
        answer = _verdict([said[index] for index in sorted(said)])
        _answer(open_ones, answer)
        return answer
    finally:
        for connection in open_ones:
            connection.close()


def _verdict(said: list[dict]) -> dict:
    facts = [one["facts"] for one in said]
    if any(other != facts[0] for other in facts[1:]):
        return {"error": disagreement("what starts a run", facts)}
    return {"addresses": [one["address"] for one in said]}


def _answer(connections: list[socket.socket], answer: dict) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # one that has gone misses the others' servers later
            connection.sendall(json.dumps(answer).encode() + b"\n")


def _as_worker(cluster: Cluster, own: dict, until: float) -> dict:
    """Goes to the chief until it is there, and waits for its answer."""
    host, _, port = cluster.addresses[0].rpartition(":")
    while time.monotonic() < until:
        try:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(json.dumps(own, default=str).encode() + b"\n")
                connection.settimeout(max(until - time.monotonic() + 5, 1))
                answer = _read(connection)
        except OSError:
            answer = None
        if answer is not None:
            return answer
        time.sleep(PAUSE)
    raise TimeoutError(
        f"worker {cluster.index} got no answer from worker 0 at {cluster.addresses[0]} ({cluster.source}) in time"
    )


def _read(connection: socket.socket) -> dict | None:
    """A line of JSON; None if there comes something else."""
    received = b""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        while not received.endswith(b"\n") and len(received) < LONGEST:
            part = connection.recv(LONGEST)
            if not part:
                return None
            received += part
        message = json.loads(received)
        fine = isinstance(message, dict) and ("index" not in message or isinstance(message["index"], int))
        return message if fine else None
    return None
