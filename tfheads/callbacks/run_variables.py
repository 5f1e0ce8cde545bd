"""What a run depends on beside its data: variables of model and optimizer, running metrics, random states."""

import random

import keras
import numpy as np
import tensorflow as tf

from tfheads.checkpoints.safetensors_files import TensorSource
from tfheads.distribute.agreement import worker_index
from tfheads.distribute.replicas import rows_of_all_replicas


def variables_of(model) -> dict[str, keras.Variable]:
    """The variables of model (with the random states of dropout) and optimizer, by group and place."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {f"{group}.{place}": variable for group, found in groups.items() for place, variable in enumerate(found)}


def source_of(name: str, variable: keras.Variable) -> TensorSource:
    """A variable to be written into a file."""
    dtype = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
    return TensorSource(name, tuple(variable.shape), dtype, variable.numpy)


def metric_variables(model) -> list[keras.Variable]:
    """The variables of the metrics."""
    return [variable for metric in model.metrics for variable in metric.variables]


def metric_values(model) -> list[np.ndarray]:
    """The values of the variables of the metrics; all workers must ask together.

    Where each replica adds up its own part, they are the parts of all replicas, `[replicas, ...]`: their sum would not
    give the same number to the last bit when it goes on.
    """
    variables = metric_variables(model)
    in_parts = [variable for variable in variables if _parts(variable)]
    strategy = model.distribute_strategy
    parts = iter(())
    if in_parts:
        own = strategy.run(lambda: [tf.convert_to_tensor(variable.value)[None] for variable in in_parts])
        parts = iter(rows_of_all_replicas(own, strategy))
    return [next(parts).numpy() if _parts(variable) else variable.numpy() for variable in variables]


def assign_metrics(model, values: list[np.ndarray]) -> None:
    """Gives the metrics what `metric_values` gave, on this or another number of replicas."""
    strategy = model.distribute_strategy
    for variable, value in zip(metric_variables(model), values, strict=True):
        parts = _parts(variable)
        if not parts:
            variable.assign(value if value.ndim == len(variable.shape) else value.sum(0))
            continue
        value = value if value.ndim > len(variable.shape) else value[None]
        if len(value) != strategy.num_replicas_in_sync:  # all of it to the first replica
            rest = strategy.num_replicas_in_sync - 1
            value = np.stack([value.sum(0), *[np.zeros_like(value[0])] * rest])
        first = worker_index(strategy) * len(parts)
        for place, part in enumerate(parts):
            part.assign(value[first + place])


def _parts(variable) -> tuple:
    """The variable of each replica of this process, where each adds up its own part; otherwise none."""
    value = variable.value
    on_read = getattr(value, "synchronization", None) == tf.VariableSynchronization.ON_READ
    is_sum = getattr(value, "aggregation", None) == tf.VariableAggregation.SUM
    return tuple(getattr(value, "values", ())) if on_read and is_sum else ()


def random_states() -> dict:
    """The states of Python's and numpy's generators, as plain values."""
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), int(place), int(has_gauss), float(cached)],
    }


def restore_random_states(saved: dict) -> None:
    """Puts Python's and numpy's generators into states that `random_states` gave."""
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
