"""Writing into the fixed slots of a decoding state."""

import tensorflow as tf
from keras import ops

from tfheads.layers.compilation import under_xla
from tfheads.layers.shapes import sizes


def write_slots(old: tf.Tensor, new: tf.Tensor, slot, axis: int) -> tf.Tensor:
    """`old` with `new` written into it along `axis`, from `slot` on; the other axes are equal.

    XLA updates the slice in place. Outside XLA its operation would call the XLA compiler for every shape, and
    TensorFlow Serving has no XLA compiler, so there the rows are scattered, which TensorFlow does in place too.
    """
    if under_xla():
        return ops.slice_update(old, [slot if index == axis else 0 for index in range(len(old.shape))], new)
    *before, length = sizes(new)[: axis + 1]
    places = [*map(tf.range, before), slot + tf.range(length)]
    return tf.tensor_scatter_nd_update(old, tf.stack(tf.meshgrid(*places, indexing="ij"), axis=-1), new)
