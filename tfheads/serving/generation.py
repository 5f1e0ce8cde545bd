"""Signatures of models that write: the whole loop of generation in the graph."""

import functools
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from tfheads.generation.generate import arrays, plan_of
from tfheads.generation.loop import RowByRow, decode
from tfheads.generation.plan import Options, Plan, Prompt
from tfheads.generation.settings import CHANGES, ENDS, SEARCH, settings
from tfheads.layers.column_blocks import ColumnBlocks, cut, reading
from tfheads.layers.compilation import only_cpus
from tfheads.layers.projections import Projection
from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.rows import NO_LIMIT, group
from tfheads.serving.text import TextBundle
from tfheads.serving.token_level import EXAMPLE_TEXT, per_row, text_input, traced

DEFAULT_NEW_TOKENS = 64
# Each group of prompts has a loop of its own, which costs as much for one row as for a few: groups are wide.
BUCKETS = tuple(4**power for power in range(3, 11))
TOKENS_AT_ONCE = 2**16
ROW_OPTIONS = {
    "max_new_tokens": "int32",
    "temperature": "float32",
    "top_k": "int32",
    "top_p": "float32",
    "seed": "int32",
}
ROW_VALUES = ("temperature", "top_k", "top_p", "min_new_tokens")  # with a number for each row where rows have options
SMALLEST = np.finfo("float32").tiny  # a `top_p` that leaves the likeliest token
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
        self.blocks = blocks_of_model(model)
        self.block_variables = [one.variable for one in self.blocks.values()]
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
        found = {name: self.text_signature(name) for name in ("serving_default", "generate")}
        with reading(self.blocks):
            found = {**found, **self.token_level_signatures()}
        self.model_variables = read_by(found.values(), self.model_variables)
        return found

    def text_signature(self, name: str) -> Callable:
        """`serving_default`, or `generate`."""
        with reading(self.blocks):
            if name == "serving_default":
                return traced(self._with_defaults, text=text_input())
            options = {option: per_row(option, dtype) for option, dtype in ROW_OPTIONS.items()}
            return traced(self._with_options, text=text_input(), **options)

    def example_inputs(self) -> dict[str, list[dict]]:
        new = min(4, self.limit - self.shortest_prompt)
        options = {"max_new_tokens": [new], "top_k": [0], "top_p": [1.0], "seed": [0]}
        several = {"text": [EXAMPLE_TEXT] * 2, **{name: value * 2 for name, value in options.items()}}
        return {
            "serving_default": [{"text": [EXAMPLE_TEXT]}, {"text": [EXAMPLE_TEXT] * 2}],
            "generate": [
                {"text": [EXAMPLE_TEXT], **options, "temperature": [1.0]},
                {**several, "temperature": [1.0, 0.0]},
            ],
            **self.token_level_examples(),
        }

    def _with_defaults(self, text):
        asked = self.asked
        seed = tf.random.uniform([], maxval=tf.int32.max, dtype="int32") if asked.search.sample else tf.constant(0)
        options = self._options(asked.max_new_tokens, self.values, seed)

        def tokens(prompt, rows):
            return self._decode(asked.search, prompt, options)

        return self._generated(text, asked.max_new_tokens, tokens)

    def _with_options(self, text, max_new_tokens, temperature, top_k, top_p, seed):
        given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k}
        given = {**given, "top_p": top_p, "seed": seed}
        for name, values in given.items():
            tf.debugging.assert_equal(tf.size(values), tf.size(text), f"{name} must have a number for each text")
        # What is out of range has a meaning and is no error, for a server joins requests of different callers.
        most = tf.clip_by_value(max_new_tokens, 0, self.limit - self.shortest_prompt)
        warm = {
            "temperature": tf.where(temperature > 0.0, temperature, 0.0),
            "top_k": tf.clip_by_value(top_k, 0, self.model.vocab_size),
            "top_p": tf.where(top_p <= 0.0, SMALLEST, tf.where(top_p < 1.0, top_p, 1.0)),
        }
        others = {name: value for name, value in self.values.items() if name not in self.asked.search.options}

        def tokens(prompt, rows):
            own = {name: tf.gather(value, rows) for name, value in warm.items()}
            options = self._options(tf.gather(most, rows), {**others, **own}, tf.gather(seed, rows))
            return self._decode(RowByRow(), prompt, options)

        return self._generated(text, most, tokens)

    def _options(self, max_new_tokens, values: dict, seed) -> Options:
        most = tf.convert_to_tensor(max_new_tokens, tf.int32)
        values = tf.nest.map_structure(tf.convert_to_tensor, values)
        if "min_new_tokens" in values:
            values["min_new_tokens"] = tf.minimum(values["min_new_tokens"][0], most)
        return Options(
            max_new_tokens=most,
            eos_token_ids=tf.constant([*self.asked.eos_token_ids] or [-1], tf.int32),
            pad_token_id=tf.constant(self.asked.pad_token_id),
            seed=tf.stack([seed, tf.zeros_like(seed)], axis=-1),
            values=values,
        )

    def _decode(self, search, prompt: Prompt, options: Options) -> tuple[tf.Tensor, tf.Tensor]:
        """New tokens `[rows, room]` and how many there are in each row."""
        loop = self._loop_of(plan_of(search, options.values))
        if search.copies > 1:
            return loop(prompt, options)
        one = tf.size(prompt.lengths) == 1
        return tf.cond(one, lambda: loop(*single(prompt, options)), lambda: loop(prompt, options))

    def _made_loop(self, plan: Plan) -> Callable:
        def loop(prompt, options):
            made = decode(self.model, plan, prompt, options, tf.maximum(1, tf.reduce_max(options.max_new_tokens)))
            return made.tokens, made.lengths

        return tf.function(loop, autograph=False)

    def _generated(self, text, most, tokens: Callable) -> dict[str, tf.Tensor]:
        """The answer, from the most new tokens and what `in_groups` takes."""
        prompt, goes_on = self.prompt(text, most)
        new, made = in_groups(prompt, tokens, tf.reduce_max(tf.concat([[1], tf.reshape(most, [-1])], 0)))
        kept = tf.range(tf.shape(new)[1])[None, :] < tf.where(goes_on, made, 0)[:, None]
        return self.answer(text, prompt, tf.ragged.boolean_mask(new, kept))


