"""New weights: drawn from the seed and each layer's attribute path, so that they depend on nothing else."""

import random
import zlib
from collections.abc import Collection, Iterator

import keras
import numpy as np

from tfheads.checkpoints.attribute_walk import layers_by_path
from tfheads.distribute.agreement import of_chief
from tfheads.layers.part import Drawn, Part

SUFFIX = "_initializer"
CONSTANT = (keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.Constant)


def initialise(model: keras.Model, seed: int | None = None, only: Collection[keras.Variable] | None = None) -> None:
    """Draws the weights that are made with `Drawn` from a normal distribution, as wide as the family says.

    Those for which the family has initial values get these; all others keep what they were made with.

    Args:
        model: a task model.
        seed: None draws one from the seed that `keras.utils.set_random_seed` sets.
        only: the variables to draw; None for all.

    Raises:
        TypeError: a layer draws its weights by itself, from Keras' global seed.
    """
    seed = of_chief(random.randint(0, 2**31 - 1)) if seed is None else seed
    wanted = None if only is None else {id(variable) for variable in only}
    for layer_path, layer in layers_by_path(model):
        if wanted is not None and wanted.isdisjoint(map(id, layer.variables)):
            continue
        for path, variable in drawn_variables(layer_path, layer):
            if wanted is not None and id(variable) not in wanted:
                continue
            values = model.backbone.initial_value(path, variable.shape)
            if values is None:
                generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(path.encode())]))
                values = generator.standard_normal(variable.shape, dtype="float32")
                values *= model.backbone.initial_deviation(path)
            variable.assign(values)


def drawn_variables(path: str, layer: keras.layers.Layer) -> Iterator[tuple[str, keras.Variable]]:
    """The variables of a layer itself that are drawn, each with the path that it is drawn by.

    That is the layer's own path for a kernel or a table, and the variable's for what a part adds by itself.

    Raises:
        TypeError: a layer of Keras has a random initializer of its own.
    """
    for attribute, initializer in vars(layer).items():
        variable = getattr(layer, attribute.removesuffix(SUFFIX), None) if attribute.endswith(SUFFIX) else None
        if isinstance(initializer, Drawn) and variable is not None:
            yield path, variable
        elif variable is not None and not isinstance(initializer, CONSTANT):
            raise TypeError(f"{attribute} of {path} must be Drawn() or constant, got {type(initializer).__name__}")
    if isinstance(layer, Part):
        for name in layer.drawn:
            yield f"{path}.{name}", getattr(layer, name)
