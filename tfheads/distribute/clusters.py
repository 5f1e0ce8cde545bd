"""Which workers there are and which of them this process is, as launchers say it in environment variables."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_PORT = 12345


@dataclass(frozen=True)
class Cluster:
    """Workers of one run.

    Attributes:
        addresses: "host:port" of each, the chief's first; None for one that only the worker itself knows.
        index: which of them this process is.
        source: who said so.
    """

    addresses: tuple[str | None, ...]
    index: int
    source: str

    def __len__(self) -> int:
        return len(self.addresses)


def found_cluster(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """The cluster of this process by TF_CONFIG, Slurm, Kubernetes' JobSet or Open MPI, in this order; None if alone.

    Args:
        environment: the variables; None for those of this process.

    Raises:
        ValueError: variables that do not make sense, in one sentence.
    """
    environment = os.environ if environment is None else environment
    for source in (from_tf_config, from_slurm, from_jobset, from_open_mpi):
        cluster = source(environment)
        if cluster is not None:
            return cluster if len(cluster) > 1 else None
    return None


def has_parameter_servers(environment: Mapping[str, str] | None = None) -> bool:
    """Whether TF_CONFIG has parameter servers."""
    environment = os.environ if environment is None else environment
    return bool(environment.get("TF_CONFIG", "").strip()) and "ps" in _parsed(environment["TF_CONFIG"])[0]


def from_tf_config(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster of TF_CONFIG, which also Kubeflow's TFJob sets.

    Raises:
        ValueError: it is malformed, has parameter servers, or this process is none of the workers.
    """
    text = environment.get("TF_CONFIG", "")
    if not text.strip():
        return None
    jobs, kind, index = _parsed(text)
    if "ps" in jobs:
        raise ValueError(
            "TF_CONFIG has parameter servers (ps), which Keras 3 cannot use: see tfheads.legacy, or give workers alone"
        )
    if kind not in ("chief", "worker"):
        raise ValueError(f'TF_CONFIG must have "task" with a type of "chief" or "worker", got {kind!r}')
    if not 0 <= index < len(jobs.get(kind, ())):
        raise ValueError(
            f'TF_CONFIG must have "task" with the index of a {kind} below {len(jobs.get(kind, ()))}, got {index}'
        )
    addresses = (*jobs.get("chief", ()), *jobs.get("worker", ()))
    return Cluster(addresses, index + (len(jobs.get("chief", ())) if kind == "worker" else 0), "TF_CONFIG")


def _parsed(text: str) -> tuple[dict, object, int]:
    """The jobs of TF_CONFIG, and the type and the index of this task."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(f"TF_CONFIG must be JSON, got {text[:80]!r}: {error}") from None
    jobs = given.get("cluster") if isinstance(given, dict) else None
    if not isinstance(jobs, dict) or not jobs:
        raise ValueError(f'TF_CONFIG must have "cluster" with lists of addresses, got {text[:80]!r}')
    for job, addresses in jobs.items():
        wrong = addresses if not isinstance(addresses, list) else [one for one in addresses if not _is_address(one)]
        if wrong or not isinstance(addresses, list):
            raise ValueError(f'TF_CONFIG must have "cluster" with lists of "host:port", got {wrong!r} for {job!r}')
    every = [address for addresses in jobs.values() for address in addresses]
    twice = next((address for address in every if every.count(address) > 1), None)
    if twice is not None:
        raise ValueError(f"TF_CONFIG must have each address once, got {twice!r} twice")
    task = given.get("task")
    if not isinstance(task, dict) or not str(task.get("index")).isdigit():
        raise ValueError(f'TF_CONFIG must have "task" with "type" and "index", got {task!r}')
    return jobs, task.get("type"), int(task["index"])


def _is_address(value) -> bool:
    host, _, port = str(value).rpartition(":")
    return isinstance(value, str) and bool(host) and port.isdigit() and 0 < int(port) < 65536


def from_slurm(environment: Mapping[str, str]) -> Cluster | None:
    """The tasks of a Slurm step (`srun`); several tasks of a node get ports one after another.

    Raises:
        ValueError: a list of nodes that cannot be read.
    """
    if "SLURM_PROCID" not in environment or "SLURM_STEP_NODELIST" not in environment:
        return None
    count, index = _number(environment, "SLURM_STEP_NUM_TASKS"), _number(environment, "SLURM_PROCID")
    hosts = slurm_hosts(environment["SLURM_STEP_NODELIST"])
    each = slurm_tasks(environment.get("SLURM_STEP_TASKS_PER_NODE", str(count)), len(hosts))
    first = _first_port(environment)
    addresses = [f"{host}:{first + number}" for host, tasks in zip(hosts, each, strict=True) for number in range(tasks)]
    if len(addresses) != count:
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE must add up to SLURM_STEP_NUM_TASKS={count}, got {each}")
    return _checked(Cluster(tuple(addresses), index, "Slurm"), "SLURM_PROCID")


def slurm_hosts(text: str) -> list[str]:
    """The names in a list of Slurm's such as "node[01-03,07],login1"."""
    hosts = []
    for prefix, ranges, suffix in re.findall(r"([^,\[\]]+)(?:\[([\d,-]+)\])?([^,\[\]]*)", text):
        for part in ranges.split(",") if ranges else [""]:
            low, _, high = part.partition("-")
            for number in range(int(low), int(high or low) + 1) if part else [None]:
                hosts.append(f"{prefix}{'' if number is None else str(number).zfill(len(low))}{suffix}")
    if not hosts:
        raise ValueError(f"SLURM_STEP_NODELIST must be a list of nodes, got {text!r}")
    return hosts


