"""Signatures of sequence classifiers: texts, or pairs of texts, in, classes or numbers out."""

from collections.abc import Callable

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.classes import Classes
from tfheads.serving.text import TextBundle, as_many
from tfheads.serving.token_level import EXAMPLE_PAIR, EXAMPLE_TEXT, text_input, traced


class TextClassificationBundle(TextBundle):
    """A classifier of texts with its tokenizer.

    Args:
        model: a sequence classifier.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: see `Served.export_serving`.

    Raises:
        ValueError: there is no such `function_to_apply`.
    """

    compares_offsets = True
    option_names = ("function_to_apply",)

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        self.classes = Classes(model.config, options.get("function_to_apply"))
        self.classifier = self.outputs_of_rows("logits")

    def signatures(self) -> dict[str, Callable]:
        return {
            "serving_default": traced(self._of_texts, text=text_input()),
            "text_pair": traced(self._of_pairs, text=text_input(), text_pair=text_input("text_pair")),
            **self.token_level_signatures(),
        }

    def example_inputs(self) -> dict[str, list[dict]]:
        text = {"text": [EXAMPLE_TEXT]}
        return {
            "serving_default": [text],
            "text_pair": [{**text, "text_pair": [EXAMPLE_PAIR]}],
            **self.token_level_examples(),
        }

    def _of_texts(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._classified(self.encode(text))

    def _of_pairs(self, text: tf.Tensor, text_pair: tf.Tensor) -> dict[str, tf.Tensor]:
        text, text_pair = as_many(text, text_pair, "text and text_pair")
        is_single = tf.strings.length(text_pair) == 0  # an empty second text is none, as in the pipeline
        single, double = tf.where(is_single)[:, 0], tf.where(~is_single)[:, 0]
        texts = self.encode(tf.gather(text, single))
        pairs = self.encode(tf.gather(text, double), tf.gather(text_pair, double))
        order = tf.argsort(tf.concat([single, double], 0))
        return self._classified({name: tf.gather(tf.concat([texts[name], pairs[name]], 0), order) for name in texts})

    def _classified(self, rows: dict[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        return self.classes.answer(self.classifier(rows)["logits"], rows["input_ids"].row_lengths() > 0)
