"""What bundles share that read texts: the tokenizer, and the model over rows of mixed lengths."""

import functools
from collections.abc import Callable, Collection, Mapping

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.pipelines.base import fill_values
from tfheads.preprocessing import GraphTokenizer
from tfheads.preprocessing.encoding import Encoding
from tfheads.preprocessing.texts import UNLIMITED
from tfheads.serving.rows import BucketedRows
from tfheads.serving.token_level import Bundle

# What `str.strip` removes, as a class of RE2.
SPACES = "".join(f"\\x{{{point:x}}}" for point in range(0x110000) if chr(point).isspace())


class TextBundle(Bundle):
    """A model with its tokenizer.

    Args:
        model: the model.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: of the export, see `Served.export_serving`.

    Attributes:
        row_length: the most tokens of a row; None for no limit.
        tokenize: from texts `[batch]` to their ids `[batch, (length)]`.
        detokenize: from ids to texts, without special tokens.
        detokenize_all: from ids to texts, special tokens included.
    """

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: Mapping):
        super().__init__(model, options)
        self.graph = graph
        limits = (model.backbone.length_limit, tokenizer.model_max_length)
        self.row_length = min((limit for limit in limits if limit is not None and limit < UNLIMITED), default=None)
        known = (*model.backbone.input_names, *getattr(model.head, "input_names", ()))
        names = [name for name in ("input_ids", "token_type_ids") if name in known]
        self.row_inputs = [name for name in names if name in tokenizer.model_input_names]
        fill = fill_values(model, tokenizer)
        self.fills = {name: fill.get(name, 0) for name in self.row_inputs}
        text, ids = tf.TensorSpec([None], tf.string), tf.RaggedTensorSpec([None, None], tf.int32)
        self.tokenize = shared(graph.tokenize, text)
        self.detokenize = shared(graph.detokenize, ids)
        self.detokenize_all = shared(functools.partial(graph.detokenize, skip_special_tokens=False), ids)
        self._encode, self._encode_pairs = shared(self._encoded, text), shared(self._encoded, text, text)

    def rows(self, outputs: Callable[[Mapping], dict[str, tf.Tensor]], per_token: Collection[str] = ()) -> BucketedRows:
        """A function of rows of mixed lengths, from one of padded rows."""
        return BucketedRows(outputs, self.fills, per_token)

    def outputs_of_rows(self, *names: str, per_token: bool = False) -> BucketedRows:
        """The model's outputs of these names, of rows of mixed lengths."""
        return self.rows(lambda inputs: self.model.inferred(inputs, *names), names if per_token else ())

    def inputs_of(self, encoding: Encoding) -> dict[str, tf.RaggedTensor]:
        """What the model takes of tokens."""
        return {name: getattr(encoding, name) for name in self.row_inputs}

    def encode(self, text: tf.Tensor, pair: tf.Tensor | None = None) -> dict[str, tf.RaggedTensor]:
        """What the model takes of texts or of pairs, one row for each, cut to the longest row."""
        return self._encode(text) if pair is None else self._encode_pairs(text, pair)

    def _encoded(self, *texts: tf.Tensor) -> dict[str, tf.RaggedTensor]:
        if len(texts) == 1 and self.row_inputs == ["input_ids"]:  # not all tokenizers know more
            return {"input_ids": self.graph.tokenize(*texts, max_length=self.row_length)}
        return self.inputs_of(self.graph.encode(*texts, max_length=self.row_length))


def shared(function: Callable, *inputs: tf.TypeSpec) -> Callable:
    """A function that the SavedModel holds once, whichever of its signatures call it, and without a name."""
    graph = tf.function(function, input_signature=inputs, autograph=False)
    return lambda *values: graph(*values)


def is_blank(text: tf.Tensor) -> tf.Tensor:
    """Which texts in valid UTF-8 are empty, or spaces alone `[batch]`."""
    return tf.strings.regex_full_match(text, f"[{SPACES}]*")


def as_many(first: tf.Tensor, second: tf.Tensor, names: str) -> list[tf.Tensor]:
    """Two inputs of a signature, which must have as many texts as each other."""
    check = tf.debugging.assert_equal(tf.size(first), tf.size(second), f"{names} must have as many texts as each other")
    with tf.control_dependencies([check]):
        return [tf.identity(first), tf.identity(second)]
