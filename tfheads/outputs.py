"""What models return: a dictionary whose entries are attributes too."""

import collections

from keras.src.tree import register_tree_node_class


@register_tree_node_class
class ModelOutput(collections.OrderedDict):
    """A dictionary of tensors with attribute access: `output["logits"]` and `output.logits` are the same.

    As in transformers, `output[0]` is the first entry.

    Keras' and TensorFlow's nested structures see through it, so it works in `tf.function`, `fit` and `predict`.
    """

    def __getattr__(self, name: str):
        if name.startswith("_") or name not in self:
            raise AttributeError(f"this output has no {name!r}, it has {', '.join(map(repr, self))}")
        return self[name]

    def __getitem__(self, key):
        return tuple(self.values())[key] if isinstance(key, (int, slice)) else super().__getitem__(key)

    def __reduce__(self):
        return ModelOutput, (dict(self),)

    def tree_flatten(self) -> tuple:
        """Values, names, names: the protocol of Keras' tree."""
        return list(self.values()), tuple(self), tuple(self)

    @classmethod
    def tree_unflatten(cls, names, values) -> "ModelOutput":
        """The inverse of `tree_flatten`."""
        return cls(zip(names, values, strict=True))
