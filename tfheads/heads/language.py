"""Language-modelling heads."""

import keras
from keras import ops

from tfheads.heads.head import Head
from tfheads.layers.activations import activation
from tfheads.layers.column_blocks import ColumnBlocks
from tfheads.layers.compilation import apart
from tfheads.layers.part import part
from tfheads.layers.products import matrix_product
from tfheads.layers.projections import dense
from tfheads.losses import TokenCrossEntropy


@part
class LanguageModelHead(Head):
    """Logits over the vocabulary for each token.

    Args:
        hidden_size: width of the hidden values.
        vocab_size: number of logits.
        tied: whether the output table is the token table.
        use_bias: whether each logit has a bias.
        causal: whether the logits at one place predict the token of the next place.
        activation: name of an activation, for a projection before the logits; None for no projection.
        norm: a norm after that activation, or None.
        transform_size: width of that projection; None for `hidden_size`.
    """

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        tied: bool = True,
        use_bias: bool = False,
        causal: bool = False,
        activation: str | None = None,
        norm: keras.layers.Layer | None = None,
        transform_size: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_size, self.vocab_size, self.tied, self.use_bias = hidden_size, vocab_size, tied, use_bias
        self.causal, self.activation, self.norm, self.transform_size = causal, activation, norm, transform_size
        width = transform_size or hidden_size
        self.transform = None if activation is None else dense(hidden_size, width, dtype=self.dtype_policy)
        self.decoder = None if tied else dense(width, vocab_size, use_bias, self.dtype_policy)
        own_bias = tied and use_bias
        self.bias = self.add_weight(name="bias", shape=(vocab_size,), initializer="zeros") if own_bias else None

    @property
    def criteria(self) -> tuple:
        """What the head is trained on."""
        return (TokenCrossEntropy(self.vocab_size, shift=self.causal),)

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """Logits `[batch, time, vocabulary]` of the backbone's output.

        Args:
            encoded: what the backbone returned.
            token_table: the backbone's token embeddings `[vocabulary, hidden]`, or their `ColumnBlocks`.
            inputs: the model's inputs.
        """
        return {"logits": self.logits(encoded["last_hidden_state"], token_table)}

    def logits(self, hidden, token_table):
        """Logits `[batch, time, vocabulary]` of hidden values `[batch, time, hidden]`."""
        if self.transform is not None:
            hidden = activation(self.activation)(self.transform(hidden))
        if self.norm is not None:
            hidden = self.norm(hidden)
        if not self.tied:
            return self.decoder(hidden)
        hidden = ops.cast(hidden, self.compute_dtype)
        if isinstance(token_table, ColumnBlocks):
            logits = token_table.product(hidden)
        else:
            logits = matrix_product(hidden, ops.cast(token_table, self.compute_dtype), transpose=True)
        return with_row(logits, self.bias) if self.bias is not None else logits


def with_row(logits, row):
    """Logits `[batch, time, vocabulary]` plus a number for each word `[vocabulary]`."""
    return apart(logits) + ops.cast(row, logits.dtype)
