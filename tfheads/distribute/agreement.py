"""What workers do together beside training: waiting for each other, and finding out that they are not alike."""

import contextlib
import functools
import json
import re
import zlib
from collections.abc import Iterator

import tensorflow as tf

from tfheads.distribute.replicas import has_workers, workers


def is_chief(model=None) -> bool:
    """Whether this process acts for all workers (saves, uploads, prints); True where there is only one.

    Args:
        model: of which strategy; None for the current one.
    """
    strategy = tf.distribute.get_strategy() if model is None else model.distribute_strategy
    return worker_index(strategy) == 0


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """The number of this worker, 0 for the chief and where there is no cluster."""
    if not workers(strategy):
        return 0
    resolver = strategy.cluster_resolver
    jobs = resolver.cluster_spec().as_dict()
    if resolver.task_type == "chief":
        return 0
    return resolver.task_id + len(jobs.get("chief", ()))


def barrier(strategy: tf.distribute.Strategy | None = None) -> None:
    """Waits until all workers are here; nothing where there is only one."""
    strategy = strategy or tf.distribute.get_strategy()
    if has_workers(strategy):
        on_all_workers(strategy, [1])


def require_agreement(subject: str, values: dict, strategy: tf.distribute.Strategy | None = None) -> None:
    """Requires that all workers hold the same values; nothing where there is only one. All workers must call it.

    Args:
        subject: what the values are, for the sentence.
        values: plain values by name.
        strategy: None for the current one.

    Raises:
        ValueError: on every worker; names the first value that differs and two workers that differ in it.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if not has_workers(strategy):
        return
    text = json.dumps(values, sort_keys=True, default=str)
    checksums = on_all_workers(strategy, [zlib.crc32(text.encode()) & 0x7FFFFFFF])
    if len({tuple(one) for one in checksums}) > 1:
        length = max(one[0] for one in on_all_workers(strategy, [len(text.encode())]))
        rows = on_all_workers(strategy, list(text.encode().ljust(length)))
        raise ValueError(disagreement(subject, [json.loads(bytes(row).decode()) for row in rows]))


def of_chief(number: int) -> int:
    """The chief's number, below 2**31, on all workers of the current strategy."""
    strategy = tf.distribute.get_strategy()
    return on_all_workers(strategy, [number])[0][0] if has_workers(strategy) else number


def disagreement(subject: str, found: list[dict]) -> str:
    """A sentence about the first value in which workers differ."""
    for index, other in enumerate(found[1:], 1):
        for name in sorted({*found[0], *other}):
            if found[0].get(name) != other.get(name):
                mine, its = found[0].get(name), other.get(name)
                return f"{subject} must be the same on all workers: {name} is {mine!r} on worker 0, {its!r} on {index}"
    return f"{subject} must be the same on all workers"


@contextlib.contextmanager
def worker_errors(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns what collectives say when another worker has ended into a sentence, as a `RuntimeError`."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"/job:worker/(?:replica:\d+/)?task:(\d+)", str(error))
        if found is None or not has_workers(strategy) or "ollective" not in str(error):
            raise
        raise RuntimeError(
            f"worker {found[1]} of {len(workers(strategy))} has ended or cannot be reached, so this one ends too: "
            "start all workers again to go on from the newest saved state"
        ) from error


def on_all_workers(strategy: tf.distribute.Strategy, numbers: list[int]) -> list[list[int]]:
    """The numbers of each worker, in the order of the workers."""
    gathered = _gathering(strategy)(tf.constant([numbers], tf.int32)).numpy()
    return gathered[:: len(strategy.extended.worker_devices)].tolist()


@functools.lru_cache(maxsize=2)
def _gathering(strategy: tf.distribute.Strategy):
    """A function that gathers the rows of all replicas, traced once for each length."""
    return tf.function(lambda row: strategy.gather(strategy.run(tf.identity, (row,)), axis=0), autograph=False)
