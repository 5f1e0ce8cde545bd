"""Models whose weights follow from their names, as those of the stored reference outputs do."""

import numpy as np
import transformers

import tfheads
from tests.fixtures import pipeline_cases
from tests.fixtures.weights import weight
from tfheads.checkpoints.tables import is_known

BERT = {**pipeline_cases.BERT, "num_hidden_layers": 1}
DISTILBERT = {
    "vocab_size": 105,
    "dim": 36,
    "n_layers": 1,
    "n_heads": 3,
    "hidden_dim": 48,
    "max_position_embeddings": 48,
}
"""Sizes of one layer."""


def rebuilt(class_name: str, config: dict, **changes):
    """The model of this public name with the weights that PyTorch's had when the fixtures were made."""
    cls = getattr(tfheads, class_name)
    values = {"model_type": cls.family.model_type, **config, **changes}
    return with_weights(cls.from_config(transformers.AutoConfig.for_model(**values)))


def with_weights(model):
    """The model, all of whose weights now follow from their names, but for those whose values its family knows."""
    table, base = model.family.table(model.config), model.family.checkpoint_base(model.weights_of)
    for binding in table.bindings(model, base):
        if is_known(binding):
            continue
        outlines = [np.broadcast_to(np.float32(0), variable.shape) for variable in binding.variables]
        shapes = [outline.shape for outline in binding.operation.to_tensors(outlines)]
        tensors = [weight(name, shape) for name, shape in zip(binding.names, shapes, strict=True)]
        for variable, value in zip(binding.variables, binding.operation.to_variables(tensors), strict=True):
            variable.assign(np.asarray(value))
    return model
