"""Runs of neighbours in flat tensors, and rows of different lengths as answers."""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf


class Runs(NamedTuple):
    """Neighbours that belong together.

    Attributes:
        ids: the number of the run of each item `[items]`.
        first, last: the number of the first and the last item of each run `[runs]`.
    """

    ids: tf.Tensor
    first: tf.Tensor
    last: tf.Tensor

    @property
    def count(self) -> tf.Tensor:
        """How many runs there are."""
        return tf.size(self.first)


def runs_from(begins: tf.Tensor) -> Runs:
    """Runs from the flags of their first items `[items]`; that of the first item is not read."""
    begins = tf.concat([[True], begins[1:]], 0)[: tf.size(begins)]
    first = tf.cast(tf.where(begins)[:, 0], tf.int32)
    last = tf.concat([first[1:], [tf.size(begins)]], 0)[: tf.size(first)] - 1
    return Runs(tf.cumsum(tf.cast(begins, tf.int32)) - 1, first, last)


def changes(values: tf.Tensor) -> tf.Tensor:
    """Which values `[items]` differ from the one before; True for the first."""
    return tf.concat([[True], values[1:] != values[:-1]], 0)[: tf.size(values)]


def padded_by_row(values: Mapping[str, tf.Tensor], rows: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
    """Values `[items]` as `[count, items of the row]`, filled up with 0 or "", and `count`, how many each row has.

    Args:
        values: by name.
        rows: the row of each item, sorted.
        count: how many rows there are.
    """
    lengths = tf.math.bincount(rows, minlength=count, maxlength=count)
    padded = {name: tf.RaggedTensor.from_row_lengths(value, lengths).to_tensor() for name, value in values.items()}
    return {**padded, "count": lengths}
