"""Places that are reached from others by following links, found without a step for each link."""

import tensorflow as tf


def reached(following: tf.Tensor, marked: tf.Tensor, longest: tf.Tensor) -> tf.Tensor:
    """The places that are marked and those that links lead to from them; each round follows twice as many links.

    Args:
        following: the place that each one leads to, its own at the end of a chain `[places]`.
        marked: True where chains begin `[places]`.
        longest: no chain has more links.

    Returns:
        True for the places on chains `[places]`.
    """

    def step(reach, following, marked):
        target = tf.gather(following, tf.where(marked)[:, 0])
        marked = tf.tensor_scatter_nd_update(marked, target[:, None], tf.fill(tf.shape(target), True))
        return 2 * reach, tf.gather(following, following), marked

    some = tf.TensorShape([None])
    shapes = (tf.TensorShape([]), some, some)
    return tf.while_loop(lambda reach, *_: reach <= longest, step, (1, following, marked), shape_invariants=shapes)[2]
