"""Embeddings of token sequences."""

import keras
from keras import ops

from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part, embedding, part
from tfheads.layers.shapes import sizes


@part
class TextEmbeddings(Part):
    """Token table plus optional learned positions, segment types, normalisation and dropout.

    Args:
        vocab_size: rows of the token table.
        hidden_size: width.
        num_positions: rows of the learned position table; None for none.
        position_offset: added to each position before the look-up.
        num_types: rows of the segment type table; None for none.
        norm: a normalisation layer or None.
        dropout: rate on the result.
        projection: a layer from `hidden_size` to the width of the stack, after all others, or None (Lan et al. 2019).
        shared_token: the token table of another part, in place of an own one.
        token_scale: what a token's vector is multiplied by.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_positions: int | None = None,
        position_offset: int = 0,
        num_types: int | None = None,
        norm: keras.layers.Layer | None = None,
        dropout: float = 0.0,
        projection: keras.layers.Layer | None = None,
        shared_token: keras.layers.Layer | None = None,
        token_scale: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_positions, self.position_offset, self.num_types = num_positions, position_offset, num_types
        self.norm, self.dropout, self.projection = norm, dropout, projection
        self.shared_token, self.token_scale = shared_token, token_scale
        self.token = shared_token or embedding(vocab_size, hidden_size, self.dtype_policy)
        self.position = self.position_table() if num_positions else None
        self.token_type = embedding(num_types, hidden_size, self.dtype_policy) if num_types else None
        self.drop = Dropout(dropout, dtype=self.dtype_policy)

    @property
    def length_limit(self) -> int | None:
        """How many positions the table holds; None without a table."""
        return None if self.num_positions is None else self.num_positions - self.position_offset

    @property
    def type_limit(self) -> int | None:
        """How many segment types there are; None if the inputs have none."""
        return self.num_types

    def call(self, inputs: dict, positions, training=None):
        """Embeds `input_ids` `[batch, time]`, or takes `inputs_embeds` `[batch, time, hidden]` for them.

        Under these, segment types and positions `[batch or 1, time]` are added; a token's type defaults to 0.
        """
        x = ops.cast(self.token_vectors(inputs), self.compute_dtype)
        x = self.type_vectors(inputs, x)
        if self.position is not None:
            x = x + self.position(positions + self.position_offset)
        if self.norm is not None:
            x = self.norm(x)
        x = self.drop(x, training=training)
        return x if self.projection is None else self.projection(x)

    def position_table(self) -> keras.layers.Embedding:
        """A new table of positions."""
        return embedding(self.num_positions, self.hidden_size, self.dtype_policy)

    def token_vectors(self, inputs: dict):
        """The tokens' vectors `[batch, time, hidden]`, or what is given in their place."""
        given = inputs.get("inputs_embeds")
        return self.token(inputs["input_ids"]) * self.token_scale if given is None else given

    def type_vectors(self, inputs: dict, x):
        """`x` with the segment types' vectors added."""
        if self.token_type is None:
            return x
        types = inputs.get("token_type_ids")
        return x + self.token_type(ops.zeros(sizes(x)[:2], "int32") if types is None else types)


@part
class TokenTypesAreTokens(TextEmbeddings):
    """Text embeddings whose segment types are rows of the token table, and absent unless given."""

    @property
    def type_limit(self):
        return self.vocab_size

    def type_vectors(self, inputs, x):
        types = inputs.get("token_type_ids")
        return x if types is None else x + self.token(types)


@part
class FixedPositionEmbeddings(TextEmbeddings):
    """Text embeddings whose table of positions is not trained (Vaswani et al. 2017)."""

    def position_table(self):
        table = super().position_table()
        table.trainable = False
        return table


@part
class ScaledInputEmbeddings(FixedPositionEmbeddings):
    """Embeddings with fixed positions that multiply also what is given in place of tokens (Marian's decoder)."""

    def token_vectors(self, inputs):
        given = inputs.get("inputs_embeds")
        return (self.token(inputs["input_ids"]) if given is None else given) * self.token_scale
