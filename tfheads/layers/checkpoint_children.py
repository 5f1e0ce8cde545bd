"""What `tf.train.Checkpoint` finds in a layer: all that Keras finds.

TensorFlow follows attributes, and lists that it has wrapped itself. Keras wraps lists and dictionaries first, in
classes that TensorFlow does not know, and keeps the random states of dropout in objects that it cannot see: a
checkpoint would lack them in silence.
"""

from collections.abc import Iterable, Mapping

import keras
import tensorflow as tf
from keras.src.utils.tracking import TrackedDict, TrackedList, TrackedOrderedDict, TrackedSet

Trackable = tf.__internal__.tracking.Trackable

CONTAINERS = (TrackedList, TrackedDict, TrackedOrderedDict, TrackedSet, tuple)


class HasCheckpointChildren:
    """Mixin of layers and models, before the class of Keras."""

    def _trackable_children(self, save_type: str = "checkpoint", **options) -> dict[str, Trackable]:
        children = super()._trackable_children(save_type, **options)
        if save_type != "checkpoint":  # SavedModels have Keras' own way
            return children
        attributes = vars(self)
        held = {name: value for name, value in attributes.items() if isinstance(value, CONTAINERS)}
        seeds = {name: one for name, one in attributes.items() if isinstance(one, keras.random.SeedGenerator)}
        return {**children, **_trackables({**held, **seeds}, attributes.setdefault("_checkpoint_nodes", {}))}


class Items(Trackable):
    """What a list, a tuple or a dictionary holds, by place or key; the same object at each save and restore."""

    def __init__(self):
        self.values: Mapping[str, object] = {}
        self.nodes: dict[str, Items] = {}

    def _trackable_children(self, save_type: str = "checkpoint", **options) -> dict[str, Trackable]:
        return _trackables(self.values, self.nodes)


def _trackables(values: Mapping[str, object], nodes: dict[str, Items]) -> dict[str, Trackable]:
    """What a checkpoint holds of values, by name; `nodes` keeps what stands for those that hold others.

    Raises:
        ValueError: a set holds layers or variables, which have no names that are the same in another process.
    """
    found = {}
    for name, value in values.items():
        if isinstance(value, keras.random.SeedGenerator):
            found[name] = value.state
        elif isinstance(value, Trackable) and not isinstance(value, tuple):
            found[name] = value
        elif isinstance(value, (list, tuple, dict, set)):
            node = nodes.setdefault(name, Items())
            node.values = _by_name(value)
            children = node._trackable_children()
            if children and isinstance(value, set):
                raise ValueError(f"{name} must be a list or a dictionary to be saved in a checkpoint, got a set")
            found.update({name: node} if children else {})
    return found


def _by_name(values: Iterable | Mapping) -> dict[str, object]:
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
    return {str(key): value for key, value in pairs}
