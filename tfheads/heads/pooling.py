"""Poolers: one vector for a sequence; layers `(encoded, inputs, training) -> [batch, width]`."""

import keras
import tensorflow as tf
from keras import ops

from tfheads.checks import require, same_shape
from tfheads.heads.head import Head
from tfheads.layers.activations import activation
from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part, part
from tfheads.layers.projections import dense
from tfheads.layers.shapes import sizes


@part
class FirstToken(Part):
    """The value of the first token."""

    def call(self, encoded, inputs=None, training=None):
        return encoded["last_hidden_state"][:, 0]


@part
class LastToken(Part):
    """The value of the last token that is no padding.

    Where there are token ids, that is the last one that differs from `pad_token_id`, whatever the mask says (as in
    transformers); else the last one that the mask leaves; else the last.

    Args:
        pad_token_id: the token that fills rows up, or None.
    """

    def __init__(self, pad_token_id: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.pad_token_id = pad_token_id

    def call(self, encoded, inputs=None, training=None):
        hidden = encoded["last_hidden_state"]
        return tf.gather(hidden, self.places(hidden, inputs), axis=1, batch_dims=1)

    def places(self, hidden, inputs):
        """The place `[batch]` of each row's last token; 0 for a row without one."""
        if inputs.get("input_ids") is not None and self.pad_token_id is not None:
            real = inputs["input_ids"] != self.pad_token_id
        elif inputs.get("attention_mask") is not None:
            real = ops.cast(inputs["attention_mask"], "bool")
        else:
            real = ops.ones(sizes(hidden)[:2], "bool")
        return ops.max(ops.where(real, ops.arange(sizes(hidden)[1])[None, :], 0), axis=1)


@part
class LastOfToken(Part):
    """The value at the last place that a token has in a row, such as the end of the text (BART).

    Args:
        token_id: the token.
    """

    def __init__(self, token_id: int, **kwargs):
        super().__init__(**kwargs)
        self.token_id = token_id

    def check_inputs(self, inputs) -> list:
        """Requires the token in every row, and a target as long as the source; see `tfheads.checks.require`."""
        tokens, target = inputs.get("input_ids"), inputs.get("decoder_input_ids")
        if tokens is None or inputs.get("decoder_inputs_embeds") is not None:
            raise ValueError("give input_ids: a row is classified at its last end token, got inputs_embeds")
        found = tf.reduce_all(tf.reduce_any(tokens == self.token_id, axis=1))
        message = f"input_ids must have the end token {self.token_id} in every row"
        return require(found, message, tf.constant("a row without it")) + (
            [] if target is None else same_shape("decoder_input_ids", target, tokens)
        )

    def call(self, encoded, inputs=None, training=None):
        places = tf.range(tf.shape(inputs["input_ids"])[1])[None, :]
        last = tf.reduce_max(tf.where(inputs["input_ids"] == self.token_id, places, 0), axis=1)
        return tf.gather(encoded["last_hidden_state"], last, axis=1, batch_dims=1)


@part
class MeanToken(Part):
    """The mean over the real tokens."""

    def call(self, encoded, inputs=None, training=None):
        hidden, mask = encoded["last_hidden_state"], inputs.get("attention_mask")
        if mask is None:
            return ops.mean(hidden, axis=1)
        weights = ops.cast(mask, hidden.dtype)[..., None]
        return ops.sum(hidden * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)


@part
class ChosenToken(Part):
    """The value of the token that an input names; the last real one if it is not given.

    Args:
        input_name: the input, places `[batch]`.
    """

    def __init__(self, input_name: str, **kwargs):
        super().__init__(**kwargs)
        self.input_name = input_name
        self.last = LastToken()

    def call(self, encoded, inputs=None, training=None):
        hidden, places = encoded["last_hidden_state"], inputs.get(self.input_name)
        places = self.last.places(hidden, inputs) if places is None else places
        return tf.gather(hidden, places, axis=1, batch_dims=1)


@part
class DensePooler(Part):
    """Another pooler's vector through dropout, a projection and an activation (BERT's pooler: the first, by tanh).

    Args:
        select: the other pooler.
        hidden_size: width of its vector.
        activation: name of an activation.
        dropout: rate on the vector.
        units: width of the result; None for `hidden_size`.
    """

    def __init__(
        self,
        select: keras.layers.Layer,
        hidden_size: int,
        activation: str = "tanh",
        dropout: float = 0.0,
        units: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.select, self.hidden_size, self.activation, self.dropout = select, hidden_size, activation, dropout
        self.units = units
        self.dense = dense(hidden_size, units or hidden_size, dtype=self.dtype_policy)
        self.drop = Dropout(dropout, dtype=self.dtype_policy)

    def call(self, encoded, inputs=None, training=None):
        pooled = self.drop(self.select(encoded, inputs=inputs, training=training), training=training)
        return activation(self.activation)(self.dense(pooled))


@part
class PooledModelHead(Head):
    """The head of a bare model with a pooler: `last_hidden_state` and `pooler_output` `[batch, width]`.

    Args:
        pooler: makes one vector for a row.
    """

    def __init__(self, pooler: keras.layers.Layer, **kwargs):
        super().__init__(**kwargs)
        self.pooler = pooler

    def call(self, encoded, token_table=None, inputs=None, training=None):
        """The pooled vector beside the backbone's output."""
        pooled = self.pooler(encoded, inputs=inputs, training=training)
        return {"last_hidden_state": encoded["last_hidden_state"], "pooler_output": pooled}
