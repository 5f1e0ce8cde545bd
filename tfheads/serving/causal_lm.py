"""Signatures of causal language models: text in, text with its continuation out."""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfheads.generation.generate import arrays, plan_of
from tfheads.generation.loop import TokenByToken, decode
from tfheads.generation.plan import Options, Plan, Prompt
from tfheads.generation.sampling import WARPERS
from tfheads.generation.settings import CHANGES, ENDS, SEARCH, settings
from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.rows import NO_LIMIT, last_tokens
from tfheads.serving.token_level import EXAMPLE_TEXT, Bundle, scalar, text_input, traced, valid_text

DEFAULT_NEW_TOKENS = 64
OPTIONS = [name for name in (*SEARCH, *CHANGES, *ENDS) if name != "num_return_sequences"]


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

    option_names = ("max_new_tokens", "min_new_tokens", "eos_token_id", *OPTIONS)

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        if not model.backbone.causal:
            raise ValueError(f"{type(model).__name__} cannot generate: set is_decoder=True in its config")
        super().__init__(model, options)
        options = {name: value for name, value in options.items() if name in self.option_names}
        self.graph, self.limit = graph, model.backbone.generation_limit or NO_LIMIT
        config = model.generation_config
        if options.get("max_new_tokens") is None:
            most = config.max_new_tokens or DEFAULT_NEW_TOKENS
            options = {**options, "max_new_tokens": min(most, max(1, self.limit // 2))}
        if config.min_length:
            raise ValueError("generation_config.min_length must be 0 for an export: give min_new_tokens")
        if (config.num_return_sequences or 1) != 1:
            raise ValueError("generation_config.num_return_sequences must be 1 for an export: a text has one answer")
        prompt = np.ones(1, "int32")
        options = {"return_dict_in_generate": False, **options}
        self.asked = settings(config, options, prompt, model.backbone.generation_limit, model.vocab_size)
        self.values = arrays(self.asked, tokenizer)
        begin = tokenizer.bos_token_id if config.bos_token_id is None else config.bos_token_id
        self.first_token = -1 if begin is None else begin
        self._loop_of = functools.lru_cache(maxsize=None)(self._made_loop)  # each is in the graph once, without a name

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
            **self.token_level_signatures(),
        }

    def example_inputs(self) -> dict[str, list[dict]]:
        options = {"max_new_tokens": min(4, self.limit - 1), "top_k": 0, "top_p": 1.0, "seed": 0}
        text = {"text": [EXAMPLE_TEXT]}
        return {
            "serving_default": [text],
            "generate": [{**text, **options, "temperature": temperature} for temperature in (1.0, 0.0)],
            **self.token_level_examples(),
        }

    def _with_defaults(self, text):
        asked = self.asked
        seed = tf.random.uniform([], maxval=tf.int32.max, dtype="int32") if asked.search.sample else tf.constant(0)
        options = self._options(asked.max_new_tokens, self.values, seed)
        return self._generated(text, options, lambda *prompt: self._decode(asked.search, *prompt, options))

    def _with_options(self, text, max_new_tokens, temperature, top_k, top_p, seed):
        most = self.limit - 1
        tf.debugging.assert_greater_equal(max_new_tokens, 1, "max_new_tokens must be at least 1")
        tf.debugging.assert_less_equal(max_new_tokens, most, f"max_new_tokens must be at most {most} in this model")
        tf.debugging.assert_greater_equal(temperature, 0.0, "temperature must be at least 0 (0: the likeliest token)")
        tf.debugging.assert_greater_equal(top_k, 0, "top_k must be at least 0 (0: no limit)")
        tf.debugging.assert_greater(top_p, 0.0, "top_p must be above 0")
        tf.debugging.assert_less_equal(top_p, 1.0, "top_p must be at most 1")
        others = {name: value for name, value in self.values.items() if name not in self.asked.search.options}
        likeliest = {name: value for name, value in others.items() if name not in WARPERS}
        warm = {"temperature": tf.where(temperature > 0, temperature, 1.0), "top_k": top_k, "top_p": top_p}

        def tokens(ids, lengths):
            def found(sample, values):
                return self._decode(TokenByToken(sample), ids, lengths, self._options(max_new_tokens, values, seed))

            return tf.cond(temperature > 0, lambda: found(True, {**others, **warm}), lambda: found(False, likeliest))

        return self._generated(text, self._options(max_new_tokens, likeliest, seed), tokens)

    def _options(self, max_new_tokens, values: dict, seed) -> Options:
        most = tf.convert_to_tensor(max_new_tokens, tf.int32)
        values = tf.nest.map_structure(tf.convert_to_tensor, values)
        if "min_new_tokens" in values:
            values["min_new_tokens"] = tf.minimum(values["min_new_tokens"][0], most)
        return Options(
            max_new_tokens=most,
            eos_token_ids=tf.constant([*self.asked.eos_token_ids] or [-1], tf.int32),
            pad_token_id=tf.constant(self.asked.pad_token_id),
            seed=tf.stack([seed, 0]),
            values=values,
        )

    def _decode(self, search, ids, lengths, options: Options) -> tuple[tf.Tensor, tf.Tensor]:
        """New tokens `[batch, max_new_tokens]` and how many there are in each row."""
        return self._loop_of(plan_of(search, options.values))(ids, lengths, options)

    def _made_loop(self, plan: Plan) -> Callable:
        def loop(ids, lengths, options):
            made = decode(self.model, plan, Prompt(ids, lengths, {}), options, options.max_new_tokens)
            return made.tokens, made.lengths

        return tf.function(loop, autograph=False)

    def _generated(self, text, options: Options, tokens: Callable) -> dict[str, tf.Tensor]:
        """The answer, from a function of prompts `[batch, time]` and their lengths that gives new tokens."""
        prompt, lengths = last_tokens(self.graph.tokenize(text), self.limit - options.max_new_tokens)
        empty = lengths == 0
        prompt = tf.pad(prompt, [[0, 0], [0, tf.cast(tf.shape(prompt)[1] == 0, tf.int32)]])
        begin = tf.cast(tf.range(tf.shape(prompt)[1]) == 0, tf.int32) * max(self.first_token, 0)
        prompt = tf.where(empty[:, None], begin[None, :], prompt)
        new, made = tokens(prompt, tf.maximum(lengths, 1))
        kept = tf.range(tf.shape(new)[1])[None, :] < made[:, None]
        if self.first_token < 0:  # nothing to begin an empty text with
            kept = kept & ~empty[:, None]
        new_text = self.graph.detokenize(tf.ragged.boolean_mask(new, kept))
        return {"generated_text": tf.strings.join([valid_text(text), new_text]), "new_text": new_text}