def slurm_tasks(text: str, nodes: int) -> list[int]:
    """The tasks of each node in a text of Slurm's such as "2(x3),1"."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise ValueError(f'SLURM_STEP_TASKS_PER_NODE must be such as "2(x3),1", got {text!r}')
        counts += [int(match[1])] * int(match[2] or 1)
    if len(counts) != nodes:
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE must have {nodes} nodes, got {text!r}")
    return counts


def from_jobset(environment: Mapping[str, str]) -> Cluster | None:
    """The pods of a replicated job of Kubernetes' JobSet, whose names the manifest gives as variables.

    They are JOBSET_NAME, REPLICATED_JOB_NAME and TFHEADS_WORKERS (how many pods); Kubernetes sets JOB_COMPLETION_INDEX.
    """
    if "JOBSET_NAME" not in environment or "JOB_COMPLETION_INDEX" not in environment:
        return None
    count, index = _number(environment, "TFHEADS_WORKERS"), _number(environment, "JOB_COMPLETION_INDEX")
    name, job = environment["JOBSET_NAME"], environment.get("REPLICATED_JOB_NAME", "workers")
    port = _first_port(environment)
    addresses = tuple(f"{name}-{job}-0-{number}.{name}:{port}" for number in range(count))
    return _checked(Cluster(addresses, index, "Kubernetes JobSet"), "JOB_COMPLETION_INDEX")


def from_open_mpi(environment: Mapping[str, str]) -> Cluster | None:
    """The processes of Open MPI's `mpirun`, which says only how many there are.

    The chief's host is MASTER_ADDR, or this one if all processes are on it; the others tell it theirs.

    Raises:
        ValueError: processes on several hosts without MASTER_ADDR.
    """
    if "OMPI_COMM_WORLD_RANK" not in environment:
        return None
    count, index = _number(environment, "OMPI_COMM_WORLD_SIZE"), _number(environment, "OMPI_COMM_WORLD_RANK")
    first = _first_port(environment)
    if _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE") == count:
        return Cluster(tuple(f"127.0.0.1:{first + number}" for number in range(count)), index, "Open MPI")
    if "MASTER_ADDR" not in environment:
        raise ValueError("MASTER_ADDR must be the host of rank 0, since Open MPI's processes are on several hosts")
    host = environment.get("HOSTNAME") or os.uname().nodename
    addresses = [None] * count
    addresses[index] = f"{host}:{first + _number(environment, 'OMPI_COMM_WORLD_LOCAL_RANK')}"
    addresses[0] = f"{environment['MASTER_ADDR']}:{first}"
    return _checked(Cluster(tuple(addresses), index, "Open MPI"), "OMPI_COMM_WORLD_RANK")


def _first_port(environment: Mapping[str, str]) -> int:
    return _number(environment, "TFHEADS_PORT") if "TFHEADS_PORT" in environment else FIRST_PORT


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not value.isdigit():
        raise ValueError(f"{name} must be a whole number in the environment, got {value!r}")
    return int(value)


def _checked(cluster: Cluster, name: str) -> Cluster:
    if not cluster.index < len(cluster):
        raise ValueError(f"{name} must be below the number of workers {len(cluster)}, got {cluster.index}")
    return cluster
