"""Writing into the fixed slots of a decoding state."""

import tensorflow as tf
from keras import ops
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


def write_slots(old: tf.Tensor, new: tf.Tensor, slot, axis: int) -> tf.Tensor:
    """`old` with `new` written into it along `axis`, from `slot` on; the other axes are equal.

    XLA updates the slice in place. Outside XLA its operation would call the XLA compiler for every shape, and
    TensorFlow Serving has no XLA compiler, so there the rows are scattered, which TensorFlow does in place too.
    """
    if GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return ops.slice_update(old, [slot if index == axis else 0 for index in range(len(old.shape))], new)
    sizes = tf.unstack(tf.shape(new)[: axis + 1])
    places = [tf.range(size) for size in sizes[:-1]] + [slot + tf.range(sizes[-1])]
    return tf.tensor_scatter_nd_update(old, tf.stack(tf.meshgrid(*places, indexing="ij"), axis=-1), new)
