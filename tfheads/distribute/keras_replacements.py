"""What Keras does in a way that gives other numbers, or none, on several replicas: replaced here and nowhere else.

With one replica nothing is replaced.
"""

import functools

import keras
import tensorflow as tf

TESTED_WITH = ("3.15",)


def prepare_optimizer(optimizer, strategy: tf.distribute.Strategy) -> None:
    """Gives a Keras optimizer the steps that work on several replicas.

    - Keras clips each replica's gradients and sums afterwards, so that a result depends on the number of replicas: the
      training step has summed before, and the optimizer must not do it again.
    - Keras assigns the moving averages of the weights (`use_ema`) in a way that is an error on replicas.

    Raises:
        RuntimeError: a version of Keras in which these functions have not been tested.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    version = ".".join(keras.__version__.split(".")[:2])
    if version not in TESTED_WITH:
        raise RuntimeError(
            f"training on several replicas replaces functions of Keras {' or '.join(TESTED_WITH)}, but Keras "
            f"{keras.__version__} is installed: install one of these, or train on one device"
        )
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list
    if inner.use_ema:
        inner._update_model_variables_moving_average = functools.partial(_update_averages, inner)
        take_averages = type(inner)._overwrite_model_variables_with_average_value
        inner._overwrite_model_variables_with_average_value = functools.partial(_take_averages, inner, take_averages)


def require_own_scope(model: keras.Model, method: str) -> None:
    """Requires that a method is not called in the scope of another strategy than the model was made in.

    Raises:
        ValueError: it is; the variables exist on other devices than the strategy would have them.
    """
    strategy = tf.distribute.get_strategy()
    is_one_device = isinstance(strategy, tf.distribute.OneDeviceStrategy)
    if not tf.distribute.has_strategy() or is_one_device or strategy is model._distribute_strategy:
        return
    made = model._distribute_strategy
    where = "outside of any" if made is None else f"in that of a {type(made).__name__}"
    raise ValueError(
        f"{method} is called in the scope of a {type(strategy).__name__}, and the model was made {where}: "
        "make or load the model inside of the scope that it is trained in"
    )


def require_in_scope(strategy: tf.distribute.Strategy, optimizer, *metrics) -> None:
    """Requires that an optimizer and metrics, if they are objects, were made inside the scope of the strategy.

    Their variables would be of each process otherwise: counted once too often, or summed over no replicas.

    Raises:
        ValueError: one was not; names it.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    for one in keras.tree.flatten([optimizer, *metrics]):
        is_own = isinstance(one, (keras.optimizers.Optimizer, keras.metrics.Metric))
        made = [variable.value for variable in one.variables] if is_own else []
        if not all(isinstance(value, tf.distribute.DistributedValues) for value in made):
            raise ValueError(f"{one.name} must be made inside the scope of the model's strategy, it was made outside")


def _update_averages(optimizer, variables) -> None:
    """Moves the average of each variable; every `ema_overwrite_frequency` updates the variable becomes its average."""
    momentum = tf.where(optimizer.iterations == 0, 0.0, optimizer.ema_momentum)
    frequency = optimizer.ema_overwrite_frequency
    is_due = None if frequency is None else (optimizer.iterations + 1) % frequency == 0

    def update(average, variable):
        kept = tf.cast(momentum, average.dtype)
        average.assign(kept * average + (1 - kept) * tf.cast(variable, average.dtype))

    def take(variable, average):
        variable.assign(tf.where(is_due, tf.cast(average, variable.dtype), variable))

    def on_all_replicas(strategy, pairs):
        for variable, average in pairs:
            strategy.extended.update(average, update, args=(variable,), group=False)
            if is_due is not None:
                strategy.extended.update(variable, take, args=(average,), group=False)

    averages = optimizer._model_variables_moving_average
    pairs = [(variable.value, average.value) for variable, average in zip(variables, averages, strict=True)]
    tf.__internal__.distribute.interim.maybe_merge_call(on_all_replicas, tf.distribute.get_strategy(), pairs)


def _take_averages(optimizer, original, variables) -> None:
    """At the end of the training as Keras does it; within a step `_update_averages` has done it."""
    if tf.distribute.in_cross_replica_context() or not tf.distribute.has_strategy():
        original(optimizer, variables)