def blocks_of_model(model: TaskModel) -> dict[int, ColumnBlocks]:
    """The blocks that a CPU reads in place of a model's matrices; none where there are other devices."""
    if not only_cpus():
        return {}
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, Projection)]
    matrices = [layer.kernel for layer in layers if layer.quantization_mode is None]
    return cut(matrices, [model.backbone.token_table] if model.head.tied else [])


def read_by(signatures: Iterable[Callable], variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    """Those of the variables that the signatures read."""
    read = {id(handle) for signature in signatures for handle in signature.captured_inputs}
    return [variable for variable in variables if id(variable.handle) in read]


def single(prompt: Prompt, options: Options) -> tuple[Prompt, Options]:
    """What belongs to one row, which is known to be one: its graph is smaller and reads the weights faster."""

    def known(values):
        # Of a slice: TensorFlow's optimizer takes what is ensured of a tensor for true in other branches too.
        return tf.ensure_shape(values[:1], [1, *values.shape[1:]])

    if options.max_new_tokens.shape.rank:
        options = options._replace(max_new_tokens=known(options.max_new_tokens), seed=known(options.seed))
        own = {name: known(options.values[name]) for name in ROW_VALUES if name in options.values}
        options = options._replace(values={**options.values, **own})
    return tf.nest.map_structure(known, prompt), options


def in_groups(prompt: Prompt, tokens: Callable, most: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """New tokens `[batch, most]` and their numbers `[batch]`; what is read that is of like length goes together.

    Args:
        prompt: of all rows.
        tokens: a function of the prompt of some rows, and of the numbers of these rows, that gives their new tokens
            `[rows, at most most]` and how many there are.
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
        found, count = tokens(Prompt(part.input_ids[:, : tf.reduce_max(part.lengths)], part.lengths, source), rows)
        found = tf.pad(found, [[0, 0], [0, most - tf.shape(found)[1]]])
        both = zip((new, made), (found, count), strict=True)
        return end, *(tf.tensor_scatter_nd_update(old, rows[:, None], values) for old, values in both)

    count = tf.size(order)
    nothing = tf.constant(0), tf.zeros([count, most], tf.int32), tf.zeros([count], tf.int32)
    return tf.while_loop(lambda begin, *_: begin < count, advance, nothing, parallel_iterations=1)[1:]
