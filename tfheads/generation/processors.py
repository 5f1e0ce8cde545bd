"""Changes of logits before a token is chosen: pure functions, composed in transformers' order.

Each takes float32 logits `[rows, vocabulary]` (log probabilities in beam search), a `Context` and the values of all
options that are on, and gives new logits.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from tfheads.generation.sampling import EXCLUDED, WARPERS


class Context(NamedTuple):
    """What processors know of the rows.

    Attributes:
        tokens: prompt and new tokens `[rows, room]` from the first column on; None if no processor reads them.
        lengths: how many of `tokens` there are so far `[rows]`.
        step: how many tokens are new, scalar.
        max_new_tokens: scalar, or `[rows]`.
        is_end: which tokens end a row `[vocabulary]`.
        source: what an encoder read, or the prompt, `[rows, source]`, and which of it is real, likewise.
        taken: how often beams of earlier groups chose each token at this step `[rows, vocabulary]`; None for no groups.
        keep: how many tokens the restrictions of sampling leave at least.
    """

    tokens: tf.Tensor | None
    lengths: tf.Tensor
    step: tf.Tensor
    max_new_tokens: tf.Tensor
    is_end: tf.Tensor
    source: tuple[tf.Tensor, tf.Tensor] | None
    taken: tf.Tensor | None = None
    keep: int = 1


class Bias(NamedTuple):
    """What is added to tokens, and to the last token of sequences whose other tokens stand before it.

    Attributes:
        tokens: `[vocabulary]`.
        prefixes: the other tokens of longer sequences `[sequences, longest]`, on the right; -1 before them, -2 where
            there is no sequence.
        last: the last token of each `[sequences]`.
        values: what is added to it `[sequences]`.
    """

    tokens: tf.Tensor
    prefixes: tf.Tensor
    last: tf.Tensor
    values: tf.Tensor


def add_bias(logits: tf.Tensor, context: Context, bias: Bias) -> tf.Tensor:
    """Adds a bias to tokens and to ends of sequences (`sequence_bias`; minus infinity for `bad_words_ids`)."""
    logits = logits + bias.tokens
    longest = bias.prefixes.shape[1]
    if bias.prefixes.shape[0] == 0:
        return logits
    places = context.lengths[:, None] - longest + tf.range(longest)
    recent = tf.gather(context.tokens, tf.maximum(places, 0), batch_dims=1)
    recent = tf.where(places >= 0, recent, -3)
    fits = (bias.prefixes[None] == recent[:, None]) | (bias.prefixes == -1)[None]
    added = tf.where(tf.reduce_all(fits, axis=-1), bias.values, 0.0)
    sums = tf.math.unsorted_segment_sum(tf.transpose(added), bias.last, logits.shape[-1])
    return logits + tf.transpose(sums)


def encoder_repetition_penalty(logits, context, penalty):
    """Makes tokens of the source likelier if `penalty` is above 1."""
    return _penalised(logits, occurring(*context.source, logits.shape[-1]), 1 / penalty)


def repetition_penalty(logits, context, penalty):
    """Makes tokens that occurred less likely if `penalty` is above 1 (Keskar et al. 2019)."""
    return _penalised(logits, occurring(context.tokens, _real(context), logits.shape[-1]), penalty)


def no_repeat_ngram_size(logits, context, size):
    """Excludes tokens that would complete a sequence of `size` tokens a second time (Paulus et al. 2017)."""
    repeats = _completing(context.tokens, _real(context), context, size)
    return tf.where(occurring(context.tokens, repeats, logits.shape[-1]), EXCLUDED, logits)


def encoder_no_repeat_ngram_size(logits, context, size):
    """Excludes tokens that would complete a sequence of `size` tokens of the source."""
    tokens, real = context.source
    return tf.where(occurring(tokens, _completing(tokens, real, context, size), logits.shape[-1]), EXCLUDED, logits)


def min_new_tokens(logits, context, least):
    """Excludes ends before `least` new tokens, scalar or `[rows]`."""
    too_early = tf.reshape(context.step < least, (-1, 1))
    return tf.where(too_early & context.is_end, EXCLUDED, logits)


def forced_bos_token_id(logits, context, token):
    """Leaves only `token` where a row has one token so far."""
    forced = tf.where(tf.range(logits.shape[-1]) == token, 0.0, EXCLUDED)
    return tf.where((context.lengths == 1)[:, None], forced, logits)


def forced_eos_token_id(logits, context, tokens):
    """Leaves only `tokens` `[vocabulary]` at the last possible step."""
    last = tf.reshape(context.step == context.max_new_tokens - 1, (-1, 1))
    return tf.where(last, tf.where(tokens, 0.0, EXCLUDED), logits)


def remove_invalid_values(logits, context, _):
    """Makes NaN 0 and infinite values the largest finite ones."""
    logits = tf.where(tf.math.is_nan(logits), 0.0, logits)
    return tf.clip_by_value(logits, tf.float32.min, tf.float32.max)


def exponential_decay_length_penalty(logits, context, start_and_factor):
    """Makes ends likelier by a factor with each step from a start on."""
    start, factor = start_and_factor[0], start_and_factor[1]
    more = tf.abs(logits) * (factor ** tf.maximum(tf.cast(context.step, "float32") - start, 0.0) - 1.0)
    return tf.where(context.is_end & tf.math.is_finite(logits), logits + more, logits)


def suppress_tokens(logits, context, tokens):
    """Excludes `tokens` `[vocabulary]`."""
    return tf.where(tokens, EXCLUDED, logits)


def begin_suppress_tokens(logits, context, tokens_and_forced):
    """Excludes tokens `[vocabulary]` at the first step, or at the second where the first token was forced."""
    tokens, forced = tokens_and_forced
    first = tf.cast(forced & (context.lengths - context.step == 1), "int32")
    return tf.where((context.step == first)[:, None] & tokens, EXCLUDED, logits)


def diversity_penalty(logits, context, penalty):
    """Makes tokens less likely that earlier groups of beams chose at this step (Vijayakumar et al. 2018)."""
    return logits - penalty * context.taken


def renormalize_logits(logits, context, _):
    """Makes logits log probabilities again."""
    return tf.nn.log_softmax(logits)


PROCESSORS: dict[str, Callable] = {
    "sequence_bias": add_bias,
    "diversity_penalty": diversity_penalty,
    "encoder_repetition_penalty": encoder_repetition_penalty,
    "repetition_penalty": repetition_penalty,
    "no_repeat_ngram_size": no_repeat_ngram_size,
    "encoder_no_repeat_ngram_size": encoder_no_repeat_ngram_size,
    "bad_words_ids": add_bias,
    "min_new_tokens": min_new_tokens,
    "forced_bos_token_id": forced_bos_token_id,
    "forced_eos_token_id": forced_eos_token_id,
    "remove_invalid_values": remove_invalid_values,
    "exponential_decay_length_penalty": exponential_decay_length_penalty,
    "suppress_tokens": suppress_tokens,
    "begin_suppress_tokens": begin_suppress_tokens,
    **WARPERS,
    "renormalize_logits": renormalize_logits,
}
"""All of them in the order in which they work, by the name of their option."""

READ_TOKENS = {
    "sequence_bias",
    "bad_words_ids",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
}
"""Those that read what was generated so far."""


def processed(logits: tf.Tensor, names: frozenset[str], context: Context, values: Mapping) -> tf.Tensor:
    """The logits after the processors called `names`; those that are off leave no operation behind."""
    for name, processor in PROCESSORS.items():
        if name in names:
            logits = processor(logits, context, values[name])
    return logits


def occurring(tokens: tf.Tensor, counted: tf.Tensor, vocabulary: int) -> tf.Tensor:
    """Which tokens of the vocabulary `[rows, vocabulary]` stand in `tokens` `[rows, time]` where `counted` is true."""
    return token_counts(tokens, counted, vocabulary) > 0


def token_counts(tokens: tf.Tensor, counted: tf.Tensor, vocabulary: int) -> tf.Tensor:
    """How often each token of the vocabulary `[rows, vocabulary]` stands in `tokens` `[rows, time]`, int32."""
    rows = tf.broadcast_to(tf.range(tf.shape(tokens)[0])[:, None], tf.shape(tokens))
    counted = counted & (tokens >= 0) & (tokens < vocabulary)
    places = tf.stack([rows, tf.clip_by_value(tokens, 0, vocabulary - 1)], axis=-1)
    return tf.scatter_nd(places, tf.cast(counted, "int32"), [tf.shape(tokens)[0], vocabulary])


def _penalised(logits, which, penalty):
    return tf.where(which, tf.where(logits < 0, logits * penalty, logits / penalty), logits)


def _real(context):
    return tf.range(tf.shape(context.tokens)[1])[None, :] < context.lengths[:, None]


def _completing(tokens, real, context, size):
    """Where in `tokens` a token follows the `size - 1` most recent tokens of the row."""
    columns = tf.range(tf.shape(tokens)[1])[None, :]

    def body(back, fits):
        latest = tf.gather(context.tokens, tf.maximum(context.lengths - back, 0), batch_dims=1)[:, None]
        before = tf.gather(tokens, tf.broadcast_to(tf.maximum(columns - back, 0), tf.shape(tokens)), batch_dims=1)
        return back + 1, fits & (before == latest)

    possible = real & (columns >= size - 1) & (context.lengths >= size - 1)[:, None]
    return tf.while_loop(lambda back, _: back < size, body, (tf.constant(1), possible))[1]
