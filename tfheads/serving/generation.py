"""Signatures of models that write: the whole loop of generation in the graph."""

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
from tfheads.serving.rows import NO_LIMIT, group
from tfheads.serving.text import TextBundle
from tfheads.serving.token_level import EXAMPLE_TEXT, scalar, text_input, traced

DEFAULT_NEW_TOKENS = 64
# Each group of prompts has a loop of its own, which costs as much for one row as for a few: groups are wide.
BUCKETS = tuple(4**power for power in range(3, 11))
TOKENS_AT_ONCE = 2**16
OPTIONS = [name for name in (*SEARCH, *CHANGES, *ENDS) if name != "num_return_sequences"]


class GenerationBundle(TextBundle):
    """A model that writes, with its tokenizer; a class says what is gone on from, and what the answer is.

    Args:
        model: a model that generates.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: of `serving_default`, see `Served.export_serving`.

    Raises:
        ValueError: an option out of range, or a model that cannot generate.

    Attributes:
        shortest_prompt: how many tokens there are at least before the new ones.
    """

    shortest_prompt = 1
    option_names = ("max_new_tokens", "min_new_tokens", "eos_token_id", *OPTIONS)

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        if not model.backbone.causal:
            raise ValueError(f"{type(model).__name__} cannot generate: set is_decoder=True in its config")
        super().__init__(model, graph, tokenizer, options)
        limit, config = model.backbone.generation_limit, model.generation_config
        self.limit = limit or NO_LIMIT
        if (config.num_return_sequences or 1) != 1:
            raise ValueError("generation_config.num_return_sequences must be 1 for an export: a text has one answer")
        known = (*GenerationBundle.option_names, "decoder_start_token_id")
        options = {name: value for name, value in options.items() if name in known and value is not None}
        options = {"max_new_tokens": self.default_new_tokens(config), "return_dict_in_generate": False, **options}
        self.asked = settings(config, options, np.full(1, self.shortest_prompt, "int32"), limit, model.vocab_size)
        self.values = arrays(self.asked, tokenizer)
        self._loop_of = functools.lru_cache(maxsize=None)(self._made_loop)  # each is in the graph once, without a name

    def default_new_tokens(self, config) -> int:
        """How many tokens there are at most where nobody says it.

        Args:
            config: the model's generation config.
        """
        return min(config.max_new_tokens or DEFAULT_NEW_TOKENS, max(1, self.limit // 2))

    def prompt(self, text: tf.Tensor, most_new: tf.Tensor) -> tuple[Prompt, tf.Tensor]:
        """What is gone on from, with room for so many new tokens; and which rows can be gone on from `[batch]`."""
        raise NotImplementedError

    def answer(self, text: tf.Tensor, prompt: Prompt, new: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """The answer of a signature from the new tokens `[batch, (new)]`."""
        raise NotImplementedError

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
        options = {"max_new_tokens": min(4, self.limit - self.shortest_prompt), "top_k": 0, "top_p": 1.0, "seed": 0}
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
        return self._generated(text, options, lambda prompt: self._decode(asked.search, prompt, options))

    def _with_options(self, text, max_new_tokens, temperature, top_k, top_p, seed):
        most = self.limit - self.shortest_prompt
        tf.debugging.assert_greater_equal(max_new_tokens, 1, "max_new_tokens must be at least 1")
        tf.debugging.assert_less_equal(max_new_tokens, most, f"max_new_tokens must be at most {most} in this model")
        tf.debugging.assert_greater_equal(temperature, 0.0, "temperature must be at least 0 (0: the likeliest token)")
        tf.debugging.assert_greater_equal(top_k, 0, "top_k must be at least 0 (0: no limit)")
        tf.debugging.assert_greater(top_p, 0.0, "top_p must be above 0")
        tf.debugging.assert_less_equal(top_p, 1.0, "top_p must be at most 1")
        others = {name: value for name, value in self.values.items() if name not in self.asked.search.options}
        likeliest = {name: value for name, value in others.items() if name not in WARPERS}
        warm = {"temperature": tf.where(temperature > 0, temperature, 1.0), "top_k": top_k, "top_p": top_p}

        def tokens(prompt):
            def found(sample, values):
                return self._decode(TokenByToken(sample), prompt, self._options(max_new_tokens, values, seed))

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

    def _decode(self, search, prompt: Prompt, options: Options) -> tuple[tf.Tensor, tf.Tensor]:
        """New tokens `[batch, max_new_tokens]` and how many there are in each row."""
        return self._loop_of(plan_of(search, options.values))(prompt, options)

    def _made_loop(self, plan: Plan) -> Callable:
        def loop(prompt, options):
            made = decode(self.model, plan, prompt, options, options.max_new_tokens)
            return made.tokens, made.lengths

        return tf.function(loop, autograph=False)

    def _generated(self, text, options: Options, tokens: Callable) -> dict[str, tf.Tensor]:
        """The answer, from a function of the prompt that gives new tokens and their numbers."""
        prompt, goes_on = self.prompt(text, options.max_new_tokens)
        new, made = in_groups(prompt, tokens, options.max_new_tokens)
        kept = tf.range(tf.shape(new)[1])[None, :] < tf.where(goes_on, made, 0)[:, None]
        return self.answer(text, prompt, tf.ragged.boolean_mask(new, kept))


def in_groups(prompt: Prompt, tokens: Callable, most: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """New tokens `[batch, most]` and their numbers `[batch]`; what is read that is of like length goes together.

    Args:
        prompt: of all rows.
        tokens: a function of the prompt of some rows that gives their new tokens and their numbers.
        most: the most new tokens, a scalar.
    """
    lengths = tf.reduce_sum(tf.cast(prompt.source["attention_mask"], tf.int32), 1) if prompt.source else prompt.lengths
    order = tf.argsort(lengths, stable=True)
    ordered = tf.gather(lengths, order)

    def advance(begin, new, made):
        end, longest = group(ordered, begin, BUCKETS, TOKENS_AT_ONCE)
        rows = order[begin:end]
        part = tf.nest.map_structure(lambda values: tf.gather(values, rows), prompt)
        source = {name: values[:, :longest] for name, values in part.source.items()}
        found = tokens(Prompt(part.input_ids[:, : tf.reduce_max(part.lengths)], part.lengths, source))
        both = zip((new, made), found, strict=True)
        return end, *(tf.tensor_scatter_nd_update(old, rows[:, None], values) for old, values in both)

    count = tf.size(order)
    nothing = tf.constant(0), tf.zeros([count, most], tf.int32), tf.zeros([count], tf.int32)
    return tf.while_loop(lambda begin, *_: begin < count, advance, nothing, parallel_iterations=1)[1:]
