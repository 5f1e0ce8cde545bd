"""Attention layers."""

from keras import ops

from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part, part
from tfheads.layers.projections import dense
from tfheads.layers.rotary import rotated
from tfheads.layers.rows import row_product, row_softmax
from tfheads.layers.shapes import sizes
from tfheads.layers.slots import write_slots

HIDDEN = -1e9  # a score that softmax turns into 0; finite, so that a row which sees nothing stays finite


@part
class Attention(Part):
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
        memory_size: width of what keys and values are made from, for cross-attention; None for `hidden_size`.
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
        memory_size: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if head_dim is None and hidden_size % num_heads:
            raise ValueError(
                f"hidden_size must be a multiple of the number of heads, got {hidden_size} and {num_heads}"
            )
        self.hidden_size, self.num_heads = hidden_size, num_heads
        self.num_key_value_heads = num_key_value_heads or num_heads
        self.head_dim = head_dim or hidden_size // num_heads
        self.use_bias, self.output_bias = use_bias, use_bias if output_bias is None else output_bias
        self.dropout, self.memory_size = dropout, memory_size or hidden_size
        self.scale = self.head_dim**-0.5 if scale is None else scale
        query_width, key_width = num_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        self.query = dense(hidden_size, query_width, use_bias, self.dtype_policy)
        self.key = dense(self.memory_size, key_width, use_bias, self.dtype_policy)
        self.value = dense(self.memory_size, key_width, use_bias, self.dtype_policy)
        self.output_dense = dense(query_width, hidden_size, self.output_bias, self.dtype_policy)
        self.drop = Dropout(dropout, dtype=self.dtype_policy)

    def keys_and_values(self, hidden):
        """Keys and values `[batch, key heads, time, head_dim]` of `hidden` `[batch, time, width]`."""
        key = self._split(self.key(hidden), self.num_key_value_heads)
        return key, self._split(self.value(hidden), self.num_key_value_heads)

    def call(self, hidden, visible=None, bias=None, rotation=None, cache=None, slot=None, memory=None, training=None):
        """Attends from `hidden` `[batch, time, hidden]`.

        Args:
            visible: booleans, broadcast to `[batch, heads, time, keys]`: which keys a query sees.
            bias: added to the scores, broadcast like `visible`, or None.
            rotation: what a rotary part made of the positions, to turn queries and keys by; or None.
            cache: keys and values `[batch, key heads, slots, head_dim]` of a decoding state, written at `slot`.
            slot: scalar, the first slot that this call writes.
            memory: keys and values to attend to in place of the input's own (cross-attention).

        Returns:
            The result `[batch, time, hidden]`, and the cache with this call's keys and values in it (or None).
        """
        query = self._split(self.query(hidden), self.num_heads)
        if memory is not None:
            key, value = memory
        else:
            key, value = self.keys_and_values(hidden)
        if rotation is not None:
            query, key = rotated(query, rotation), rotated(key, rotation)
        if cache is not None:
            key, value = cache = tuple(
                write_slots(old, ops.cast(new, old.dtype), slot, axis=2)
                for old, new in zip(cache, (key, value), strict=True)
            )
        mixed = self._attend(query, key, value, visible, bias, training)
        mixed = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (*sizes(hidden)[:2], self.num_heads * self.head_dim))
        return self.output_dense(mixed), cache

    def _attend(self, query, key, value, visible, bias, training):
        query = self._regrouped(query * self.scale, self.num_key_value_heads)
        scores = self._regrouped(row_product(query, key, transpose_b=True), self.num_heads)
        scores = ops.cast(scores, "float32")
        if bias is not None:
            scores = scores + bias
        if visible is not None:
            scores = ops.where(visible, scores, HIDDEN)
        weights = ops.cast(row_softmax(scores), self.compute_dtype)  # Keras' warns of a single key
        weights = self._regrouped(self.drop(weights, training=training), self.num_key_value_heads)
        return self._regrouped(row_product(weights, value), self.num_heads)

    def _split(self, x, heads):
        return ops.transpose(ops.reshape(x, (*sizes(x)[:2], heads, self.head_dim)), (0, 2, 1, 3))

    def _regrouped(self, x, heads):
        """`[batch, other heads, time, width]` with the queries of the heads that share a key side by side, or apart."""
        if self.num_heads == self.num_key_value_heads:
            return x
        return ops.reshape(x, (sizes(x)[0], heads, -1, x.shape[3]))
