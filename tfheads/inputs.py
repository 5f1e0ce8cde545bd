"""From what callers give (lists, arrays, tensors, a tokenizer's output) to arrays and tensors that models take."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf


def as_array(name: str, value) -> np.ndarray:
    """Numbers as an array.

    Raises:
        ValueError: rows of different lengths, or no numbers at all.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iubf" and array.dtype.name != "bfloat16":
        raise ValueError(f"{name} must be numbers in rows of one length, got {type(value).__name__} of something else")
    return array


def as_tensor(name: str, value):
    """A model input as a tensor, whole numbers as int32; those that int32 cannot hold become its largest value.

    Raises:
        ValueError: rows of different lengths, or no numbers at all.
    """
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        raise ValueError(f"{name} must be numbers in rows of one length, got a {type(value).__name__}")
    if isinstance(value, keras.KerasTensor):
        return value
    if isinstance(value, keras.Variable):
        value = value.value
    if not tf.is_tensor(value):
        value = tf.constant(as_array(name, value))
    if value.dtype == tf.bool:
        return tf.cast(value, tf.int32)
    return tf.saturate_cast(value, tf.int32) if value.dtype.is_integer and value.dtype != tf.int32 else value


def as_arrays(value):
    """What Keras' loops take in place of lists and of a tokenizer's `BatchEncoding`; all else as it is.

    Raises:
        ValueError: a list of something that is no number, or of rows of different lengths.
    """
    if isinstance(value, Mapping):
        return {
            name: as_array(name, one) if isinstance(one, list) else one
            for name, one in value.items()
            if one is not None
        }
    return as_array("inputs", value) if isinstance(value, list) else value
