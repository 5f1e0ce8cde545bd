"""New weights: drawn from the seed and each layer's attribute path, so that they depend on nothing else."""

import random
import zlib
from collections.abc import Collection

import keras
import numpy as np

from tfheads.checkpoints.attribute_walk import layers_by_path
from tfheads.distribute.agreement import of_chief


def initialise(model: keras.Model, seed: int | None = None, only: Collection[keras.Variable] | None = None) -> None:
    """Draws kernels and tables from a normal distribution as wide as the config's `initializer_range`.

    Those for which the family has initial values get these; biases and norms keep what they were made with.

    Args:
        model: a task model.
        seed: None draws one from the seed that `keras.utils.set_random_seed` sets.
        only: the variables to draw; None for all.
    """
    seed = of_chief(random.randint(0, 2**31 - 1)) if seed is None else seed
    wanted = None if only is None else {id(variable) for variable in only}
    for path, layer in layers_by_path(model):
        variable = _drawn(layer)
        if variable is None or (wanted is not None and id(variable) not in wanted):
            continue
        values = model.backbone.initial_value(path, variable.shape)
        if values is None:
            generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(path.encode())]))
            values = generator.standard_normal(variable.shape, dtype="float32")
            values *= model.backbone.initial_deviation(path)
        variable.assign(values)


def _drawn(layer: keras.layers.Layer) -> keras.Variable | None:
    """The variable of a layer that is drawn at random, if it has one."""
    if isinstance(layer, keras.layers.Dense):
        return layer.kernel
    return layer.embeddings if isinstance(layer, keras.layers.Embedding) else None
