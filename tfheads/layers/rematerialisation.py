"""Blocks whose inner values are computed again for the gradient instead of being kept (Chen et al. 2016)."""

from collections.abc import Callable

import tensorflow as tf

from tfheads.layers.dropout import Seeds


def rematerialised(block: Callable, hidden: tf.Tensor, given: dict, training) -> tf.Tensor:
    """What `block` makes of `hidden`, of whose inner values nothing is kept for the gradient.

    Args:
        block: a layer `(hidden, **given, training) -> (hidden, cache)`.
        hidden: `[batch, time, hidden]`.
        given: its other arguments, nested; gradients flow through the floating-point tensors among them.
        training: whether dropout is active; its masks are the same both times.
    """
    flat = tf.nest.flatten(given)
    is_float = [tf.is_tensor(value) and value.dtype.is_floating for value in flat]
    seeds = Seeds()

    def run(hidden, *floats):
        floats = iter(floats)
        values = [next(floats) if found else value for value, found in zip(flat, is_float, strict=True)]
        with seeds:
            return block(hidden, **tf.nest.pack_sequence_as(given, values), training=training)[0]

    floats = [value for value, found in zip(flat, is_float, strict=True) if found]
    return tf.recompute_grad(run)(hidden, *floats)
