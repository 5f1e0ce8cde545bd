"""Signatures of sequence classifiers: texts, or pairs of texts, in, classes or numbers out."""

from collections.abc import Callable

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.classes import Classes
from tfheads.serving.text import TextBundle
from tfheads.serving.token_level import EXAMPLE_TEXT, text_input, traced


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

    option_names = ("function_to_apply",)

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        self.classes = Classes(model.config, options.get("function_to_apply"))
        self.classifier = self.outputs_of_rows("logits")

    def signatures(self) -> dict[str, Callable]:
        return {"serving_default": traced(self._classified, text=text_input()), **self.token_level_signatures()}

    def example_inputs(self) -> dict[str, list[dict]]:
        return {"serving_default": [{"text": [EXAMPLE_TEXT]}], **self.token_level_examples()}

    def _classified(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self.encode(text)
        return self.classes.answer(self.classifier(rows)["logits"], rows["input_ids"].row_lengths() > 0)
