"""What transformers calls the base model of a model with a head, such as `model.bert`."""

import keras


class BaseModel:
    """The backbone, and those parts of the head that checkpoints keep with it, such as BERT's pooler.

    Args:
        layers: the backbone first.
    """

    def __init__(self, layers: list[keras.layers.Layer]):
        self.layers = layers

    def __call__(self, inputs, training: bool = False) -> dict:
        """What the backbone makes of inputs by name."""
        return self.layers[0](inputs, training=training)

    @property
    def trainable(self) -> bool:
        """Whether `fit` changes the weights; set it before `compile`, as of any Keras layer."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = value

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables."""
        return [variable for layer in self.layers for variable in layer.variables]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables that `fit` changes."""
        return [variable for layer in self.layers for variable in layer.trainable_variables]


def base_model(model) -> BaseModel:
    """The base model of a task model."""
    parts = []
    for rules in model.family.head_rules(model.weights_of, model.config):
        for path, name in rules.items():
            if "{base}" in getattr(name, "name", name):
                parts.append(getattr(model.head, path.partition(".")[0]))
    return BaseModel([model.backbone, *parts])
