"""From logits to the next token; every option is a tensor, so that changing one needs no new trace."""

from typing import NamedTuple

import tensorflow as tf

EXCLUDED = -1e30  # a logit that is never chosen; finite in float32


class Options(NamedTuple):
    """The options of a compiled loop, as tensors.

    Attributes:
        max_new_tokens: scalar int32.
        min_new_tokens: `[batch]` int32.
        temperature, top_p: float32 scalars.
        top_k: int32 scalar, 0 for no limit.
        seed: int32 `[2]`.
        eos_token_ids: int32 `[ends]`; -1 fills unused places.
        pad_token_id: int32 scalar.
    """

    max_new_tokens: tf.Tensor
    min_new_tokens: tf.Tensor
    temperature: tf.Tensor
    top_k: tf.Tensor
    top_p: tf.Tensor
    seed: tf.Tensor
    eos_token_ids: tf.Tensor
    pad_token_id: tf.Tensor


def next_token(logits: tf.Tensor, step: tf.Tensor, options: Options, sample: bool) -> tf.Tensor:
    """The next token of each row `[batch]` from float32 logits `[batch, vocabulary]`."""
    too_early = (step < options.min_new_tokens)[:, None]
    ids = tf.range(tf.shape(logits)[1])
    is_end = tf.reduce_any(ids[:, None] == options.eos_token_ids[None, :], axis=1)
    logits = tf.where(too_early & is_end[None, :], EXCLUDED, logits)
    if not sample:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    logits = logits / options.temperature
    logits = tf.cond(options.top_k > 0, lambda: keep_top_k(logits, options.top_k), lambda: logits)
    logits = tf.cond(options.top_p < 1.0, lambda: keep_top_p(logits, options.top_p), lambda: logits)
    seed = options.seed + tf.stack([0, step])
    noise = tf.random.stateless_uniform(tf.shape(logits), seed, minval=1e-20, maxval=1.0)
    return tf.argmax(logits - tf.math.log(-tf.math.log(noise)), axis=-1, output_type=tf.int32)


def keep_top_k(logits: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Excludes all but the `k` largest logits of a row, and those equal to the smallest of them."""
    keys = ordered_bits(logits)
    kth = largest_key(lambda key: tf.reduce_sum(tf.cast(keys >= key[:, None], tf.int32), -1) >= k, tf.shape(logits)[0])
    return tf.where(keys >= kth[:, None], logits, EXCLUDED)


def keep_top_p(logits: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
    """Keeps the likeliest tokens until their probabilities add up to `p` (Holtzman et al. 2019).

    A token stays if the tokens that are likelier add up to less than `p`.
    """
    keys, probabilities = ordered_bits(logits), tf.nn.softmax(logits)

    def enough_above(key):
        return tf.reduce_sum(tf.where(keys >= key[:, None], probabilities, 0.0), -1) >= p

    last = largest_key(enough_above, tf.shape(logits)[0])
    return tf.where(keys >= last[:, None], logits, EXCLUDED)


def ordered_bits(values: tf.Tensor) -> tf.Tensor:
    """Whole numbers in the order of the float32 `values`."""
    bits = tf.bitcast(values, tf.int32)
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, 0x7FFFFFFF), bits)


def largest_key(holds, rows: tf.Tensor) -> tf.Tensor:
    """For each row the largest int32 for which `holds`, a function that turns from true to false once, is true.

    Found bit by bit in 32 passes: no sort of the vocabulary, which XLA compiles badly on CPUs.
    """
    lowest = tf.fill([rows], tf.int32.min)
    key = tf.where(holds(tf.zeros_like(lowest)), 0, lowest)
    for bit in range(30, -1, -1):
        higher = key + (1 << bit)
        key = tf.where(holds(higher), higher, key)
    return key
