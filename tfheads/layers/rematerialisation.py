"""Blocks whose inner values are computed again for the gradient instead of being kept (Chen et al. 2016)."""

from collections.abc import Callable

import tensorflow as tf

from tfheads.layers.context import BlockContext, MixerOutput
from tfheads.layers.dropout import Seeds


def rematerialised(block: Callable, hidden: tf.Tensor, context: BlockContext, training) -> MixerOutput:
    """What `block` makes of `hidden`, of whose inner values nothing is kept for the gradient.

    Args:
        block: a layer `(hidden, context, training) -> MixerOutput`.
        hidden: `[batch, time, hidden]`.
        context: gradients flow through the floating-point tensors in it.
        training: whether dropout is active; its masks are the same both times.
    """
    given = vars(context)
    flat = tf.nest.flatten(given)
    is_float = [tf.is_tensor(value) and value.dtype.is_floating for value in flat]
    seeds, names = Seeds(), []

    def run(hidden, *floats):
        floats = iter(floats)
        values = [next(floats) if found else value for value, found in zip(flat, is_float, strict=True)]
        with seeds:
            output = block(hidden, context=BlockContext(**tf.nest.pack_sequence_as(given, values)), training=training)
        names[:] = output.side_outputs
        return (output.hidden, *output.side_outputs.values())

    floats = [value for value, found in zip(flat, is_float, strict=True) if found]
    hidden, *values = tf.recompute_grad(run)(hidden, *floats)
    return MixerOutput(hidden, side_outputs=dict(zip(names, values, strict=True)))
