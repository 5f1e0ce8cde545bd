"""Heads of bare models: one vector for a sequence."""

from keras import ops

from tfheads.layers.part import Part, part
from tfheads.layers.projections import dense


@part
class FirstTokenPooler(Part):
    """`pooler_output` `[batch, hidden]`: the first token's value through a tanh projection (BERT).

    Args:
        hidden_size: width.
    """

    criteria: tuple = ()

    def __init__(self, hidden_size: int, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.pooler = dense(hidden_size, hidden_size, dtype=self.dtype_policy)

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Adds the pooled vector to the backbone's output."""
        hidden = encoded["last_hidden_state"]
        return {"last_hidden_state": hidden, "pooler_output": ops.tanh(self.pooler(hidden[:, 0]))}
