"""What goes from replica to replica: sums within a step, rows of a result after it."""

import keras
import tensorflow as tf

GATHERED_AS = {tf.bool: tf.int32, tf.float16: tf.float32, tf.bfloat16: tf.float32}  # what all collectives know


def sum_over_replicas(values):
    """The sum of each tensor over all replicas; the tensors themselves where there is only one replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether the replicas are in several processes."""
    return len(workers(strategy)) > 1


def workers(strategy: tf.distribute.Strategy) -> list[str]:
    """The addresses of the workers of a cluster, the chief's first; empty where there is no cluster."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not strategy.extended._in_multi_worker_mode():
        return []
    jobs = resolver.cluster_spec().as_dict()
    return [address for job in ("chief", "worker") for address in jobs.get(job, ())]


def first_replica(values, strategy: tf.distribute.Strategy):
    """What the first of this process' replicas gave."""
    return keras.tree.map_structure(lambda value: strategy.experimental_local_results(value)[0], values)


def rows_of_all_replicas(values, strategy: tf.distribute.Strategy):
    """Tensors `[rows of a replica, ...]` joined to `[rows, ...]`, in the order of the replicas, on every worker."""
    join = _gathered if has_workers(strategy) else _concatenated
    return keras.tree.map_structure(lambda value: join(value, strategy), values)


def _concatenated(value, strategy):
    parts = strategy.experimental_local_results(value)
    if len(parts) == 1:
        return parts[0]
    return tf.stack(parts) if parts[0].shape.rank == 0 else tf.concat(parts, 0)


def _gathered(value, strategy):
    dtype = strategy.experimental_local_results(value)[0].dtype
    sent = GATHERED_AS.get(dtype, dtype)
    if sent != dtype:
        value = strategy.run(lambda part: tf.cast(part, sent), (value,))
    return tf.cast(strategy.gather(value, axis=0), dtype)
