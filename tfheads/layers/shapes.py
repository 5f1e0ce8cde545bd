"""Sizes of axes of which some are known only when a graph runs."""

import tensorflow as tf


def sizes(x: tf.Tensor) -> list:
    """The size of each axis: a number where it is known, else a scalar; all of these come from one operation."""
    if x.shape.is_fully_defined():
        return list(x.shape)
    return [size if known is None else known for known, size in zip(x.shape, tf.unstack(tf.shape(x)), strict=True)]
