"""Normalisation layers."""

import keras
from keras import ops

from tfheads.layers.part import Part, part


def standardised(x, epsilon: float):
    """`x` with mean 0 and variance 1 over the last axis."""
    x = x - ops.mean(x, axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + epsilon)


@part
class LayerNorm(Part):
    """Layer normalisation over the last axis, computed in float32 (Ba et al. 2016).

    Args:
        hidden_size: width of the last axis.
        epsilon: added to the variance.
    """

    def __init__(self, hidden_size: int, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size, self.epsilon = hidden_size, epsilon
        self.gamma = self.add_weight(name="gamma", shape=(hidden_size,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(hidden_size,), initializer="zeros")

    def call(self, x):
        y = standardised(ops.cast(x, "float32"), self.epsilon)
        y = y * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(y, self.compute_dtype)


@part
class PlainLayerNorm(Part):
    """Layer normalisation without weights.

    Args:
        epsilon: added to the variance.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, x):
        return ops.cast(standardised(ops.cast(x, "float32"), self.epsilon), self.compute_dtype)


@part
class RMSNorm(Part):
    """Root-mean-square normalisation without centring or bias, computed in float32 (Zhang and Sennrich 2019).

    Args:
        hidden_size: width of the last axis.
        epsilon: added to the mean square.
    """

    def __init__(self, hidden_size: int, epsilon: float = 1e-6, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size, self.epsilon = hidden_size, epsilon
        self.gamma = self.add_weight(name="gamma", shape=(hidden_size,), initializer="ones")

    def call(self, x):
        y = ops.cast(x, "float32")
        y = y * ops.rsqrt(ops.mean(ops.square(y), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(y * ops.cast(self.gamma, "float32"), self.compute_dtype)


NORMS: tuple[type[keras.layers.Layer], ...] = (LayerNorm, RMSNorm)
