"""What every bundle has: the model's variables and the token-level signature."""

from collections.abc import Callable

import tensorflow as tf

from tfheads.models import TaskModel


class Bundle(tf.Module):
    """What is written into a SavedModel; alone it serves token ids.

    Args:
        model: a task model; its weights become the bundle's variables.
    """

    option_names: tuple[str, ...] = ()

    def __init__(self, model: TaskModel):
        super().__init__()
        self._model = lambda: model  # an attribute that is a Keras model would be saved with its training functions
        self.model_variables = [variable.value for variable in model.weights]

    @property
    def model(self) -> TaskModel:
        """The model that is served."""
        return self._model()

    def signatures(self) -> dict[str, Callable]:
        """The SavedModel's signatures by name."""
        token_level = self.token_level()
        return {"serving_default": token_level, "token_level": token_level}

    def token_level(self) -> Callable:
        """`input_ids`, `attention_mask` `[batch, time]` and what else the model needs -> what it gives, in float32."""
        model, limit = self.model, self.model.backbone.length_limit

        def run(**inputs):
            if limit is not None:
                message = f"input_ids must have at most {limit} tokens in a row, the model has no more positions"
                tf.debugging.assert_less_equal(tf.shape(inputs["input_ids"])[-1], limit, message)
            output = model(inputs)
            names = [name for name in output if not name.endswith("hidden_states")]
            return {name: tf.cast(output[name], "float32") for name in names}

        wanted = model.token_level_inputs
        return traced(run, **{name: tf.TensorSpec([None] * axes, "int32", name) for name, axes in wanted.items()})


def traced(function: Callable, **inputs: tf.TensorSpec) -> Callable:
    """A signature with these named inputs; no XLA, which TensorFlow Serving's builds do not all have."""
    return tf.function(function, autograph=False).get_concrete_function(**inputs)


def text_input() -> tf.TensorSpec:
    """The texts `[batch]`."""
    return tf.TensorSpec([None], "string", "text")


def scalar(name: str, dtype: str) -> tf.TensorSpec:
    """One number for the whole batch."""
    return tf.TensorSpec([], dtype, name)


def valid_text(text: tf.Tensor) -> tf.Tensor:
    """Texts with bytes that are not UTF-8 replaced by U+FFFD, as the tokenizers read them."""
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
