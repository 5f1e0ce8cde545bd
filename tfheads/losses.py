"""The losses that heads train with, split into a total and a count.

A loss is total / count, where the count depends on the labels alone. Kept apart, both can be summed over micro-batches
and replicas before the division, so that a result does not depend on how a batch was divided.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import ops

from tfheads.checks import same_shape, within

IGNORED = -100  # labels with this value do not count, as in PyTorch


@dataclass(frozen=True)
class TokenCrossEntropy:
    """Cross-entropy of a class for each token, averaged over the labels that are not -100.

    Attributes:
        num_classes: labels must be below it.
        logits: name of the output `[batch, time, num_classes]`.
        labels: name of the labels `[batch, time]`.
        shift: whether the logits at one place predict the label of the next place (causal language modelling).
    """

    num_classes: int
    logits: str = "logits"
    labels: str = "labels"
    shift: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels it reads."""
        return (self.labels,)

    def targets(self, labels: Mapping):
        """The labels as the logits see them: moved by one place if `shift`."""
        targets = ops.cast(labels[self.labels], "int32")
        if self.shift:
            targets = ops.pad(targets[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED)
        return targets

    def count(self, labels: Mapping):
        """How many labels are real, a float32 scalar."""
        return ops.sum(ops.cast(self.targets(labels) != IGNORED, "float32"))

    def total(self, outputs: Mapping, labels: Mapping):
        """The sum of the losses of the real labels, a float32 scalar."""
        targets = self.targets(labels)
        real = targets != IGNORED
        logits = ops.cast(outputs[self.logits], "float32")
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ops.where(real, targets, 0), logits)
        return ops.sum(ops.where(real, losses, 0.0))

    def check(self, inputs: Mapping, labels: Mapping) -> list:
        """Requires labels that fit the inputs and the classes.

        Returns:
            Inside a graph the operations that check what is known only when it runs.

        Raises:
            ValueError: no labels of the name, another shape than `input_ids`, or a label that is neither -100 nor
                below `num_classes`.
        """
        if self.labels not in labels:
            raise ValueError(f"labels must have the name {self.labels!r}, got {', '.join(labels)}")
        given = labels[self.labels]
        reference = inputs.get("input_ids", inputs.get("inputs_embeds"))
        return same_shape(self.labels, given, reference) + within(self.labels, given, 0, self.num_classes - 1, IGNORED)


def mean(totals, counts):
    """The loss: the sum over the criteria of total / count, 0 for a criterion without a real label.

    Args:
        totals, counts: float32 vectors with an entry for each criterion.
    """
    return tf.reduce_sum(tf.math.divide_no_nan(totals, counts))


@keras.saving.register_keras_serializable("tfheads")
class LossMean(keras.metrics.Metric):
    """The mean loss over all real labels seen since the last reset, each label with the same weight."""

    def __init__(self, num_criteria: int = 1, name: str = "loss", **kwargs):
        super().__init__(name=name, dtype="float32", **kwargs)
        self.num_criteria = num_criteria
        self.total = self.add_variable((num_criteria,), initializer="zeros", name="total")
        self.count = self.add_variable((num_criteria,), initializer="zeros", name="count")

    def update_state(self, totals, counts):
        """Adds the totals and counts of one batch, vectors with an entry for each criterion."""
        self.total.assign_add(totals)
        self.count.assign_add(counts)

    def result(self):
        return ops.sum(ops.divide_no_nan(self.total, self.count))

    def get_config(self) -> dict:
        return {"name": self.name, "num_criteria": self.num_criteria}
