"""Batches of rows divided over replicas: row after row, nothing twice, nothing left out.

Replica i of n takes the rows from `size * i // n` up to `size * (i + 1) // n` of each batch. A last batch with fewer
rows than replicas leaves some without any; they take part in the step with empty tensors. Every worker makes the same
batches, so the order must not depend on the worker: a shuffle needs a seed.
"""

import keras
import numpy as np
import tensorflow as tf

from tfheads.distribute.agreement import worker_index
from tfheads.distribute.replicas import workers

ORDER_SEED = 0  # of the order of arrays, another one in each epoch


def local_replicas(strategy: tf.distribute.Strategy) -> int:
    """How many replicas are in this process."""
    return len(strategy.extended.worker_devices)


def divided(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> "tf.distribute.DistributedDataset":
    """Batches of all replicas as a dataset that gives each replica its rows.

    Args:
        batches: of all replicas' rows. With the auto-shard policy OFF they are those of this worker's replicas alone.
        strategy: with one or several workers.
    """
    policy = batches.options().experimental_distribute.auto_shard_policy
    is_own = policy == tf.data.experimental.AutoShardPolicy.OFF
    local, total = local_replicas(strategy), strategy.num_replicas_in_sync

    def parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
        first = 0 if is_own else context.input_pipeline_id * local
        return _parts(batches, first, local, local if is_own else total)

    found = strategy.distribute_datasets_from_function(parts)
    found._cardinality = np.int64(batches.cardinality().numpy())  # in batches, from which Keras counts the steps
    return found


def of_this_worker(source, rows: int, **options) -> tf.data.Dataset:
    """Batches of a source, of which this worker makes only what is for its replicas where they can be sharded.

    Args:
        source: a `tfheads.data.pipeline.BatchSource`; or another thing with `batches`, of which every worker makes all.
        rows: of a batch of all workers; every worker makes all of them if they are no multiple of their number.
        options: of `source.batches`.
    """
    strategy = tf.distribute.get_strategy()
    count = len(workers(strategy)) or 1
    if count == 1 or rows % count or not hasattr(source, "shard"):
        return source.batches(rows, **options)
    found = source.shard(worker_index(strategy), count).batches(rows // count, **options)
    is_own = tf.data.Options()
    is_own.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return found.with_options(is_own)


def _parts(batches: tf.data.Dataset, first: int, count: int, total: int) -> tf.data.Dataset:
    """The parts `first` to `first + count - 1` of `total` of each batch, one after another."""

    def one(*batch, index):
        batch = batch[0] if len(batch) == 1 else batch
        return tf.nest.map_structure(lambda value: _part(value, index, total), batch)

    if count == 1:
        return batches.map(lambda *batch: one(*batch, index=first))
    numbers = tf.data.Dataset.range(first, first + count)
    return batches.flat_map(lambda *batch: numbers.map(lambda index: one(*batch, index=index))).prefetch(count)


def _part(value, index, total: int):
    if isinstance(value, tf.experimental.Optional):
        return value
    size = value.shape[0] if value.shape.rank else None
    rows = tf.cast(tf.shape(value)[0], tf.int64)
    index = tf.cast(index, tf.int64)
    part = value[rows * index // total : rows * (index + 1) // total]
    even = None if size is None or size % total else size // total
    return tf.ensure_shape(part, [even, *value.shape[1:]])


def on_each_replica(batch, strategy: tf.distribute.Strategy):
    """One batch of eager tensors or arrays, divided over the replicas."""
    total = strategy.num_replicas_in_sync
    if total == 1:
        return batch

    def part(context):
        index = context.replica_id_in_sync_group
        return keras.tree.map_structure(
            lambda value: None if value is None else _part(tf.convert_to_tensor(value), index, total), batch
        )

    return strategy.experimental_distribute_values_from_function(part)


def batches_of(
    data: tuple, batch_size: int | None = None, shuffle: bool = False, class_weight: dict | None = None
) -> tf.data.Dataset | None:
    """Batches of (inputs, labels, sample weights) as Keras' loops take them; None for what is no dataset and no array.

    Args:
        data: a dataset of batches; or inputs, and perhaps labels and sample weights, each an array or a dict of arrays.
        batch_size: rows of a batch of arrays, 32 if None.
        shuffle: whether arrays have another order in each epoch.
        class_weight: weight of each class, for labels `[rows]`.
    """
    if isinstance(data[0], tf.data.Dataset):
        return data[0] if class_weight is None else _weighed(data[0], class_weight)
    while len(data) > 1 and data[-1] is None:
        data = data[:-1]
    arrays = keras.tree.flatten(data)
    if not arrays or not all(isinstance(array, (np.ndarray, tf.Tensor)) for array in arrays):
        return None
    found = tf.data.Dataset.from_tensor_slices(data if len(data) > 1 else data[0])
    if shuffle:
        found = found.shuffle(len(arrays[0]), seed=ORDER_SEED, reshuffle_each_iteration=True)
    found = found.batch(batch_size or 32)
    return found if class_weight is None else _weighed(found, class_weight)


def _weighed(batches: tf.data.Dataset, class_weight: dict) -> tf.data.Dataset:
    """Batches of (inputs, labels) with the weight of each row's class."""
    table = tf.constant([class_weight.get(label, 1.0) for label in range(max(class_weight) + 1)], tf.float32)
    return batches.map(lambda inputs, labels: (inputs, labels, tf.gather(table, tf.cast(labels, tf.int32))))


def split_for_validation(data: tuple, part: float) -> tuple[tuple, tuple]:
    """Arrays without their last `part` of the rows, and these."""
    rows = len(keras.tree.flatten(data)[0])
    start = int(rows * (1 - part))
    if not 0 < start < rows:
        raise ValueError(f"validation_split must leave rows on both sides, got {part} of {rows} rows")

    def cut(rows_taken: slice) -> tuple:
        return keras.tree.map_structure(lambda value: None if value is None else value[rows_taken], data)

    return cut(slice(start)), cut(slice(start, None))
