"""The base of every part, and the two scopes in which models make their parts."""

import contextlib
import inspect
from collections.abc import Iterator
from contextvars import ContextVar

import keras
import numpy as np
import tensorflow as tf

from tfheads.layers.checkpoint_children import HasCheckpointChildren

_weights_follow: ContextVar[bool] = ContextVar("weights_follow", default=False)


def part(cls: type) -> type:
    """Class decorator: lets Keras find the class again when a `.keras` file is loaded."""
    return keras.saving.register_keras_serializable("tfheads")(cls)


class Part(HasCheckpointChildren, keras.layers.Layer):
    """A layer whose weights exist when its constructor returns and whose arguments are its configuration.

    A subclass keeps each constructor argument under the argument's own name; `get_config` reads them back, so a part
    needs no serialisation code. Parts handle precision themselves (`autocast` is off): Keras would otherwise rewrite
    every floating-point argument, position biases included, in the compute dtype.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.built, self.drawn = True, ()

    def add_weight(self, shape=None, initializer=None, *, name=None, **options) -> keras.Variable:
        """A variable of the part itself, called as its attribute.

        Args:
            initializer: `Drawn()` if the model is to draw the first values.
            shape, name, options: as in Keras.
        """
        if isinstance(initializer, Drawn):
            self.drawn = (*self.drawn, name)
        return super().add_weight(shape, initializer, name=name, **options)

    def get_config(self) -> dict:
        config = super().get_config()
        for name in constructor_arguments(type(self)):
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config: dict) -> "Part":
        names = constructor_arguments(cls)
        arguments = {
            name: keras.saving.deserialize_keras_object(value) if name in names else value
            for name, value in config.items()
        }
        return cls(**arguments)


def constructor_arguments(cls: type) -> list[str]:
    """The names of a part's own constructor arguments."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return [p.name for p in parameters if p.name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD]


@contextlib.contextmanager
def weights_follow() -> Iterator[None]:
    """Scope in which parts are made with zeros, because a checkpoint or `initialise` fills them right after."""
    token = _weights_follow.set(True)
    try:
        yield
    finally:
        _weights_follow.reset(token)


def weights_are_awaited() -> bool:
    """Whether the code runs in a `weights_follow` scope."""
    return _weights_follow.get()


@keras.saving.register_keras_serializable("tfheads")
class Drawn(keras.initializers.Initializer):
    """First values that a model draws when all of its parts are made, each by the path of its layer.

    A part that stands alone starts from small normal values; in a `weights_follow` scope from zeros.
    """

    def __call__(self, shape, dtype=None):
        if weights_are_awaited():
            return keras.initializers.Zeros()(shape, dtype)
        return keras.initializers.RandomNormal(stddev=0.02)(shape, dtype)


@contextlib.contextmanager
def dtype_scope(dtype: "str | keras.DTypePolicy | None") -> Iterator[None]:
    """Scope in which layers are made with the given dtype policy; None keeps the global one."""
    before = keras.config.dtype_policy()
    if isinstance(dtype, (type, np.dtype, tf.DType)):
        dtype = keras.backend.standardize_dtype(dtype)
    if dtype is not None:
        keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@part
class Table(keras.layers.Embedding):
    """An `Embedding` layer for rows that exist, as models check: Keras' own spends operations on negative numbers."""

    def call(self, inputs):
        return tf.cast(tf.gather(self.embeddings, inputs), self.compute_dtype)


def embedding(rows: int, width: int, dtype=None) -> Table:
    """A built table `[rows, width]`."""
    layer = Table(rows, width, embeddings_initializer=Drawn(), dtype=dtype)
    layer.build((None, None))
    return layer
