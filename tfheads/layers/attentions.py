"""Attention layers."""

import tensorflow as tf
from keras import ops

from tfheads.layers.context import BlockContext, MixerOutput, ViewContext
from tfheads.layers.dropout import Dropout
from tfheads.layers.mixer import Mixer
from tfheads.layers.part import part
from tfheads.layers.projections import dense
from tfheads.layers.rotary import rotated
from tfheads.layers.rows import row_product, row_softmax
from tfheads.layers.shapes import sizes
from tfheads.layers.slots import write_slots

HIDDEN = -1e9  # a score that softmax turns into 0; finite, so that a row which sees nothing stays finite


@part
class Attention(Mixer):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017).

    Args:
        hidden_size: width of input and output.
        num_heads: number of query heads.
        num_key_value_heads: number of key and value heads; None for as many as query heads (Ainslie et al. 2023).
        head_dim: width of a head; None for hidden_size / num_heads.
        use_bias: whether the query, key and value projections have biases.
        output_bias: the same for the output projection; None for the same as `use_bias`.
        scale: what scores are multiplied by; None for 1 / sqrt(head_dim).
        dropout: rate on the attention weights.
        view: the name of the stack's view that the layer reads.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        use_bias: bool = True,
        output_bias: bool | None = None,
        scale: float | None = None,
        dropout: float = 0.0,
        view: str = "full",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_heads < 1 or (head_dim is not None and head_dim < 1):
            raise ValueError(f"there must be heads of a width of at least 1, got {num_heads} of {head_dim or 0}")
        if head_dim is None and hidden_size % num_heads:
            raise ValueError(
                f"hidden_size must be a multiple of the number of heads, got {hidden_size} and {num_heads}"
            )
        self.hidden_size, self.num_heads = hidden_size, num_heads
        self.num_key_value_heads = num_heads if num_key_value_heads is None else num_key_value_heads
        if self.num_key_value_heads < 1 or num_heads % self.num_key_value_heads:
            raise ValueError(
                "the number of heads must be a multiple of num_key_value_heads, "
                f"got {num_heads} and {self.num_key_value_heads}"
            )
        self.head_dim = head_dim or hidden_size // num_heads
        self.use_bias, self.output_bias = use_bias, use_bias if output_bias is None else output_bias
        self.dropout, self.view = dropout, view
        self.scale = self.head_dim**-0.5 if scale is None else scale
        query_width, key_width = num_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        self.query = dense(hidden_size, query_width, use_bias, self.dtype_policy)
        self.key = dense(hidden_size, key_width, use_bias, self.dtype_policy)
        self.value = dense(hidden_size, key_width, use_bias, self.dtype_policy)
        self.output_dense = dense(query_width, hidden_size, self.output_bias, self.dtype_policy)
        self.drop = Dropout(dropout, dtype=self.dtype_policy)

    def keys_and_values(self, hidden):
        """Keys and values `[batch, key heads, time, head_dim]` of `hidden` `[batch, time, width]`."""
        key = self._split(self.key(hidden), self.num_key_value_heads)
        return key, self._split(self.value(hidden), self.num_key_value_heads)

    def empty_cache(self, batch, slots):
        """Room for keys and values `[batch, key heads, slots, head_dim]`."""
        shape = (batch, self.num_key_value_heads, slots, self.head_dim)
        return ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)

    def reordered(self, cache, rows, slot, size):
        def moved(values):
            part = tf.slice(values, [0, 0, slot, 0], [-1, -1, size, -1])
            return write_slots(values, tf.gather(part, rows), slot, axis=2)

        return tuple(map(moved, cache))

    def call(self, hidden, context: BlockContext, cache=(), training=None) -> MixerOutput:
        """Attends from each token of `hidden` `[batch, time, hidden]` to those that its view shows."""
        view = context.views[self.view]
        query, (key, value) = self._split(self.query(hidden), self.num_heads), self.keys_and_values(hidden)
        if view.rotation is not None:
            query, key = rotated(query, view.rotation), rotated(key, view.rotation)
        if cache:
            key, value = cache = tuple(
                write_slots(old, ops.cast(new, old.dtype), context.slot, axis=2)
                for old, new in zip(cache, (key, value), strict=True)
            )
        mixed, weights = self._attend(query, key, value, view, training)
        return MixerOutput(mixed, cache, {"attentions": weights} if "attentions" in context.collect else {})

    def _attend(self, query, key, value, view: ViewContext, training):
        """The result `[batch, time, hidden]`, and the attention weights `[batch, heads, time, keys]`."""
        query = self._regrouped(query * self.scale, self.num_key_value_heads)
        scores = self._regrouped(row_product(query, key, transpose_b=True), self.num_heads)
        scores = ops.cast(scores, "float32")
        if view.bias is not None:
            scores = scores + view.bias
        if view.visible is not None:
            scores = ops.where(view.visible, scores, HIDDEN)
        weights = ops.cast(row_softmax(scores), self.compute_dtype)  # Keras' warns of a single key
        weights = self.drop(weights, training=training)
        mixed = row_product(self._regrouped(weights, self.num_key_value_heads), value)
        mixed = ops.transpose(self._regrouped(mixed, self.num_heads), (0, 2, 1, 3))
        mixed = ops.reshape(mixed, (*sizes(mixed)[:2], self.num_heads * self.head_dim))
        return self.output_dense(mixed), weights

    def _split(self, x, heads):
        return ops.transpose(ops.reshape(x, (*sizes(x)[:2], heads, self.head_dim)), (0, 2, 1, 3))

    def _regrouped(self, x, heads):
        """`[batch, other heads, time, width]` with the queries of the heads that share a key side by side, or apart."""
        if self.num_heads == self.num_key_value_heads:
            return x
        batch, others, time, width = sizes(x)
        return ops.reshape(x, (batch, heads, others * time // heads, width))


@part
class CrossAttention(Attention):
    """Attention to an encoder's output, whose keys and values a cache holds from the start."""

    def empty_cache(self, batch, slots):
        raise NotImplementedError("the cache of cross-attention is made of an encoder's output, by keys_and_values")

    def call(self, hidden, context: BlockContext, cache=(), training=None) -> MixerOutput:
        """Attends from each token of `hidden` `[batch, time, hidden]` to the encoder's output."""
        key, value = cache or self.keys_and_values(context.encoder_hidden_states)
        query = self._split(self.query(hidden), self.num_heads)
        mixed, weights = self._attend(query, key, value, context.views["encoder"], training)
        return MixerOutput(mixed, cache, {"cross_attentions": weights} if "attentions" in context.collect else {})
