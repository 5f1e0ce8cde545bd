"""Signatures of next-sentence predictors: two texts in, whether the second follows the first out."""

from collections.abc import Callable

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.pipelines.next_sentence import LABELS
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.text import TextBundle, as_many
from tfheads.serving.token_level import EXAMPLE_PAIR, EXAMPLE_TEXT, text_input, traced


class NextSentenceBundle(TextBundle):
    """A next-sentence predictor with its tokenizer; for the arguments see `TextBundle`."""

    compares_offsets = True

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        self.classifier = self.outputs_of_rows("logits")

    def signatures(self) -> dict[str, Callable]:
        inputs = {name: text_input(name) for name in ("text", "next_text")}
        return {"serving_default": traced(self._predicted, **inputs), **self.token_level_signatures()}

    def example_inputs(self) -> dict[str, list[dict]]:
        pair = {"text": [EXAMPLE_TEXT], "next_text": [EXAMPLE_PAIR]}
        return {"serving_default": [pair], **self.token_level_examples()}

    def _predicted(self, text: tf.Tensor, next_text: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = self.encode(*as_many(text, next_text, "text and next_text"))
        scores = tf.nn.softmax(self.classifier(rows)["logits"])
        return {
            "probability": scores[:, 0],
            "label": tf.gather(LABELS, tf.argmax(scores, axis=-1)),
            "score": tf.reduce_max(scores, axis=-1),
        }
