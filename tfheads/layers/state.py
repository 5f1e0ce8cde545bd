"""What a stack remembers between the steps of a generation."""

from typing import NamedTuple

import tensorflow as tf


class DecodingState(NamedTuple):
    """What a stack remembers between the steps of a generation; every shape is fixed at the start.

    Slots are not positions: all rows write the same slot, each row carries positions of its own.

    Attributes:
        caches: what each block remembers.
        filled: booleans `[batch, slots]`: the slot holds a real token of the row.
        positions: `[batch, slots]`: the position of that token.
        encoder_mask: booleans `[batch, source]`, an empty tuple without an encoder.
    """

    caches: tuple
    filled: tf.Tensor
    positions: tf.Tensor
    encoder_mask: tf.Tensor | tuple = ()
