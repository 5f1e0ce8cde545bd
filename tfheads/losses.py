"""The losses that heads train with, split into a total and a count.

A loss is total / count, where the count depends on the labels alone. Kept apart, both can be summed over micro-batches
and replicas before the division, so that a result does not depend on how a batch was divided.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfheads.checks import require, same_shape, within

IGNORED = -100  # labels with this value do not count, as in PyTorch


class Criterion:
    """One loss of a head: which output it compares with which labels.

    Attributes:
        logits: name of the output.
        labels: name of the labels.
        weight: what the loss is multiplied by where a head adds up several.
    """

    logits: str
    labels: str
    weight: float = 1.0

    def targets(self, labels: Mapping):
        """The labels as the logits see them."""
        raise NotImplementedError

    def real(self, labels: Mapping):
        """Booleans of the targets' shape: which of them count; None if all do."""
        raise NotImplementedError

    def takes(self, labels) -> bool:
        """Whether a tensor of labels is of the kind that this loss compares with, rather than a Keras loss's own."""
        raise NotImplementedError

    def example(self) -> tuple[np.ndarray, np.ndarray]:
        """A target and logits as small as can be, from which metrics make their variables."""
        raise NotImplementedError

    def seen(self, labels, inputs: Mapping):
        """A tensor of labels without those that inputs leave out, which become -100."""
        return labels

    def count(self, labels: Mapping, inputs: Mapping):
        """How many labels are real, a float32 scalar."""
        raise NotImplementedError

    def total(self, outputs: Mapping, labels: Mapping):
        """The sum of the losses of the real labels times `weight`, a float32 scalar."""
        raise NotImplementedError

    def check(self, inputs: Mapping, labels: Mapping) -> list:
        """Requires labels that fit the inputs.

        Returns:
            Inside a graph the operations that check what is known only when it runs.

        Raises:
            ValueError: no labels of the name, a wrong shape or type, or where values are known a wrong one.
        """
        raise NotImplementedError

    def given(self, labels: Mapping) -> tf.Tensor:
        """The labels that are meant.

        Raises:
            ValueError: there are none of the name.
        """
        if self.labels not in labels:
            raise ValueError(f"labels must have the name {self.labels!r}, got {', '.join(labels)}")
        return labels[self.labels]


@dataclass(frozen=True)
class CrossEntropy(Criterion):
    """Cross-entropy of one class, averaged over the labels that are not -100; subclasses say of what.

    Attributes:
        num_classes: labels must be below it.
        logits: name of the output `[..., num_classes]`.
        labels: name of the labels `[...]`.
        weight: what the loss is multiplied by.
    """

    num_classes: int
    logits: str = "logits"
    labels: str = "labels"
    weight: float = 1.0

    def targets(self, labels):
        return ops.cast(labels[self.labels], "int32")

    def real(self, labels):
        return self.targets(labels) != IGNORED

    def count(self, labels, inputs):
        return ops.sum(ops.cast(self.real(labels), "float32"))

    def total(self, outputs, labels):
        targets, real = self.targets(labels), self.real(labels)
        logits = ops.cast(outputs[self.logits], "float32")
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(ops.where(real, targets, 0), logits)
        return ops.sum(ops.where(real, losses, 0.0)) * self.weight


@dataclass(frozen=True)
class TokenCrossEntropy(CrossEntropy):
    """Cross-entropy of a class for each token, labels of the shape of `input_ids`.

    Attributes:
        shift: whether the logits at one place predict the label of the next place (causal language modelling).
    """

    shift: bool = False

    def targets(self, labels):
        targets = super().targets(labels)
        if not self.shift:
            return targets
        return ops.concatenate([targets[..., 1:], ops.full_like(targets[..., :1], IGNORED)], axis=-1)

    def takes(self, labels):
        return labels.dtype.is_integer and labels.shape.rank in (2, 3)

    def example(self):
        return np.zeros((1,), "int32"), np.zeros((1, self.num_classes), "float32")

    def check(self, inputs, labels):
        names = ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds")
        name = next(name for name in names if inputs.get(name) is not None)
        given, reference = self.given(labels), inputs[name]
        axes = reference.shape.rank - 1 if name.endswith("embeds") else None
        shapes = same_shape(self.labels, given, reference, name if axes is None else "input_ids", axes)
        return shapes + within(self.labels, given, 0, self.num_classes - 1, IGNORED)


