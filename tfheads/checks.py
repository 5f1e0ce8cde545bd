"""Checks of values: an error at once where values are known, operations of the graph where they are not.

XLA leaves such operations out, so none are made under it. The training step runs them before the compiled function, see
`after`.
"""

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from tfheads.layers.compilation import under_xla


def require(condition: tf.Tensor, message: str, got: tf.Tensor) -> list:
    """Requires a scalar condition.

    Args:
        condition: a boolean scalar.
        message: the beginning of the sentence, to which the value is added.
        got: the value that is at fault, if one is.

    Returns:
        Inside a graph the operation that checks; nothing under XLA, which would drop it with a line in the log.

    Raises:
        ValueError: the condition is known to be false.
    """
    if tf.executing_eagerly():
        if not bool(condition):
            raise ValueError(f"{message}, got {got.numpy()}")
        return []
    if under_xla():
        return []
    return [tf.raw_ops.Assert(condition=condition, data=[f"{message}, got", got], summarize=8)]


def within(name: str, values: tf.Tensor, low: int, high: int | None, ignored: int | None = None) -> list:
    """Requires whole numbers between `low` and `high` (None for no limit), or equal to `ignored`; see `require`."""
    if not values.dtype.is_integer:
        raise ValueError(f"{name} must be whole numbers, got {values.dtype.name}")
    high = values.dtype.max if high is None else high
    fits = (values >= low) & (values <= high)
    if ignored is not None:
        fits |= values == ignored
    wrong = tf.reduce_max(tf.where(fits, values.dtype.min, values))
    accepted = f"between {low} and {high}" if ignored is None else f"{ignored} or between {low} and {high}"
    return require(tf.reduce_all(fits), f"{name} must be {accepted}", wrong)


def zeros_and_ones(name: str, values: tf.Tensor) -> list:
    """Requires that all values are 0 or 1; see `require`."""
    if values.dtype == tf.bool:
        return []
    wrong = tf.reduce_max(tf.where(values == 1, tf.zeros_like(values), tf.abs(values)))
    return require(
        tf.reduce_all((values == 0) | (values == 1)), f"{name} must be 1 for real tokens and 0 for padding", wrong
    )


def same_shape(
    name: str, value: tf.Tensor, reference: tf.Tensor, reference_name: str = "input_ids", axes: int | None = 2
) -> list:
    """Requires the shape of a reference, of which the first `axes` count (None for all); see `require`."""
    expected = reference.shape[:axes]
    message = f"{name} must have the shape of {reference_name}"
    if not value.shape.is_compatible_with(expected):
        raise ValueError(f"{message} {expected}, got {value.shape}")
    if value.shape.is_fully_defined() and expected.is_fully_defined():
        return []
    given = tf.shape(value)
    return require(tf.reduce_all(given == tf.shape(reference)[:axes]), message, given)


def after(checks: list, values):
    """The values, not to be had before the checks have passed: no update follows from bad input."""
    if not checks:
        return values
    with tf.control_dependencies(checks):
        return tf.nest.map_structure(lambda value: value if value is None else tf.identity(value), values)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns a check that failed inside a graph into the sentence it stands for, as a `ValueError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(r"assertion failed: \[([^\[\]]+, got)\] \[([^\n]*)\]", str(error))
        if found is None:
            raise
        raise ValueError(f"{found[1]} {found[2]}") from None
