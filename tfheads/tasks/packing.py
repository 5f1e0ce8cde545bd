"""Rows without gaps: real tokens moved to the left, in the graph and with static shapes."""

import tensorflow as tf


def packed(values: tf.Tensor, real: tf.Tensor, fill: int) -> tf.Tensor:
    """Each row's real entries, in their order, then `fill`.

    Args:
        values: whole numbers `[batch, time]`.
        real: booleans of that shape.
        fill: stands behind the real entries.

    Returns:
        `[batch, time]`, of the type of `values`.
    """
    shape = tf.shape(values)
    rows = tf.broadcast_to(tf.range(shape[0])[:, None], shape)
    places = tf.where(real, tf.cumsum(tf.cast(real, tf.int32), axis=1) - 1, shape[1])  # the others: a column to drop
    moved = tf.scatter_nd(tf.stack([rows, places], -1), values, [shape[0], shape[1] + 1])[:, :-1]
    moved = tf.where(tf.range(shape[1]) < lengths(real)[:, None], moved, tf.cast(fill, values.dtype))
    return tf.ensure_shape(moved, values.shape)


def lengths(real: tf.Tensor) -> tf.Tensor:
    """How many entries of each row are real `[batch]`, int32."""
    return tf.reduce_sum(tf.cast(real, tf.int32), axis=1)
