"""The base of what a block is made of: layers that mix tokens, or the values of each token."""

import tensorflow as tf

from tfheads.layers.context import BlockContext, MixerOutput
from tfheads.layers.part import Part


class Mixer(Part):
    """A layer from hidden values to hidden values that owns what it remembers from one call to the next.

    Generation, streams and served loops hold what `empty_cache` makes and never look into it: each of its tensors has
    the batch as its first axis, and keeps its shape.
    """

    def call(self, hidden: tf.Tensor, context: BlockContext, cache: tuple = (), training=None) -> MixerOutput:
        """Mixes `hidden` `[batch, time, hidden]`.

        Args:
            context: what is the same for every block of the stack.
            cache: what this mixer remembers of earlier calls; an empty tuple to remember nothing.
        """
        raise NotImplementedError

    def empty_cache(self, batch, slots) -> tuple:
        """What is remembered before the first token, for `batch` rows that may grow to `slots` tokens."""
        return ()

    def reordered(self, cache: tuple, rows: tf.Tensor, slot, size) -> tuple:
        """The cache in which each row has what `rows` `[batch]` have.

        Args:
            rows: each row and the one that it takes from were equal before the `size` slots from `slot` on.
        """
        return tf.nest.map_structure(lambda values: tf.gather(values, rows), cache)
