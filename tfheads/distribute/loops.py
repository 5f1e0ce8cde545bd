"""The functions that Keras' loops call: some steps on all replicas, and what they say.

Keras' own give the mean of what each replica knows, which is no accuracy and no perplexity, cannot run several steps in
one execution on several replicas, and give each replica all the rows of `predict_on_batch`.
"""

import functools
import inspect
from collections.abc import Callable

import keras
import tensorflow as tf

from tfheads.distribute.batches import batches_of, divided, on_each_replica, split_for_validation
from tfheads.distribute.replicas import first_replica, rows_of_all_replicas


class ReplicaLoops:
    """Mixin of the trainer: its train, test and predict functions under every strategy."""

    def make_train_function(self, force: bool = False):
        if self.train_function is None or force:
            self.train_function = self._execution(self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False):
        if self.test_function is None or force:
            self.test_function = self._execution(self.test_step)
        return self.test_function

    def make_predict_function(self, force: bool = False):
        if self.predict_function is None or force:
            self.predict_function = self._prediction()
        return self.predict_function

    def _execution(self, step: Callable) -> Callable:
        """From an iterator to the logs after `steps_per_execution` steps, or after as many as there are."""
        strategy = self.distribute_strategy

        def one_step(data):
            return first_replica(strategy.run(step, (_without_optionals(data),)), strategy)

        def one(data):
            logs = one_step(data)
            return logs if strategy.num_replicas_in_sync == 1 else {**logs, **_same(self.get_metrics_result(), logs)}

        def next_one(iterator):
            return one(iterator.get_next())

        def several(iterator):
            def body(done, _):
                batch = iterator.get_next_as_optional()
                has_batch = batch.has_value()

                def run():
                    with tf.control_dependencies(tf.nest.flatten(one_step(batch.get_value()))):
                        return done + 1

                return tf.cond(has_batch, run, lambda: done), has_batch

            def goes_on(done, has_batch):
                return has_batch & (done < self.steps_per_execution)

            done, _ = tf.while_loop(goes_on, body, (tf.constant(0), tf.constant(True)))
            with tf.control_dependencies([done]):
                return done, self.get_metrics_result()

        if not self.run_eagerly:
            compiled = functools.partial(tf.function, reduce_retracing=True, autograph=False)
            one, next_one, several = compiled(one), compiled(next_one), compiled(several)

        def function(iterator):
            if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
                for _, data in zip(range(self.steps_per_execution), iterator, strict=False):
                    logs = one(on_each_replica(data, strategy))
                return logs
            if self.steps_per_execution == 1:
                return next_one(iterator)
            done, logs = several(iterator)
            if int(done) == 0:
                raise StopIteration
            return logs

        return function

    def _prediction(self) -> Callable:
        """From a list of batches to the outputs for all their rows, the same on every worker."""
        strategy = self.distribute_strategy

        def batch_outputs(data):
            return rows_of_all_replicas(strategy.run(self.predict_step, (_without_optionals(data),)), strategy)

        if not self.run_eagerly:
            batch_outputs = tf.function(batch_outputs, reduce_retracing=True, autograph=False)

        def function(batches):
            found = [batch_outputs(_on_replicas(batch, strategy)) for batch in batches]
            if len(found) == 1:
                return found[0]
            return keras.tree.map_structure(lambda *parts: tf.concat(parts, 0), *found)

        return function


def _on_replicas(batch, strategy):
    """A batch of an iterator as it is, one that a caller gave divided over the replicas."""
    given = any(isinstance(value, tf.distribute.DistributedValues) for value in keras.tree.flatten(batch))
    return batch if given else on_each_replica(batch, strategy)


def _without_optionals(data):
    """A batch with None where Keras' adapters say that there is nothing."""
    return keras.tree.map_structure(lambda one: None if isinstance(one, tf.experimental.Optional) else one, data)


def _same(results: dict, logs: dict) -> dict:
    return {name: value for name, value in results.items() if name in logs}


def data_for_replicas(strategy: tf.distribute.Strategy, loop: Callable, arguments: tuple, options: dict) -> dict:
    """The arguments of `fit`, `evaluate` or `predict` with data that is divided over the replicas.

    Datasets and arrays are divided as `tfheads.distribute.batches` says; generators are left to Keras.

    Raises:
        ValueError: `validation_split` of something that is no array, or that leaves nothing.
    """
    given = inspect.signature(loop).bind_partial(None, *arguments, **options).arguments
    given.pop("self", None)
    given.update(given.pop("kwargs", {}))
    is_training = "epochs" in inspect.signature(loop).parameters
    size = given.get("batch_size")
    data = (given.get("x"), given.pop("y", None), given.pop("sample_weight", None))
    part = given.pop("validation_split", 0.0)
    if part:
        data, given["validation_data"] = split_for_validation(data, part)
    made = batches_of(data, size, is_training and given.pop("shuffle", True), given.pop("class_weight", None))
    if made is None:
        given.update(x=data[0], y=data[1], sample_weight=data[2])
        return {name: value for name, value in given.items() if value is not None}
    given.pop("batch_size", None)
    given["x"] = divided(made, strategy)
    if is_training:
        given["shuffle"] = False  # it is done, and Keras would warn that it cannot
    if given.get("validation_data") is not None:
        validation, size = given["validation_data"], given.pop("validation_batch_size", None) or size
        validation = batches_of(validation if isinstance(validation, tuple) else (validation,), size)
        if validation is not None:
            given["validation_data"] = divided(validation, strategy)
    return given
