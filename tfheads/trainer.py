"""How a task model trains, evaluates and predicts inside `fit`, `evaluate` and `predict`.

XLA compiles forward and backward into one function. The sum over replicas, the clipping and the update stay outside
it, because XLA cannot compile a collective on every device: so compilation works under every strategy.
"""

import functools
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf
from keras.src.backend import set_keras_mask
from keras.src.utils.tracking import no_automatic_dependency_tracking

from tfheads import losses
from tfheads.checks import after, plain_errors
from tfheads.distribute.agreement import worker_errors
from tfheads.distribute.keras_replacements import prepare_optimizer, require_in_scope, require_own_scope
from tfheads.distribute.loops import ReplicaLoops, data_for_replicas
from tfheads.distribute.replicas import sum_over_replicas
from tfheads.inputs import as_arrays, as_tensor
from tfheads.optimizers import check_moves
from tfheads.outputs import ModelOutput


def keras_loop(name: str) -> Callable:
    """Keras' method of this name; it also takes a tokenizer's `BatchEncoding` and lists, and its errors are plain."""
    original = getattr(keras.Model, name)

    @functools.wraps(original)
    def loop(self, x=None, *arguments, **options):
        if options.get("class_weight") is not None and not self.has_a_class_for_each_row:
            raise ValueError("class_weight must be None, Keras would take labels of tokens for one-hot: weigh samples")
        if not name.startswith("predict"):
            require_own_scope(self, name)
        if isinstance(options.get("validation_data"), tuple):
            options["validation_data"] = tuple(as_arrays(one) for one in options["validation_data"])
        options = {key: as_arrays(value) if key == "y" else value for key, value in options.items()}
        arguments = (as_arrays(x), *(as_arrays(argument) for argument in arguments))
        if not name.endswith("_on_batch") and self.distribute_strategy.num_replicas_in_sync > 1:
            arguments, options = (), data_for_replicas(self.distribute_strategy, original, arguments, options)
        with plain_errors(), worker_errors(self.distribute_strategy):
            return original(self, *arguments, **options)

    return loop


