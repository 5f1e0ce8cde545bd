"""What bundles share that read texts: the tokenizer, and the model over rows of mixed lengths."""

from collections.abc import Callable, Collection, Mapping

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.pipelines.base import fill_values
from tfheads.preprocessing import GraphTokenizer
from tfheads.preprocessing.texts import UNLIMITED
from tfheads.serving.rows import BucketedRows
from tfheads.serving.token_level import Bundle


class TextBundle(Bundle):
    """A model with its tokenizer.

    Args:
        model: the model.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: of the export, see `Served.export_serving`.

    Attributes:
        row_length: the most tokens of a row; None for no limit.
    """

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: Mapping):
        super().__init__(model, options)
        self.graph = graph
        limits = (model.backbone.length_limit, tokenizer.model_max_length)
        self.row_length = min((limit for limit in limits if limit is not None and limit < UNLIMITED), default=None)
        known = model.backbone.input_names
        self.row_inputs = [name for name in ("input_ids", "token_type_ids") if name in known]
        self.row_inputs = [name for name in self.row_inputs if name in tokenizer.model_input_names]
        fill = fill_values(model, tokenizer)
        self.fills = {name: fill.get(name, 0) for name in self.row_inputs}

    def rows(self, outputs: Callable[[Mapping], dict[str, tf.Tensor]], per_token: Collection[str] = ()) -> BucketedRows:
        """A function of rows of mixed lengths, from one of padded rows."""
        return BucketedRows(outputs, self.fills, per_token)

    def outputs_of_rows(self, *names: str, per_token: bool = False) -> BucketedRows:
        """The model's outputs of these names, of rows of mixed lengths."""

        def outputs(inputs):
            output, _ = self.model.forward(self.model.completed(inputs, {}), training=False)
            return {name: tf.cast(output[name], "float32") for name in names}

        return self.rows(outputs, names if per_token else ())

    def encode(self, text: tf.Tensor) -> dict[str, tf.RaggedTensor]:
        """What the model takes of texts, one row for each, cut to the longest row."""
        ids = self.graph.tokenize(text, self.row_length)
        inputs = {"input_ids": ids, "token_type_ids": ids.with_values(tf.zeros_like(ids.values))}
        return {name: inputs[name] for name in self.row_inputs}


def checked_texts(first: tf.Tensor, second: tf.Tensor, names: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Two inputs of a signature that must have as many texts as each other."""
    message = f"{names} must have as many texts as each other"
    check = tf.debugging.assert_equal(tf.size(first), tf.size(second), message)
    with tf.control_dependencies([check]):
        return tf.identity(first), tf.identity(second)