@dataclass(frozen=True)
class ClassCrossEntropy(CrossEntropy):
    """Cross-entropy of a class for each row, labels `[batch]`."""

    def takes(self, labels):
        return labels.dtype.is_integer and labels.shape.rank == 1

    def example(self):
        return np.zeros((1,), "int32"), np.zeros((1, self.num_classes), "float32")

    def check(self, inputs, labels):
        given = self.given(labels)
        return one_for_each_row(self.labels, given, inputs) + within(self.labels, given, 0, self.high(inputs), IGNORED)

    def high(self, inputs: Mapping) -> int:
        """The largest label."""
        return self.num_classes - 1


@dataclass(frozen=True)
class ChoiceCrossEntropy(ClassCrossEntropy):
    """Cross-entropy of one of a row's choices, labels `[batch]`, logits `[batch, choices]`."""

    num_classes: int = 2  # for `example` alone: the inputs say how many there are

    def high(self, inputs):
        choices = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        return None if choices.shape[1] is None else choices.shape[1] - 1


@dataclass(frozen=True)
class PositionCrossEntropy(ClassCrossEntropy):
    """Cross-entropy of a place in the row, labels `[batch]`, logits `[batch, time]`.

    Places outside of the row do not count, as in transformers: an answer that was cut off.
    """

    num_classes: int = 2  # for `example` alone: the inputs say how long rows are

    def high(self, inputs):
        return None

    def count(self, labels, inputs):
        tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        return ops.sum(ops.cast(self._inside(labels, ops.shape(tokens)[1]), "float32"))

    def total(self, outputs, labels):
        inside = self._inside(labels, ops.shape(outputs[self.logits])[1])
        return super().total(outputs, {self.labels: ops.where(inside, self.targets(labels), IGNORED)})

    def _inside(self, labels, length):
        return ops.logical_and(self.real(labels), self.targets(labels) < length)


@dataclass(frozen=True)
class TokenBinaryCrossEntropy(Criterion):
    """Binary cross-entropy of a yes or no for each token that the mask leaves; labels `[batch, time]`.

    Attributes:
        logits: name of the output `[batch, time]`.
        labels: name of the labels, 0 or 1 or -100.
    """

    logits: str = "logits"
    labels: str = "labels"

    def targets(self, labels):
        return ops.cast(labels[self.labels], "int32")

    def real(self, labels):
        return self.targets(labels) != IGNORED

    def takes(self, labels):
        return labels.dtype.is_integer and labels.shape.rank == 2

    def example(self):
        return np.zeros((1,), "int32"), np.zeros((1,), "float32")

    def seen(self, labels, inputs):
        mask = inputs.get("attention_mask")
        if mask is None or not self.takes(labels):
            return labels
        return ops.where(ops.cast(mask, "bool"), labels, IGNORED)

    def count(self, labels, inputs):
        return ops.sum(ops.cast(self.real(labels), "float32"))

    def total(self, outputs, labels):
        real, logits = self.real(labels), ops.cast(outputs[self.logits], "float32")
        targets = ops.cast(ops.where(real, self.targets(labels), 0), "float32")
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
        return ops.sum(ops.where(real, losses, 0.0))

    def check(self, inputs, labels):
        return TokenCrossEntropy(2, self.logits, self.labels).check(inputs, labels)


