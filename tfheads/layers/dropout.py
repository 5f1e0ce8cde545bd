"""Dropout whose mask costs next to nothing."""

from contextvars import ContextVar

import keras
import tensorflow as tf

from tfheads.layers.checkpoint_children import HasCheckpointChildren


class Seeds:
    """Scope in which dropout draws its seeds, when it is entered first, and takes the same ones each time after.

    What is computed again for a gradient must have the masks that it had before.
    """

    def __init__(self):
        self._drawn: list[tf.Tensor] = []
        self._entered, self._next, self._token = 0, 0, None

    def __enter__(self) -> "Seeds":
        self._entered, self._next, self._token = self._entered + 1, 0, _seeds.set(self)
        return self

    def __exit__(self, *exception) -> None:
        _seeds.reset(self._token)

    def next(self, draw) -> tf.Tensor:
        """The next seed, drawn by `draw()` the first time."""
        if self._entered == 1:
            self._drawn.append(draw())
        self._next += 1
        return self._drawn[self._next - 1]


_seeds: ContextVar[Seeds | None] = ContextVar("seeds", default=None)


@keras.saving.register_keras_serializable("tfheads")
class Dropout(HasCheckpointChildren, keras.layers.Dropout):
    """Dropout with a mask computed from each element's place by an integer hash (Srivastava et al. 2014).

    TensorFlow's counter-based generators take longer than the attention that they mask when XLA compiles them for a
    CPU. A hash of place and seed is a few operations that XLA fuses into the product that the mask is for. The seed is
    Keras' `SeedGenerator`: it changes with each call and is part of the model's state.
    """

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        seeds = _seeds.get()
        seed = self._seed() if seeds is None else seeds.next(self._seed)
        kept = uniform_bits(tf.shape(inputs), seed) >= tf.constant(int(self.rate * 2**32), tf.uint32)
        return tf.where(kept, inputs / tf.cast(1.0 - self.rate, inputs.dtype), tf.zeros_like(inputs))

    def _seed(self) -> tf.Tensor:
        """Two numbers, others on each replica."""
        seed = tf.cast(self.seed_generator.next(), tf.uint32)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        return seed + tf.cast(tf.stack([context.replica_id_in_sync_group, 0]), tf.uint32) * hash_bits(seed)


def uniform_bits(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Uniform uint32 numbers of a shape, from two uint32 numbers."""
    places = tf.cast(tf.reshape(tf.range(tf.reduce_prod(shape)), shape), tf.uint32)
    first, second = tf.unstack(hash_bits(seed))
    return hash_bits(hash_bits(places + first) ^ second)


def hash_bits(bits: tf.Tensor) -> tf.Tensor:
    """An invertible mixing of 32 bits in which each input bit changes each output bit half of the time.

    The constants are those of Wellons' search for low bias, https://github.com/skeeto/hash-prospector.
    """
    for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97)):
        bits = (bits ^ tf.bitwise.right_shift(bits, tf.constant(shift, tf.uint32))) * tf.constant(factor, tf.uint32)
    return bits ^ tf.bitwise.right_shift(bits, tf.constant(15, tf.uint32))
