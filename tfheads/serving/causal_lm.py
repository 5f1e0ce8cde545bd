"""Signatures of causal language models: text in, text with its continuation out."""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfheads.generation import settings as generation_settings
from tfheads.generation.loop import decode
from tfheads.generation.sampling import Options
from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.token_level import Bundle, scalar, text_input, traced, valid_text

DEFAULT_NEW_TOKENS = 64
NO_LIMIT = 2**30


class CausalLMBundle(Bundle):
    """A causal language model with its tokenizer and the whole generation loop.

    Args:
        model: a causal language model.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: of `serving_default`, see `Served.export_serving`.

    Raises:
        ValueError: an option out of range, or a model that cannot generate.
    """

    option_names = ("max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "eos_token_id")

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        if not model.backbone.causal:
            raise ValueError(f"{type(model).__name__} cannot generate: set is_decoder=True in its config")
        super().__init__(model)
        self.graph, self.limit = graph, model.backbone.length_limit or NO_LIMIT
        config = model.generation_config
        if options.get("max_new_tokens") is None:
            most = config.max_new_tokens or DEFAULT_NEW_TOKENS
            options = {**options, "max_new_tokens": min(most, max(1, self.limit // 2))}
        if config.min_length:
            raise ValueError("generation_config.min_length must be 0 for an export: give min_new_tokens")
        prompt = np.ones(1, "int32")
        self.asked = generation_settings.settings(
            config, options, prompt, model.backbone.length_limit, model.vocab_size
        )
        begin = tokenizer.bos_token_id if config.bos_token_id is None else config.bos_token_id
        self.first_token = -1 if begin is None else begin
        loops = [tf.function(functools.partial(self._loop, sample), autograph=False) for sample in (False, True)]
        self._decode = lambda sample: loops[sample]  # each is in the graph once, and not under a name of its own

    def signatures(self) -> dict[str, Callable]:
        return {
            "serving_default": traced(self._with_defaults, text=text_input()),
            "generate": traced(
                self._with_options,
                text=text_input(),
                max_new_tokens=scalar("max_new_tokens", "int32"),
                temperature=scalar("temperature", "float32"),
                top_k=scalar("top_k", "int32"),
                top_p=scalar("top_p", "float32"),
                seed=scalar("seed", "int32"),
            ),
            "token_level": self.token_level(),
        }

    def _with_defaults(self, text):
        asked = self.asked
        seed = tf.random.uniform([], maxval=tf.int32.max, dtype="int32") if asked.do_sample else tf.constant(0)
        options = self._options(asked.max_new_tokens, asked.temperature, asked.top_k, asked.top_p, seed)
        return self._generated(text, options, lambda *prompt: self._decode(asked.do_sample)(*prompt, options))

    def _with_options(self, text, max_new_tokens, temperature, top_k, top_p, seed):
        most = self.limit - 1
        tf.debugging.assert_greater_equal(max_new_tokens, 1, "max_new_tokens must be at least 1")
        tf.debugging.assert_less_equal(max_new_tokens, most, f"max_new_tokens must be at most {most} in this model")
        tf.debugging.assert_greater_equal(temperature, 0.0, "temperature must be at least 0 (0: the likeliest token)")
        tf.debugging.assert_greater_equal(top_k, 0, "top_k must be at least 0 (0: no limit)")
        tf.debugging.assert_greater(top_p, 0.0, "top_p must be above 0")
        tf.debugging.assert_less_equal(top_p, 1.0, "top_p must be at most 1")
        options = self._options(max_new_tokens, tf.where(temperature > 0, temperature, 1.0), top_k, top_p, seed)

        def tokens(ids, lengths):
            return tf.cond(
                temperature > 0,
                lambda: self._decode(True)(ids, lengths, options),
                lambda: self._decode(False)(ids, lengths, options),
            )

        return self._generated(text, options, tokens)

    def _options(self, max_new_tokens, temperature, top_k, top_p, seed) -> Options:
        most = tf.convert_to_tensor(max_new_tokens, tf.int32)
        return Options(
            max_new_tokens=most,
            min_new_tokens=tf.minimum(tf.constant(self.asked.min_new_tokens), most),
            temperature=tf.convert_to_tensor(temperature, tf.float32),
            top_k=tf.convert_to_tensor(top_k, tf.int32),
            top_p=tf.convert_to_tensor(top_p, tf.float32),
            seed=tf.stack([seed, 0]),
            eos_token_ids=tf.constant([*self.asked.eos_token_ids] or [-1], tf.int32),
            pad_token_id=tf.constant(self.asked.pad_token_id),
        )

    def _loop(self, sample: bool, ids, lengths, options: Options):
        return decode(self.model, ids, lengths, options, options.max_new_tokens, sample)

    def _generated(self, text, options: Options, tokens: Callable) -> dict[str, tf.Tensor]:
        """The answer, from a function of prompts `[batch, time]` and their lengths that gives new tokens."""
        prompt, lengths = last_tokens(self.graph.tokenize(text), self.limit - options.max_new_tokens)
        empty = lengths == 0
        prompt = tf.pad(prompt, [[0, 0], [0, tf.cast(tf.shape(prompt)[1] == 0, tf.int32)]])
        begin = tf.cast(tf.range(tf.shape(prompt)[1]) == 0, tf.int32) * max(self.first_token, 0)
        prompt = tf.where(empty[:, None], begin[None, :], prompt)
        new = tokens(prompt, tf.maximum(lengths, 1))
        ended = tf.reduce_any(new[:, :, None] == options.eos_token_ids, axis=-1)
        kept = tf.math.cumsum(tf.cast(ended, tf.int32), axis=1, exclusive=True) == 0
        if self.first_token < 0:  # nothing to begin an empty text with
            kept = kept & ~empty[:, None]
        new_text = self.graph.detokenize(tf.ragged.boolean_mask(new, kept))
        return {"generated_text": tf.strings.join([valid_text(text), new_text]), "new_text": new_text}


def last_tokens(ids: tf.RaggedTensor, most) -> tuple[tf.Tensor, tf.Tensor]:
    """The last tokens of each row, at most `most`: `[batch, longest]` padded on the right with 0, and their numbers."""
    lengths = tf.minimum(tf.cast(ids.row_lengths(), tf.int32), most)
    starts = tf.cast(ids.row_limits(), tf.int32) - lengths
    columns = tf.range(tf.reduce_max(tf.concat([[0], lengths], 0)))[None, :]
    real = columns < lengths[:, None]
    values = tf.concat([tf.cast(ids.values, tf.int32), [0]], 0)
    where = tf.where(real, starts[:, None] + columns, tf.size(values) - 1)
    return tf.gather(values, where), lengths
