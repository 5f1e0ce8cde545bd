"""What every bundle has: the model's variables and the token-level signature."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import tensorflow as tf

from tfheads.checks import after
from tfheads.models import TaskModel

EXAMPLE_TEXT = "The old cat sat on the red mat."
EXAMPLE_PAIR = "A dog ran over the house."
EXAMPLE_TOKENS = 8


class Bundle(tf.Module):
    """What is written into a SavedModel; alone it serves token ids.

    Args:
        model: a task model; its weights become the bundle's variables.
        options: of the export; `jit_compile` adds the signature `token_level_xla`.

    Attributes:
        option_names: the options that the class takes beside `jit_compile`.
        compares_offsets: whether it reads more of a tokenizer than ids, which the export then compares too.

    Raises:
        ValueError: `jit_compile` is neither True nor False.
    """

    option_names: tuple[str, ...] = ()
    compares_offsets = False

    def __init__(self, model: TaskModel, options: Mapping = MappingProxyType({})):
        super().__init__()
        self.token_levels = ("token_level", "token_level_xla") if compiled(options) else ("token_level",)
        self._model = lambda: model  # an attribute that is a Keras model would be saved with its training functions
        self.model_variables = [variable.value for variable in model.weights]

    @property
    def model(self) -> TaskModel:
        """The model that is served."""
        return self._model()

    def signatures(self) -> dict[str, Callable]:
        """The SavedModel's signatures by name."""
        found = self.token_level_signatures()
        return {"serving_default": found["token_level"], **found}

    def example_inputs(self) -> dict[str, list[dict]]:
        """Requests to each signature by name: dictionaries of inputs, of which `tf.constant` makes the right dtypes.

        They warm a server up, so that they are few, small, and run each branch of the graph; the first of each list
        is the one that the written examples of requests show.
        """
        examples = self.token_level_examples()
        return {"serving_default": examples["token_level"], **examples}

    def token_level_signatures(self) -> dict[str, Callable]:
        """The signatures that take token ids, by name."""
        return {name: self.token_level(jit_compile=name.endswith("_xla")) for name in self.token_levels}

    def token_level_examples(self) -> dict[str, list[dict]]:
        """Requests to the signatures that take token ids, by name."""
        return {name: [self.token_level_example()] for name in self.token_levels}

    def token_level_example(self) -> dict[str, np.ndarray]:
        """A row of token ids that the model accepts, or a row for each of two choices."""
        length = min(EXAMPLE_TOKENS, self.model.backbone.length_limit or EXAMPLE_TOKENS)
        ids = np.arange(length, dtype="int32") % self.model.vocab_size
        end = getattr(self.model.config, "eos_token_id", None)  # some heads look for it
        if isinstance(end, int) and 0 <= end < self.model.vocab_size:
            ids[-1] = end
        ones, zeros = np.ones_like(ids), np.zeros_like(ids)
        rows = {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros, "decoder_input_ids": ids}

        def example(name: str, axes: int) -> np.ndarray:
            if name not in rows:  # one number for each choice
                return np.zeros([1, 2], "int32")
            return np.tile(rows[name], [1, 2, 1] if axes == 3 else [1, 1])

        return {name: example(name, axes) for name, axes in self.model.token_level_inputs.items()}

    def token_level(self, jit_compile: bool = False) -> Callable:
        """`input_ids`, `attention_mask` `[batch, time]` and what else the model needs -> what it gives, in float32.

        Args:
            jit_compile: whether XLA compiles it, once for each shape.
        """
        model, limit = self.model, self.model.input_limit

        def answer(inputs):
            output = model(inputs)
            names = [name for name in output if not name.endswith("hidden_states")]
            return {name: tf.cast(output[name], "float32") for name in names}

        answer = tf.function(answer, jit_compile=True, autograph=False) if jit_compile else answer

        def run(**inputs):
            if limit is not None:
                message = f"input_ids must have at most {limit} tokens in a row, the model has no more positions"
                tf.debugging.assert_less_equal(tf.shape(inputs["input_ids"])[-1], limit, message)
            if jit_compile:  # what XLA compiles has no checks
                inputs = after(model.check_inputs(model.completed(inputs, {})), inputs)
            return answer(inputs)

        wanted = model.token_level_inputs
        return traced(run, **{name: tf.TensorSpec([None] * axes, "int32", name) for name, axes in wanted.items()})


def compiled(options: Mapping) -> bool:
    """The option `jit_compile`.

    Raises:
        ValueError: it is neither True nor False.
    """
    value = options.get("jit_compile", False)
    if not isinstance(value, bool):
        raise ValueError(f"jit_compile must be True or False, got {value!r}")
    return value


def traced(function: Callable, **inputs: tf.TensorSpec) -> Callable:
    """A signature with these named inputs; no XLA, which TensorFlow Serving's builds do not all have."""
    return tf.function(function, autograph=False).get_concrete_function(**inputs)


def text_input(name: str = "text") -> tf.TensorSpec:
    """Texts `[batch]`."""
    return tf.TensorSpec([None], "string", name)


def per_row(name: str, dtype: str) -> tf.TensorSpec:
    """One number for each text `[batch]`, as TensorFlow Serving needs to join requests into batches."""
    return tf.TensorSpec([None], dtype, name)


def valid_text(text: tf.Tensor) -> tf.Tensor:
    """Texts with bytes that are not UTF-8 replaced by U+FFFD, as the tokenizers read them."""
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
