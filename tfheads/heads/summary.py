"""One number for a row, as configs with `summary_...` keys describe it (GPT-2, XLNet, ELECTRA)."""

import keras
from keras import ops

from tfheads.heads.pooling import ChosenToken, FirstToken, LastToken, MeanToken
from tfheads.layers.activations import activation
from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part, part
from tfheads.layers.projections import dense


@part
class SequenceSummary(Part):
    """One number `[batch]` for a row: a pooler's vector, projected, activated, with dropout before and after.

    Args:
        pooler: makes the vector.
        width: of the vector.
        activation: name of an activation, or None.
        first_dropout: rate on the vector.
        last_dropout: rate on the number.
    """

    def __init__(
        self,
        pooler: keras.layers.Layer,
        width: int,
        activation: str | None = None,
        first_dropout: float = 0.0,
        last_dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.pooler, self.width, self.activation = pooler, width, activation
        self.first_dropout, self.last_dropout = first_dropout, last_dropout
        self.summary = dense(width, 1, dtype=self.dtype_policy)
        self.first_drop = Dropout(first_dropout, dtype=self.dtype_policy)
        self.last_drop = Dropout(last_dropout, dtype=self.dtype_policy)

    def call(self, encoded, inputs=None, training=None):
        pooled = self.first_drop(self.pooler(encoded, inputs=inputs, training=training), training=training)
        number = activation(self.activation or "linear")(self.summary(pooled))
        return ops.squeeze(self.last_drop(number, training=training), -1)


def sequence_summary(config) -> SequenceSummary:
    """The logit of a row that competes with others, by the config's `summary_...` keys.

    Raises:
        ValueError: a `summary_type` that there is not, or keys by which a row would have no single logit.
    """
    poolers = {
        "cls_index": lambda: ChosenToken("mc_token_ids"),
        "last": LastToken,
        "first": FirstToken,
        "mean": MeanToken,
    }
    if config.summary_type not in poolers:
        raise ValueError(f"summary_type must be one of {', '.join(poolers)}, got {config.summary_type!r}")
    for name in ("summary_use_proj", "summary_proj_to_labels"):
        if not getattr(config, name):
            raise ValueError(f"{name} must be True, a row has one logit, got {getattr(config, name)!r}")
    return SequenceSummary(
        poolers[config.summary_type](),
        config.hidden_size,
        activation=config.summary_activation,
        first_dropout=config.summary_first_dropout,
    )