@dataclass(frozen=True)
class SequenceLoss(Criterion):
    """What transformers' sequence classifiers train on: classes, numbers, or a yes or no for each class.

    Attributes:
        num_labels: how many classes or numbers.
        problem_type: "single_label_classification" (cross-entropy, labels `[batch]`), "regression" (squared error,
            labels `[batch]` or `[batch, num_labels]`), "multi_label_classification" (binary cross-entropy, labels
            `[batch, num_labels]` of 0 and 1); None takes regression for one label, else the kind of the labels' type:
            classes for whole numbers, a yes or no for each for others.
        logits: name of the output `[batch, num_labels]`.
        labels: name of the labels.
    """

    num_labels: int
    problem_type: str | None = None
    logits: str = "logits"
    labels: str = "labels"

    def __post_init__(self):
        kinds = (None, "single_label_classification", "regression", "multi_label_classification")
        if self.problem_type not in kinds:
            raise ValueError(f"problem_type must be one of {', '.join(map(repr, kinds))}, got {self.problem_type!r}")

    def targets(self, labels):
        given = labels[self.labels]
        kind = self._kind(given)
        if kind == "single_label_classification":
            return ops.cast(given, "int32")
        return ops.reshape(ops.cast(given, "float32"), (-1, self.num_labels))

    def real(self, labels):
        if self._kind(labels[self.labels]) == "single_label_classification":
            return self.targets(labels) != IGNORED
        return None

    def takes(self, labels):
        return self._kind(labels) != "single_label_classification" or labels.shape.rank == 1

    def example(self):
        logits = np.zeros((1, self.num_labels), "float32")
        many = self.problem_type in ("regression", "multi_label_classification") or self.num_labels == 1
        return (logits if many else np.zeros((1,), "int32")), logits

    def count(self, labels, inputs):
        real, targets = self.real(labels), self.targets(labels)
        return ops.cast(ops.size(targets), "float32") if real is None else ops.sum(ops.cast(real, "float32"))

    def total(self, outputs, labels):
        kind, targets = self._kind(labels[self.labels]), self.targets(labels)
        logits = ops.cast(outputs[self.logits], "float32")
        if kind == "single_label_classification":
            return ClassCrossEntropy(self.num_labels, self.logits, self.labels).total(outputs, labels)
        if kind == "regression":
            return ops.sum(ops.square(logits - targets))
        return ops.sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits))

    def check(self, inputs, labels):
        given = self.given(labels)
        kind = self._kind(given)
        if kind == "single_label_classification":
            return ClassCrossEntropy(self.num_labels, self.logits, self.labels).check(inputs, labels)
        shape = (None, self.num_labels)
        if kind == "regression" and self.num_labels == 1 and given.shape.rank == 1:
            shape = (None,)
        if not given.shape.is_compatible_with(shape):
            raise ValueError(f"labels of a {kind} must have the shape [batch, {self.num_labels}], got {given.shape}")
        checks = one_for_each_row(self.labels, given, inputs)
        if kind == "multi_label_classification":
            wrong = tf.reduce_any((given < 0) | (given > 1))
            message = f"{self.labels} of a {kind} must be between 0 and 1"
            checks += require(~wrong, message, tf.reduce_max(tf.abs(given)))
        return checks

    def _kind(self, labels) -> str:
        if self.problem_type is not None:
            return self.problem_type
        if self.num_labels == 1:
            return "regression"
        return "single_label_classification" if labels.dtype.is_integer else "multi_label_classification"


def one_for_each_row(name: str, labels, inputs: Mapping) -> list:
    """Requires labels `[batch, ...]` for inputs `[batch, ...]`; see `tfheads.checks.require`."""
    rows = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
    if labels.shape.rank == 0:
        raise ValueError(f"{name} must have one entry for each row, got a single number")
    return same_shape(name, labels[:, 0] if labels.shape.rank == 2 else labels, rows, axes=1)


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
        # Every replica adds what was summed over all, so any of them is the whole and reading needs no communication.
        options = {"initializer": "zeros", "aggregation": "only_first_replica"}
        self.total = self.add_variable((num_criteria,), name="total", **options)
        self.count = self.add_variable((num_criteria,), name="count", **options)

    def update_state(self, totals, counts):
        """Adds the totals and counts of one batch, vectors with an entry for each criterion."""
        self.total.assign_add(totals)
        self.count.assign_add(counts)

    def result(self):
        return ops.sum(ops.divide_no_nan(self.total, self.count))

    def get_config(self) -> dict:
        return {"name": self.name, "num_criteria": self.num_criteria}
