"""A learned score bias for each distance between tokens."""

import math

import numpy as np
import tensorflow as tf
from keras import ops

from tfheads.layers.part import Part, embedding, part


@part
class BucketedPositionBias(Part):
    """A learned score bias for each head and bucket of distances, shared by all blocks of a stack (Raffel et al. 2019).

    Args:
        num_buckets: how many buckets there are.
        max_distance: from this distance on all are in the last bucket.
        num_heads: number of query heads.
        both_sides: whether keys behind the query have buckets of their own, as in an encoder.
    """

    def __init__(self, num_buckets: int, max_distance: int, num_heads: int, both_sides: bool, **kwargs):
        super().__init__(**kwargs)
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.num_heads, self.both_sides = num_heads, both_sides
        self.bias = embedding(num_buckets, num_heads, self.dtype_policy)
        self.buckets = distance_buckets(num_buckets // 2 if both_sides else num_buckets, max_distance)

    def call(self, positions, key_positions):
        """The bias `[1 or batch, heads, time, keys]` of positions `[1 or batch, time]` and `[1 or batch, keys]`."""
        behind = ops.cast(key_positions, "int32")[:, None, :] - ops.cast(positions, "int32")[:, :, None]
        if self.both_sides:
            buckets = self._of(ops.abs(behind)) + ops.where(behind > 0, self.num_buckets // 2, 0)
        else:
            buckets = self._of(ops.maximum(-behind, 0))
        values = tf.gather(ops.cast(self.bias.embeddings, "float32"), buckets)
        return ops.transpose(values, (0, 3, 1, 2))

    def _of(self, distances):
        return tf.gather(self.buckets, ops.minimum(distances, len(self.buckets) - 1))


def distance_buckets(num_buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of each distance from 0 to `max_distance`: one for each up to the middle, then ever wider ones."""
    exact = num_buckets // 2
    distances = np.arange(max_distance + 1)
    growth = np.log(np.maximum(distances, 1).astype("float32") / np.float32(exact))
    wide = exact + (growth / np.float32(math.log(max_distance / exact)) * np.float32(num_buckets - exact)).astype(int)
    return np.where(distances < exact, distances, np.minimum(wide, num_buckets - 1)).astype("int32")
