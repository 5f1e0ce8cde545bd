"""Heads that say something of each token: its class, or whether an answer starts or ends there."""

from tfheads.heads.head import Head
from tfheads.layers.dropout import Dropout
from tfheads.layers.part import part
from tfheads.layers.projections import dense
from tfheads.losses import PositionCrossEntropy, TokenCrossEntropy


@part
class TokenClassificationHead(Head):
    """Logits `[batch, time, num_labels]`.

    Args:
        hidden_size: width of the hidden values.
        num_labels: how many classes.
        dropout: rate on the hidden values.
    """

    def __init__(self, hidden_size: int, num_labels: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size, self.num_labels, self.dropout = hidden_size, num_labels, dropout
        self.drop = Dropout(dropout, dtype=self.dtype_policy)
        self.classifier = dense(hidden_size, num_labels, dtype=self.dtype_policy)

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (TokenCrossEntropy(self.num_labels),)

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Logits of the backbone's output."""
        return {"logits": self.classifier(self.drop(encoded["last_hidden_state"], training=training))}


@part
class QuestionAnsweringHead(Head):
    """`start_logits` and `end_logits` `[batch, time]` of an answer that stands in the row.

    Args:
        hidden_size: width of the hidden values.
        num_labels: of the config; a start and an end are two.
        dropout: rate on the hidden values.

    Raises:
        ValueError: another number of labels, with which transformers could not load what is saved.
    """

    def __init__(self, hidden_size: int, num_labels: int = 2, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if num_labels != 2:
            raise ValueError(f"id2label must have 2 entries to find answers (set num_labels=2), got {num_labels}")
        self.hidden_size, self.num_labels, self.dropout = hidden_size, num_labels, dropout
        self.drop = Dropout(dropout, dtype=self.dtype_policy)
        self.classifier = dense(hidden_size, 2, dtype=self.dtype_policy)

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (
            PositionCrossEntropy(logits="start_logits", labels="start_positions", weight=0.5),
            PositionCrossEntropy(logits="end_logits", labels="end_positions", weight=0.5),
        )

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Logits of the backbone's output."""
        logits = self.classifier(self.drop(encoded["last_hidden_state"], training=training))
        return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
