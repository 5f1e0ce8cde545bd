"""The layers of a model by attribute path: the identity of weights, whatever order or scope they were made in."""

from collections.abc import Iterator

import keras

from tfheads.layers.low_rank import LowRank


def layers_by_path(layer: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields (attribute path, layer) for `layer` and all below it, each layer once, at its first path."""
    yield from _walk(layer, "", set())


def _walk(layer, path, seen):
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield path, layer
    for name, value in vars(layer).items():
        if name.startswith("_"):
            continue
        items = enumerate(value) if isinstance(value, (list, tuple)) else [("", value)]
        items = value.items() if isinstance(value, dict) else items
        for index, item in items:
            if isinstance(item, keras.layers.Layer):
                parts = (path, name, str(index))
                yield from _walk(item, ".".join(p for p in parts if p), seen)


def checkpoint_variables(model: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that belong into a checkpoint: all but the random states of dropout and what adapters have."""
    others = {
        id(variable)
        for _, layer in layers_by_path(model)
        if isinstance(layer, (keras.layers.Dropout, LowRank))
        for variable in layer.variables
    }
    return [variable for variable in model.variables if id(variable) not in others]
