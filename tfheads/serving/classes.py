"""Classes of rows as the answer of a signature: the best one, its score, those of all, and their names."""

import tensorflow as tf
import transformers

from tfheads.pipelines.text_classification import function_of

FUNCTIONS = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "none": tf.identity}


class Classes:
    """From logits to names.

    Args:
        config: names the classes and says what kind of problem it is.
        function_to_apply: "softmax", "sigmoid" or "none"; None for what fits the kind, as in the pipeline.

    Raises:
        ValueError: there is no such function.
    """

    def __init__(self, config: transformers.PreTrainedConfig, function_to_apply: str | None = None):
        self.function = FUNCTIONS[function_of(config, function_to_apply)]
        self.names = [str(config.id2label[index]) for index in range(len(config.id2label))]

    def answer(self, logits: tf.Tensor, real: tf.Tensor) -> dict[str, tf.Tensor]:
        """The answer of a signature.

        Args:
            logits: `[batch, classes]`.
            real: which rows have a class, booleans `[batch]`; the others get "" and 0.

        Returns:
            `label` and `score` `[batch]`, `scores` and `labels`, the names that belong to them, `[batch, classes]`.
        """
        scores = tf.where(real[:, None], self.function(logits), 0.0)
        names, best = tf.constant(self.names), tf.argmax(scores, axis=-1)
        return {
            "label": tf.where(real, tf.gather(names, best), ""),
            "score": tf.reduce_max(scores, axis=-1),
            "scores": scores,
            "labels": tf.broadcast_to(names, tf.shape(scores)),
        }
