"""Signatures of multiple-choice models: a prompt and choices in, the best choice out."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.text import TextBundle
from tfheads.serving.token_level import EXAMPLE_PAIR, EXAMPLE_TEXT, text_input, traced


class MultipleChoiceBundle(TextBundle):
    """A multiple-choice model with its tokenizer; for the arguments see `TextBundle`."""

    compares_offsets = True

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        self.classifier = self.rows(self._logits)

    def signatures(self) -> dict[str, Callable]:
        choices = tf.TensorSpec([None, None], "string", "choices")
        chosen = traced(self._chosen, prompt=text_input("prompt"), choices=choices)
        return {"serving_default": chosen, **self.token_level_signatures()}

    def example_inputs(self) -> dict[str, list[dict]]:
        example = {"prompt": [EXAMPLE_TEXT], "choices": [[EXAMPLE_PAIR, EXAMPLE_TEXT]]}
        return {"serving_default": [example], **self.token_level_examples()}

    def _logits(self, inputs: Mapping) -> dict[str, tf.Tensor]:
        # Choices do not see each other: each is an example of one choice here.
        output, _ = self.model.forward({name: value[:, None] for name, value in inputs.items()}, training=False)
        return {"logits": tf.cast(output["logits"][:, 0], "float32")}

    def _chosen(self, prompt: tf.Tensor, choices: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(choices)
        checks = [
            tf.debugging.assert_equal(tf.size(prompt), shape[0], "choices must be as many rows as prompt has texts"),
            tf.debugging.assert_greater_equal(shape[1], 1, "choices must be at least 1 for each prompt"),
        ]
        with tf.control_dependencies(checks):
            rows = self.encode(tf.repeat(prompt, shape[1]), tf.reshape(choices, [-1]))
        scores = tf.nn.softmax(tf.reshape(self.classifier(rows)["logits"], shape))
        best = tf.argmax(scores, axis=-1, output_type=tf.int32)
        return {
            "choice": tf.gather(choices, best, batch_dims=1),
            "index": best,
            "score": tf.reduce_max(scores, axis=-1),
            "scores": scores,
        }
