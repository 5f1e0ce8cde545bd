"""The strategies of `tf.distribute` by name, and the choice among them."""

import difflib
import os
from collections.abc import Mapping

import keras
import tensorflow as tf
from tensorflow.python.eager import context  # the heartbeat of workers can be set nowhere else

from tfheads.distribute.agreement import is_chief
from tfheads.distribute.clusters import Cluster, found_cluster, has_parameter_servers
from tfheads.distribute.rendezvous import meet

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu", "parameter_server")


def strategy(
    name: str = "auto",
    *,
    replicas: int | None = None,
    tpu: str | None = None,
    agreement: Mapping[str, object] | None = None,
    start_seconds: float = 300.0,
    heartbeat_seconds: int = 30,
    quiet: bool = False,
) -> tf.distribute.Strategy:
    """A strategy, inside whose `scope()` a model is to be made and compiled. To be called before anything else runs.

    Args:
        name: "one_device"; "mirrored" for the devices of this process; "multi_worker" for several processes, whose
            sums go through NCCL on GPUs and in a ring on CPUs; "tpu"; "auto" for what the environment speaks of: the
            cluster in TF_CONFIG or in the variables of Slurm, Kubernetes' JobSet or Open MPI, TPU_NAME, or the devices
            that are visible.
        replicas: how many devices of this process to use; on a machine without GPUs it is divided into as many. None
            for all.
        tpu: name of a TPU for "tpu", as `TPUClusterResolver` takes it; None for TPU_NAME.
        agreement: values that must be the same on all workers, beside the versions of the packages.
        start_seconds: how long workers wait for each other.
        heartbeat_seconds: after how long without a sign of life a worker is given up, and the others end.
        quiet: whether the line is left out that says what was chosen and why.

    Raises:
        ValueError: an unknown name, a cluster that does not make sense, more replicas than devices, or workers that are
            not alike.
        OSError: the address of this worker is in use.
        TimeoutError: not all workers came.
        RuntimeError: TensorFlow runs already, or has no such devices.
    """
    if name not in STRATEGIES:
        near = difflib.get_close_matches(str(name), STRATEGIES, n=1, cutoff=0.0)[0]
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {name!r}, the nearest is {near!r}")
    cluster = found_cluster() if name in ("auto", "multi_worker") and not _wants_servers(name) else None
    chosen, reason = _choice(cluster, replicas) if name == "auto" else (name, "as asked for")
    if chosen == "parameter_server":
        raise ValueError(
            "strategy 'parameter_server' is not there in Keras 3: train tfheads.legacy.as_tf_keras(model) with tf_keras"
        )
    if chosen == "multi_worker":
        made = _multi_worker(cluster, replicas, dict(agreement or {}), start_seconds, heartbeat_seconds)
    else:
        made = {"one_device": _one_device, "mirrored": _mirrored, "tpu": lambda _: _tpu(tpu)}[chosen](replicas)
    if not quiet and _leads(made):
        count = made.num_replicas_in_sync
        where = f" on {len(cluster)} workers" if chosen == "multi_worker" else ""
        print(f"Strategy: {chosen}, {count} replica{'s' if count > 1 else ''}{where} ({reason})", flush=True)
    return made


def _wants_servers(name: str) -> bool:
    return name == "auto" and has_parameter_servers()


def _leads(made: tf.distribute.Strategy) -> bool:
    with made.scope():
        return is_chief()


def _choice(cluster: Cluster | None, replicas: int | None) -> tuple[str, str]:
    """Which strategy, and why."""
    if _wants_servers("auto"):
        return "parameter_server", "TF_CONFIG has parameter servers"
    if cluster is not None:
        return "multi_worker", f"{cluster.source} has {len(cluster)} workers"
    if os.environ.get("TPU_NAME"):
        return "tpu", "TPU_NAME is set"
    devices = len(tf.config.list_physical_devices("GPU")) or replicas or len(_configured_cpus())
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if (replicas or devices) > 1 and devices > 1:
        return "mirrored", f"no cluster in the environment, {devices} {kind} devices"
    return "one_device", f"no cluster in the environment, 1 {kind} device"


def _one_device(replicas: int | None) -> tf.distribute.Strategy:
    if replicas not in (None, 1):
        raise ValueError(f"replicas must be 1 for the strategy 'one_device', got {replicas}")
    return tf.distribute.OneDeviceStrategy(_devices(1)[0])


def _mirrored(replicas: int | None) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(_devices(replicas))


def _devices(replicas: int | None) -> list[str]:
    """The first GPUs of this process, or the parts of its CPU.

    Raises:
        ValueError: fewer GPUs than replicas.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if replicas is not None and not 1 <= replicas <= len(gpus):
            raise ValueError(f"replicas must be from 1 to the {len(gpus)} GPUs of this machine, got {replicas}")
        return [f"GPU:{index}" for index in range(replicas or len(gpus))]
    _divide_cpu(replicas)
    return [f"CPU:{index}" for index in range(replicas or len(_configured_cpus()))]


def _configured_cpus() -> list:
    """The parts into which the CPU was divided, or the whole."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    return tf.config.get_logical_device_configuration(cpu) or [None]


def _divide_cpu(replicas: int | None) -> None:
    """Divides the CPU into logical devices, unless it is.

    Raises:
        RuntimeError: TensorFlow runs already.
    """
    if replicas is None or replicas <= len(_configured_cpus()):
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    except RuntimeError:
        raise RuntimeError(
            f"the strategy must be made before TensorFlow runs anything, as it divides the CPU into {replicas} devices"
        ) from None


def _multi_worker(
    cluster: Cluster | None, replicas: int | None, agreement: dict, start_seconds: float, heartbeat_seconds: int
) -> tf.distribute.Strategy:
    if cluster is None:
        raise ValueError(
            "strategy 'multi_worker' needs two or more workers in TF_CONFIG or in the variables of Slurm, of "
            "Kubernetes' JobSet or of Open MPI, got none"
        )
    if context.context()._initialized:
        raise RuntimeError("strategy 'multi_worker' must be made before TensorFlow runs anything: call it first")
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        _divide_cpu(replicas)
    cluster = meet(cluster, {**versions(), **agreement}, start_seconds)
    spec = tf.train.ClusterSpec({"worker": list(cluster.addresses)})
    job = context.context()
    job.configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=int(start_seconds * 1000),
        heartbeat_timeout_in_ms=heartbeat_seconds * 1000,
        shutdown_barrier_timeout_in_ms=heartbeat_seconds * 1000,
        coordinated_jobs=[_job("worker", len(cluster))],
    )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, task_type="worker", task_id=cluster.index, rpc_layer="grpc"
    )
    sums = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=sums.NCCL if gpus else sums.RING)
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver, communication_options=options)


def _job(name: str, tasks: int):
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2

    return coordination_config_pb2.CoordinatedJob(name=name, num_tasks=tasks)


def versions() -> dict[str, str]:
    """The versions that must be the same on all workers."""
    return {"tensorflow": tf.__version__, "keras": keras.__version__, "tfheads": _own_version()}


def _own_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("tfheads")
    except metadata.PackageNotFoundError:
        return "not installed"


def _tpu(name: str | None) -> tf.distribute.Strategy:
    """The TPU of a name.

    Raises:
        ValueError: no name is known, or there is no such TPU.
    """
    name = name or os.environ.get("TPU_NAME")
    if name is None:
        raise ValueError("strategy 'tpu' needs the name of a TPU: give tpu, or set TPU_NAME")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(f"there is no TPU of the name {name!r} here: {' '.join(str(error).split())[:200]}") from None
    return tf.distribute.TPUStrategy(resolver)
