"""Activation functions under Hugging Face's names."""

from collections.abc import Callable

import keras
from keras import ops


def _gelu(x):
    return keras.activations.gelu(x, approximate=False)


def _gelu_tanh(x):
    return keras.activations.gelu(x, approximate=True)


def _quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


def _gelu_clipped_10(x):
    return ops.clip(_gelu(x), -10.0, 10.0)


ACTIVATIONS: dict[str, Callable] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_10": _gelu_clipped_10,
    "quick_gelu": _quick_gelu,
    "linear": lambda x: x,
    "mish": keras.activations.mish,
    "relu": ops.relu,
    "relu2": lambda x: ops.square(ops.relu(x)),
    "relu6": ops.relu6,
    "sigmoid": ops.sigmoid,
    "silu": ops.silu,
    "swish": ops.silu,
    "tanh": ops.tanh,
    "leaky_relu": lambda x: ops.leaky_relu(x, negative_slope=0.01),
}


def activation(name: str) -> Callable:
    """The activation function that Hugging Face configs call `name`.

    Raises:
        ValueError: the name is not one of `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not known; tfheads has {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]
