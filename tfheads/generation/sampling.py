"""Drawing tokens, and what restricts the draw; every option is a tensor, so that changing one needs no new trace."""

import functools

import tensorflow as tf

EXCLUDED = float("-inf")  # a logit that is never chosen
FEW = 64  # up to so many largest logits XLA finds fast; `top_k` is 50 unless it is given


def drawn(logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A token of each row `[batch]`, drawn from the softmax of `[batch, vocabulary]`."""
    return tf.argmax(perturbed(logits, seed), axis=-1, output_type=tf.int32)


def drawn_by_rows(logits: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """As `drawn`, but with a seed for each row `[batch, 2]`: a row gets what it gets alone."""
    if logits.shape[0] == 1:
        return drawn(logits, seeds[0])
    return tf.map_fn(lambda row: drawn(row[0][None], row[1])[0], (logits, seeds), fn_output_signature=tf.int32)


def perturbed(logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Logits with Gumbel noise: the k largest are k draws from the softmax without replacement, in their order."""
    noise = tf.random.stateless_uniform(tf.shape(logits), seed, minval=1e-20, maxval=1.0)
    return logits - tf.math.log(-tf.math.log(noise))


def keep_top_k(logits: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Excludes all but the `k` largest logits of a row, and those equal to the smallest; a scalar, or `[rows]`."""
    few = min(FEW, logits.shape[-1])
    k = tf.broadcast_to(k, tf.shape(logits)[:1])

    def among_few():
        return tf.gather(tf.math.top_k(logits, few)[0], k[:, None] - 1, batch_dims=1)

    def among_all():
        keys = ordered_bits(logits)
        kth = largest_key(
            lambda key: tf.reduce_sum(tf.cast(keys >= key[:, None], "int32"), -1) >= k, tf.shape(logits)[0]
        )
        return tf.reduce_min(tf.where(keys >= kth[:, None], logits, float("inf")), axis=-1, keepdims=True)

    return tf.where(logits >= tf.cond(tf.reduce_all(k <= few), among_few, among_all), logits, EXCLUDED)


def keep_top_p(logits: tf.Tensor, p: tf.Tensor, least: int = 1) -> tf.Tensor:
    """Keeps the likeliest tokens until their probabilities add up to `p` (Holtzman et al. 2019).

    A token stays if the tokens that are likelier add up to less than `p`, or if it is among the `least` likeliest.
    """
    return _keep_first(logits, logits, p, least)


def keep_min_p(logits: tf.Tensor, p: tf.Tensor, least: int = 1) -> tf.Tensor:
    """Keeps tokens at least `p` times as likely as the likeliest (Nguyen et al. 2024)."""
    probabilities = tf.nn.softmax(logits)
    kept = probabilities >= p * tf.reduce_max(probabilities, axis=-1, keepdims=True)
    return tf.where(kept | _among_first(logits, least), logits, EXCLUDED)


def keep_typical(logits: tf.Tensor, mass: tf.Tensor, least: int = 1) -> tf.Tensor:
    """Keeps tokens whose information is nearest to the entropy until they add up to `mass` (Meister et al. 2022)."""
    information = -tf.nn.log_softmax(logits)
    return _keep_first(logits, -tf.abs(information - _entropy(information)), mass, least)


def keep_above(logits: tf.Tensor, epsilon: tf.Tensor, least: int = 1) -> tf.Tensor:
    """Keeps tokens with a probability of at least `epsilon` (Hewitt et al. 2022)."""
    return tf.where((tf.nn.softmax(logits) >= epsilon) | _among_first(logits, least), logits, EXCLUDED)


def keep_eta(logits: tf.Tensor, epsilon: tf.Tensor, least: int = 1) -> tf.Tensor:
    """As `keep_above`, with a limit that falls where the entropy is high (Hewitt et al. 2022)."""
    limit = tf.minimum(epsilon, tf.sqrt(epsilon) * tf.exp(-_entropy(-tf.nn.log_softmax(logits))))
    return keep_above(logits, limit, least)


def temperature(logits, context, value):
    """Divides logits, all by one number or each row by its own `[rows]`."""
    return logits / tf.reshape(value, (-1, 1))


def top_k(logits, context, k):
    """`keep_top_k`; 0 for no limit. A scalar, or `[rows]`."""
    limited = tf.reshape(k > 0, (-1, 1))
    k = tf.maximum(k, context.keep)
    return tf.cond(tf.reduce_any(limited), lambda: tf.where(limited, keep_top_k(logits, k), logits), lambda: logits)


def top_p(logits, context, p):
    """`keep_top_p`; 1 for no limit. A scalar, or `[rows]`."""
    limited = tf.reshape(p < 1.0, (-1, 1))
    kept = functools.partial(keep_top_p, logits, p, context.keep)
    return tf.cond(tf.reduce_any(limited), lambda: tf.where(limited, kept(), logits), lambda: logits)


WARPERS = {
    "temperature": temperature,
    "top_k": top_k,
    "top_p": top_p,
    "min_p": lambda logits, context, p: keep_min_p(logits, p, context.keep),
    "typical_p": lambda logits, context, mass: keep_typical(logits, mass, context.keep),
    "epsilon_cutoff": lambda logits, context, epsilon: keep_above(logits, epsilon, context.keep),
    "eta_cutoff": lambda logits, context, epsilon: keep_eta(logits, epsilon, context.keep),
}
"""What works only where tokens are drawn, in transformers' order; see `tfheads.generation.processors`."""


def _keep_first(logits, order, mass, least):
    """Keeps tokens from the largest `order` on until their probabilities add up to `mass`."""
    keys, probabilities = ordered_bits(order), tf.nn.softmax(logits)

    def enough_above(key):
        return tf.reduce_sum(tf.where(keys >= key[:, None], probabilities, 0.0), -1) >= mass

    last = largest_key(enough_above, tf.shape(logits)[0])
    kept = keys >= last[:, None]
    return tf.where(kept if least == 1 else kept | _among_first(order, least), logits, EXCLUDED)


def _among_first(order, least):
    """Which tokens are among the `least` with the largest `order`."""
    if least == 1:
        return order >= tf.reduce_max(order, axis=-1, keepdims=True)
    return order >= tf.math.top_k(order, min(least, order.shape[-1]))[0][:, -1:]


def _entropy(information):
    return tf.reduce_sum(tf.math.multiply_no_nan(information, tf.exp(-information)), axis=-1, keepdims=True)


def ordered_bits(values: tf.Tensor) -> tf.Tensor:
    """Whole numbers in the order of the float32 `values`."""
    bits = tf.bitcast(values, tf.int32)
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, 0x7FFFFFFF), bits)


def largest_key(holds, rows: tf.Tensor) -> tf.Tensor:
    """For each row the largest int32 for which `holds`, a function that turns from true to false once, is true.

    Found bit by bit in 32 passes: no sort of the vocabulary, which XLA compiles badly on CPUs. A loop of few long
    turns: a turn costs time where the graph runs as it is, passes without a loop cost time to compile.
    """

    def with_bit(key, bit):
        higher = key + bit
        return tf.where(holds(higher), higher, key)

    def with_next_bits(bit, key):
        for place in range(5):
            key = with_bit(key, tf.bitwise.right_shift(bit, place))
        return tf.bitwise.right_shift(bit, 5), key

    lowest = tf.fill([rows], tf.int32.min)
    key = with_bit(tf.where(holds(tf.zeros_like(lowest)), 0, lowest), 1 << 30)
    rest = (tf.constant(1 << 29), key)
    return tf.while_loop(lambda bit, _: bit > 0, with_next_bits, rest, parallel_iterations=1)[1]
