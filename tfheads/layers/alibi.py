"""Attention with linear biases."""

import math

import numpy as np
from keras import ops

from tfheads.layers.part import Part, part


@part
class LinearPositionBias(Part):
    """A score bias that grows with a key's position, in each head at a rate of its own (ALiBi, Press et al. 2021).

    The softmax sees differences alone, so the distance to the query need not be taken.

    Args:
        num_heads: number of query heads.
    """

    def __init__(self, num_heads: int, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def call(self, positions, key_positions):
        """The bias `[1 or batch, heads, 1, keys]` for key positions `[1 or batch, keys]`."""
        return slopes(self.num_heads)[None, :, None, None] * ops.expand_dims(ops.cast(key_positions, "float32"), (1, 2))


def slopes(num_heads: int) -> np.ndarray:
    """The rate of each head: a geometric series for a power of two, else with every second of the next one behind."""
    power = 2 ** math.floor(math.log2(num_heads))
    first = [2.0 ** (-8.0 * index / power) for index in range(1, power + 1)]
    between = [2.0 ** (-4.0 * index / power) for index in range(1, 2 * power + 1, 2)]
    return np.asarray([*first, *between][:num_heads], "float32")
