"""Models as Keras 2 models (tf-keras), for scripts that live on it and for ParameterServerStrategy, lost in Keras 3.

Needs the extra `tfheads[legacy]`. It is imported only when asked for.
"""

import os
from collections.abc import Mapping

import tensorflow as tf

try:
    import tf_keras
except ImportError as error:
    raise ImportError("tfheads.legacy needs tf-keras, which is not installed: pip install tfheads[legacy]") from error

from tfheads import losses
from tfheads.models import TaskModel


def as_tf_keras(model: TaskModel) -> "LegacyModel":
    """A `tf_keras.Model` over the same variables: what one learns the other knows.

    Args:
        model: a task model, made inside the strategy's scope if there is one.

    Returns:
        A model for tf_keras' `compile`, `fit`, `evaluate` and `predict`, with tf_keras' optimizers, metrics, callbacks
        and losses; without a loss it trains on the task's own. Save `model`, not the returned one.

    Raises:
        TypeError: `model` is no task model.
    """
    if not isinstance(model, TaskModel):
        raise TypeError(f"model must be a model of tfheads, got {type(model).__name__}")
    return LegacyModel(model)


class LegacyModel(tf_keras.Model):
    """A task model for tf_keras; see `as_tf_keras`."""

    def __init__(self, model: TaskModel):
        super().__init__(name=model.name)
        self._original = lambda: model  # tf_keras would track its layers a second time
        self._shared = [variable.value for variable in model.weights]
        self._loss_mean = tf_keras.metrics.Mean("loss")
        self.built = True

    @property
    def original(self) -> TaskModel:
        """The model whose variables these are."""
        return self._original()

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        return _parts(self.original.trainable_variables) if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        return _parts(self.original.non_trainable_variables if self.trainable else self.original.weights)

    @property
    def metrics(self) -> list:
        return [self._loss_mean, *(self.compiled_metrics.metrics if self.compiled_metrics is not None else [])]

    def call(self, inputs, training=False) -> dict:
        """What the model gives, as a plain dictionary."""
        output = self.original(dict(inputs) if isinstance(inputs, Mapping) else inputs, training=bool(training))
        return dict(output)

    def train_step(self, data) -> dict:
        """One update by tf_keras' optimizer."""
        inputs, labels, weights = self._given(data)
        with tf.GradientTape() as tape:
            output = self(inputs, training=True)
            loss, count = self._loss_of(inputs, labels, weights, output)
            scaled = loss / tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return self._results(labels, output, weights, loss, count)

    def test_step(self, data) -> dict:
        """Loss and metrics of one batch."""
        inputs, labels, weights = self._given(data)
        output = self(inputs, training=False)
        return self._results(labels, output, weights, *self._loss_of(inputs, labels, weights, output))

    def predict_step(self, data) -> dict:
        """The outputs of one batch, without labels."""
        inputs, _, _ = self.original.unpack(data, needs_labels=False)
        return self(inputs, training=False)

    def save(self, filepath, *arguments, **options) -> None:
        """Refused: a file of tf_keras could not be read without this class.

        Raises:
            ValueError: always; says what to do.
        """
        raise ValueError(f"save {filepath!r} by save_pretrained, or save, of the model that as_tf_keras was given")

    def save_weights(self, filepath, *arguments, **options) -> None:
        """As in tf_keras, in TensorFlow's format.

        Raises:
            ValueError: another format is asked for.
        """
        if os.fspath(filepath).endswith((".h5", ".keras", ".hdf5")) or options.get("save_format", "tf") != "tf":
            raise ValueError(f"filepath must be a checkpoint in TensorFlow's format, without an ending: {filepath!r}")
        super().save_weights(filepath, *arguments, **options)

    @property
    def _has_own_loss(self) -> bool:
        return not self.loss  # tf_keras has {} where none was given

    def _given(self, data) -> tuple[dict, object, object]:
        """Inputs, labels and weights: checked by the model for its own loss, as they are for one of tf_keras."""
        if self._has_own_loss:
            return self.original.unpack(data)
        inputs, labels, weights = tf_keras.utils.unpack_x_y_sample_weight(data)
        inputs = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
        labels = inputs.pop("labels", None) if labels is None else labels
        if labels is None:
            raise ValueError("labels are missing: give (inputs, labels) or inputs with 'labels'")
        return inputs, labels, weights

    def _loss_of(self, inputs, labels, weights, output) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss, and the number of labels or rows that it is the mean over."""
        if not self._has_own_loss:
            rows = tf.cast(tf.shape(output["logits"])[0], "float32")
            return self.compiled_loss(labels, output["logits"], weights), rows
        criteria = self.original.criteria
        totals = tf.stack([criterion.total(output, labels) for criterion in criteria])
        counts = tf.stack([criterion.count(labels, inputs) for criterion in criteria])
        return losses.mean(totals, counts), counts[0]

    def _results(self, labels, output, weights, loss, count) -> dict:
        self._loss_mean.update_state(loss, sample_weight=count)
        if self.compiled_metrics is not None and self._has_own_loss:
            for criterion in self.original.criteria[:1]:  # tf_keras has metrics of one output
                targets, real = criterion.targets(labels), criterion.real(labels)
                logits = output[criterion.logits]
                targets, logits = (targets, logits) if real is None else (targets[real], logits[real])
                self.compiled_metrics.update_state(targets, logits)
        elif self.compiled_metrics is not None:
            self.compiled_metrics.update_state(labels, output["logits"], weights)
        return {metric.name: metric.result() for metric in self.metrics}


def _parts(variables) -> list[tf.Variable]:
    """TensorFlow's variables of Keras 3's; those that parameter servers hold in parts, part by part."""
    return [part for variable in variables for part in getattr(variable.value, "variables", [variable.value])]
