"""Heads that say something of a whole row: a class, a number, the best of several rows."""

import keras
from keras import ops

from tfheads.heads.head import Head
from tfheads.layers.dropout import Dropout
from tfheads.layers.part import part
from tfheads.layers.projections import dense
from tfheads.losses import ChoiceCrossEntropy, SequenceLoss


@part
class ClassificationHead(Head):
    """Logits `[batch, num_labels]` from a row's pooled vector.

    Args:
        pooler: makes the vector.
        width: of the vector.
        num_labels: how many classes or numbers.
        problem_type: see `tfheads.losses.SequenceLoss`.
        dropout: rate on the vector.
        use_bias: whether each logit has a bias.
    """

    def __init__(
        self,
        pooler: keras.layers.Layer,
        width: int,
        num_labels: int,
        problem_type: str | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.pooler, self.width, self.num_labels, self.problem_type = pooler, width, num_labels, problem_type
        self.dropout, self.use_bias = dropout, use_bias
        self.drop = Dropout(dropout, dtype=self.dtype_policy)
        self.classifier = dense(width, num_labels, use_bias, self.dtype_policy)

    def check_inputs(self, inputs) -> list:
        """Requires what the pooler does; see `tfheads.checks.require`."""
        pooler = getattr(self.pooler, "select", self.pooler)
        return pooler.check_inputs(inputs) if hasattr(pooler, "check_inputs") else []

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (SequenceLoss(self.num_labels, self.problem_type),)

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Logits of the backbone's output."""
        pooled = self.pooler(encoded, inputs=inputs, training=training)
        return {"logits": self.classifier(self.drop(pooled, training=training))}


@part
class ChoiceHead(Head):
    """A logit `[batch]` for each row, to be compared with the logits of the rows it competes with.

    Args:
        pooler: makes a row's vector.
        width: of the vector.
        dropout: rate on the vector.
        use_bias: whether the logit has a bias.
    """

    def __init__(self, pooler: keras.layers.Layer, width: int, dropout: float = 0.0, use_bias: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.pooler, self.width, self.dropout, self.use_bias = pooler, width, dropout, use_bias
        self.drop = Dropout(dropout, dtype=self.dtype_policy)
        self.classifier = dense(width, 1, use_bias, self.dtype_policy)

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (ChoiceCrossEntropy(),)

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Logits of the backbone's output, the choices of an example one after another."""
        pooled = self.pooler(encoded, inputs=inputs, training=training)
        return {"logits": ops.squeeze(self.classifier(self.drop(pooled, training=training)), -1)}
