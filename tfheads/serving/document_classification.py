"""Signatures of classifiers of documents: texts of any length in, classes or numbers out."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.classes import Classes
from tfheads.serving.text import TextBundle
from tfheads.serving.token_level import EXAMPLE_TEXT, text_input, traced
from tfheads.tasks import windows


class DocumentClassificationBundle(TextBundle):
    """A classifier of documents with its tokenizer; a document's windows are rows of their own.

    Args:
        model: a classifier of documents.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: see `Served.export_serving`.

    Raises:
        ValueError: there is no such `function_to_apply`.
    """

    option_names = ("function_to_apply",)

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        self.classes = Classes(model.config, options.get("function_to_apply"))
        self.encoder = self.rows(self._vectors)

    def signatures(self) -> dict[str, Callable]:
        return {"serving_default": traced(self._classified, text=text_input()), **self.token_level_signatures()}

    def example_inputs(self) -> dict[str, list[dict]]:
        return {"serving_default": [{"text": [EXAMPLE_TEXT]}], **self.token_level_examples()}

    def _vectors(self, inputs: Mapping) -> dict[str, tf.Tensor]:
        encoded = self.model.backbone(inputs, training=False)
        return {"vectors": self.model.head.pooler(encoded, inputs=inputs, training=False)}

    def _classified(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self.inputs_of(self.graph.encode(text))
        lengths = tf.cast(rows["input_ids"].row_lengths(), tf.int32)
        cut, counts = self._windows(rows, lengths)
        vectors = tf.RaggedTensor.from_row_lengths(self.encoder(cut)["vectors"], counts)
        real = tf.sequence_mask(counts)
        logits = self.model.head.of_windows(vectors.to_tensor(), real, training=False)["logits"]
        return self.classes.answer(tf.cast(logits, "float32"), lengths > 0)

    def _windows(self, rows: Mapping, lengths: tf.Tensor) -> tuple[dict[str, tf.RaggedTensor], tf.Tensor]:
        """The windows of all documents one behind another, and how many each document has."""
        model = self.model
        size, stride = model.window_length, model.window_stride
        counts = windows.count(lengths, size, stride)
        message = f"documents must have at most max_windows={model.max_windows} windows of {size} tokens"
        check = tf.debugging.assert_less_equal(counts, model.max_windows, message)
        with tf.control_dependencies([check]):
            document = tf.repeat(tf.range(tf.size(counts)), counts)
        number = tf.range(tf.size(document)) - tf.gather(tf.cumsum(counts, exclusive=True), document)
        sizes = tf.minimum(size, tf.gather(lengths, document) - number * stride)
        starts = tf.gather(tf.cast(rows["input_ids"].row_starts(), tf.int32), document) + number * stride
        places = tf.ragged.range(starts, starts + sizes)
        return {
            name: places.with_values(tf.gather(value.values, places.values)) for name, value in rows.items()
        }, counts