class TaskTrainer(ReplicaLoops):
    """Mixin of `TaskModel`: compile, and the steps that Keras' loops run."""

    compiled_by_xla = False
    has_own_loss = True
    gradient_accumulation_steps = 1
    _is_compiled_for_training = False

    @property
    def has_a_class_for_each_row(self) -> bool:
        """Whether rows have one label each, a class, as Keras expects for `class_weight`."""
        return len(self.criteria) == 1 and isinstance(self.criteria[0], (losses.ClassCrossEntropy, losses.SequenceLoss))

    fit = keras_loop("fit")
    evaluate = keras_loop("evaluate")
    predict = keras_loop("predict")
    train_on_batch = keras_loop("train_on_batch")
    test_on_batch = keras_loop("test_on_batch")
    predict_on_batch = keras_loop("predict_on_batch")

    @property
    def jit_compile(self) -> None:
        """None to Keras' loops, which would compile sums over replicas too; see `compiled_by_xla`."""
        return None  # not False: TensorFlow passes over an assignment of what is there already

    @jit_compile.setter
    def jit_compile(self, value) -> None:
        if value is not False or self._is_compiled_for_training:
            raise AttributeError(f"jit_compile is an argument of compile, give it there, got {value!r}")

    @no_automatic_dependency_tracking  # as in Keras: the loss tracker of an earlier compile would stay
    def compile(
        self,
        optimizer="adamw",
        loss=None,
        metrics=None,
        weighted_metrics=None,
        loss_weights=None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: "bool | str" = "auto",
        auto_scale_loss: bool = True,
        gradient_accumulation_steps: int = 1,
    ) -> None:
        """Prepares the model for training.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: None for the task's own loss, which ignores labels of -100; or any Keras loss of (labels, logits).
            metrics, weighted_metrics, loss_weights, run_eagerly, steps_per_execution, auto_scale_loss: as in Keras.
                Losses and metrics see labels of tokens `[batch, time]` as the logits do (moved by one place for causal
                language models) and ignore -100; labels of another kind reach a Keras loss as they are.
            jit_compile: whether XLA compiles forward and backward; "auto" says yes unless `run_eagerly`.
            gradient_accumulation_steps: each batch is divided into this many equal parts, one after another through
                the model, before one update: the same result with less memory.

        Raises:
            ValueError: the model has no loss of its own and none is given, `gradient_accumulation_steps` < 1, or the
                model, the optimizer or a metric was made outside of the scope of the strategy.
        """
        if loss is None and not self.criteria:
            raise ValueError(f"loss must be given: {type(self).__name__} has no head to train, got loss=None")
        if loss is None and loss_weights is not None:
            raise ValueError(f"loss_weights must be None with the model's own loss, got {loss_weights!r}")
        if loss is None and type(self).compute_loss is not keras.Model.compute_loss:
            raise ValueError(
                f"loss must be given: {type(self).__name__} overrides compute_loss, which sees a Keras loss"
            )
        if gradient_accumulation_steps < 1:
            raise ValueError(f"gradient_accumulation_steps must be at least 1, got {gradient_accumulation_steps}")
        require_own_scope(self, "compile")
        require_in_scope(self.distribute_strategy, optimizer, metrics, weighted_metrics)
        self._is_compiled_for_training = False
        with self.distribute_strategy.scope():  # for what is given by its name
            super().compile(
                optimizer=optimizer,
                loss=loss,
                loss_weights=loss_weights,
                metrics=metrics,
                weighted_metrics=weighted_metrics,
                run_eagerly=run_eagerly,
                steps_per_execution=steps_per_execution,
                jit_compile=False,
                auto_scale_loss=auto_scale_loss,
            )
        self._is_compiled_for_training = True
        self.compiled_by_xla = bool(jit_compile) and not run_eagerly
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.has_own_loss = loss is None
        if self.has_own_loss:
            with self.distribute_strategy.scope():
                self._loss_tracker = losses.LossMean(len(self.criteria))
        self._compiled_steps = {}
        if self.optimizer is not None:
            prepare_optimizer(self.optimizer, self.distribute_strategy)

    def get_compile_config(self) -> dict | None:
        config = super().get_compile_config()
        if not config:
            return config
        steps = self.gradient_accumulation_steps
        return {**config, "jit_compile": self.compiled_by_xla, "gradient_accumulation_steps": steps}

    def compile_from_config(self, config: dict) -> None:
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if getattr(self, "optimizer", None) is not None:
            self.optimizer.build(self.trainable_variables)

    def train_step(self, data):
        """One update: compiled gradients of each part of the batch, one sum over replicas, clip, update."""
        for dtype in {variable.dtype for variable in self.trainable_variables}:
            check_moves(self.optimizer, dtype)
        inputs, labels, sample_weight = self.unpack(data)
        parts = _divided((inputs, labels, sample_weight), self.gradient_accumulation_steps)
        counts = sum_over_replicas(self._counts(inputs, labels, sample_weight))
        totals, gradients, outputs = None, None, []
        for part in parts:
            output, total, gradient = self._compiled("train", self._forward_backward)(*part, counts)
            outputs.append(output)
            totals = total if totals is None else totals + total
            gradients = gradient if gradients is None else [a + b for a, b in zip(gradients, gradient, strict=True)]
        totals, *gradients = sum_over_replicas([totals, *gradients])
        self.optimizer.apply(gradients, self.trainable_variables)
        self._track(totals, counts)
        outputs = {name: tf.concat([output[name] for output in outputs], 0) for name in outputs[0]}
        return self._update_metrics(labels, outputs, sample_weight)

    def test_step(self, data):
        """Losses and metrics of one batch."""
        inputs, labels, sample_weight = self.unpack(data)
        output, totals = self._compiled("test", self._forward_loss)(inputs, labels, sample_weight)
        counts = self._counts(inputs, labels, sample_weight)
        self._track(*sum_over_replicas([totals, counts]))
        return self._update_metrics(labels, output, sample_weight)

    def predict_step(self, data):
        """The outputs of one batch, without labels."""
        inputs, _, _ = self.unpack(data, needs_labels=False)
        return self._compiled("predict", self._forward)(inputs)

    def unpack(self, data, needs_labels: bool = True) -> tuple[dict, object, object]:
        """A batch as inputs, labels and sample weights; labels may be given apart or among the inputs.

        Raises:
            ValueError: no labels though they are needed, weights that the loss does not use, or inputs that the model
                cannot take.
        """
        inputs, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        inputs = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
        names = [criterion.labels for criterion in self.criteria]
        among_inputs = {name: inputs.pop(name) for name in names if name in inputs}
        inputs = {name: as_tensor(name, value) for name, value in inputs.items() if value is not None}
        if labels is None and among_inputs:
            labels = among_inputs
        elif labels is not None and not isinstance(labels, Mapping) and names:
            labels = {names[0]: labels}
        if isinstance(labels, Mapping):
            labels = {name: as_tensor(name, value) for name, value in labels.items()}
        inputs = self.completed(inputs, labels)
        checks = self.check_inputs(inputs)
        if not needs_labels:
            return after(checks, inputs), None, None
        if labels is None:
            raise ValueError(f"labels are missing: give (inputs, labels) or inputs with {(names or ['labels'])[0]!r}")
        if sample_weight is not None and self.has_own_loss:
            raise ValueError("sample_weight must be None with the model's own loss: compile with a Keras loss")
        for criterion in self.criteria if self.has_own_loss or self._are_own(labels) else ():
            checks += criterion.check(inputs, labels)
        if isinstance(labels, Mapping):
            labels = self.seen_labels(labels, inputs)
        return after(checks, (inputs, labels, sample_weight))

    def _are_own(self, labels) -> bool:
        """Whether labels given to a Keras loss are those that the model's own loss would take."""
        return (
            bool(self.criteria)
            and isinstance(labels, Mapping)
            and set(labels) == {criterion.labels for criterion in self.criteria}
            and all(criterion.takes(labels[criterion.labels]) for criterion in self.criteria)
        )

    def _as_keras_sees(self, labels, output) -> list[tuple]:
        """For Keras' losses and metrics: name of the labels, targets, logits, and which targets are real or None."""
        if not self._are_own(labels):
            single = isinstance(labels, Mapping) and len(labels) == 1
            return [("labels", next(iter(labels.values())) if single else labels, output["logits"], None)]
        found = []
        for criterion in self.criteria:
            targets, real = criterion.targets(labels), criterion.real(labels)
            targets = targets if real is None else tf.where(real, targets, 0)
            found.append((criterion.labels, targets, output[criterion.logits], real))
        return found

    def get_metrics_result(self) -> dict:
        logs = super().get_metrics_result()
        if "loss" in logs and self.has_own_loss and self.reports_perplexity:
            logs["perplexity"] = tf.exp(logs["loss"])
        return logs

    def _compiled(self, name, function):
        """`function` compiled by XLA, made once for each name; as it is if it runs once a step and without XLA."""
        if not self.compiled_by_xla and (self.run_eagerly or self.gradient_accumulation_steps == 1):
            return function
        if name not in self._compiled_steps:
            options = {"jit_compile": self.compiled_by_xla, "reduce_retracing": True, "autograph": False}
            self._compiled_steps[name] = tf.function(function, **options)
        return self._compiled_steps[name]

    def _forward(self, inputs):
        return self(inputs, training=False)

    def _forward_loss(self, inputs, labels, sample_weight):
        output = self(inputs, training=False)
        return self._for_metrics(output), self._totals(inputs, labels, sample_weight, output, training=False)

    def _forward_backward(self, inputs, labels, sample_weight, counts):
        variables = [variable.value for variable in self.trainable_variables]
        with tf.GradientTape() as tape:
            output = self(inputs, training=True)
            totals = self._totals(inputs, labels, sample_weight, output, training=True)
            loss = self.optimizer.scale_loss(losses.mean(totals, counts))
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return self._for_metrics(output), totals, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _for_metrics(self, output):
        """The outputs that leave the compiled function: none unless a metric wants them, they may be large."""
        wanted = self._compile_metrics is not None or not self.has_own_loss
        names = {criterion.logits for criterion in self.criteria} or {"logits"}
        return {name: value for name, value in output.items() if wanted and name in names}

    def _totals(self, inputs, labels, sample_weight, output, training):
        """The loss totals, a float32 vector with an entry for each criterion."""
        if self.has_own_loss:
            if self.losses:
                raise ValueError(
                    "regularizers and add_loss are not part of the task's own loss: compile with a Keras loss, "
                    f"got {len(self.losses)} of them"
                )
            return tf.stack([criterion.total(output, labels) for criterion in self.criteria])
        targets, predicted = {}, {}
        for name, targets[name], logits, real in self._as_keras_sees(labels, output):
            predicted[name] = tf.identity(logits)
            if real is not None:
                set_keras_mask(predicted[name], real)  # Keras' losses are means over what the mask leaves
                sample_weight = None if sample_weight is None else _like(sample_weight, real)
        loss = self.compute_loss(inputs, _alone(targets), _alone(predicted), sample_weight, training=training)
        # Keras divides by the number of replicas, since it sums the means of each.
        loss = tf.cast(loss, "float32")[None] * tf.distribute.get_strategy().num_replicas_in_sync
        return loss * self._counts(inputs, labels, sample_weight)

    def _counts(self, inputs, labels, sample_weight):
        """How many labels the totals are over, a float32 vector with an entry for each criterion."""
        if self.has_own_loss:
            return tf.stack([criterion.count(labels, inputs) for criterion in self.criteria])
        if len(self.criteria) == 1 and self._are_own(labels):
            return self.criteria[0].count(labels, inputs)[None]
        return tf.cast(tf.shape(keras.tree.flatten(inputs)[0])[:1], "float32")

    def _track(self, totals, counts):
        """Takes what was summed over replicas: a replica's own mean would weigh its labels by their number."""
        if self.has_own_loss:
            self._loss_tracker.update_state(totals, counts)
        else:
            self._loss_tracker.update_state(tf.math.divide_no_nan(totals[0], counts[0]), sample_weight=counts[0])

    def _update_metrics(self, labels, output, sample_weight):
        if self._compile_metrics is not None:
            targets, predicted = {}, {}
            for name, targets[name], predicted[name], real in self._as_keras_sees(labels, output):
                if real is None:
                    continue
                # Keras gives no weights to plain metrics, so they see what is real alone
                targets[name], predicted[name] = targets[name][real], predicted[name][real]
                if sample_weight is not None:
                    sample_weight = tf.broadcast_to(_like(sample_weight, real), tf.shape(real))[real]
            self._compile_metrics.update_state(_alone(targets), _alone(predicted), sample_weight=sample_weight)
        return self.get_metrics_result()

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Weights exist already; Keras would run the first batch to make them, which some strategies cannot.

        The variables of metrics must exist too, since replicas cannot make them.
        """
        with self.distribute_strategy.scope():
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
            needs_them = self.has_own_loss or self.distribute_strategy.num_replicas_in_sync > 1
            if needs_them and self.criteria and self._compile_metrics is not None and not self._compile_metrics.built:
                examples = {criterion.labels: criterion.example() for criterion in self.criteria}
                targets = {name: target for name, (target, _) in examples.items()}
                predicted = {name: logits for name, (_, logits) in examples.items()}
                self._compile_metrics.build(_alone(targets), _alone(predicted))

    _maybe_symbolic_build = _symbolic_build


def _like(sample_weight, values) -> tf.Tensor:
    """Weights of rows `[batch]` or tokens `[batch, time]`, with as many axes as the values that they weigh."""
    weight = tf.cast(sample_weight, "float32")
    return tf.reshape(weight, tf.concat([tf.shape(weight), [1] * (values.shape.rank - weight.shape.rank)], 0))


def _alone(entries: dict):
    """The only entry, or all of them by name."""
    return next(iter(entries.values())) if len(entries) == 1 else entries


def _divided(batch, parts: int) -> list:
    """A batch in equal parts along the rows.

    Raises:
        ValueError: the rows of the batch are known and cannot be divided evenly.
    """
    if parts == 1:
        return [batch]
    rows = keras.tree.flatten(batch[0])[0].shape[0]
    if rows is not None and rows % parts:
        raise ValueError(f"a batch of {rows} rows cannot be divided by gradient_accumulation_steps={parts}")

    def cut(value, index):
        if value is None:
            return None
        size = tf.shape(value)[0]
        return value[size * index // parts : size * (index + 1) // parts]

    return [keras.tree.map_structure(lambda value, at=index: cut(value, at), batch) for index in range(parts)]


def output_of(entries: Mapping) -> ModelOutput:
    """The model's output without the entries that are None."""
    return ModelOutput((name, value) for name, value in entries.items() if value is not None)
