"""A stack of blocks: what every block sees is computed here, once."""

from typing import NamedTuple

import keras
import tensorflow as tf
from keras import ops

from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part, part
from tfheads.layers.rematerialisation import rematerialised
from tfheads.layers.shapes import sizes
from tfheads.layers.slots import write_slots


class DecodingState(NamedTuple):
    """What a stack remembers between the steps of a generation; every shape is fixed at the start.

    Slots are not positions: all rows write the same slot, each row carries positions of its own.

    Attributes:
        keys_and_values: per block a pair `[batch, key heads, slots, head_dim]`.
        filled: booleans `[batch, slots]`: the slot holds a real token of the row.
        positions: `[batch, slots]`: the position of that token.
        memory: per block the encoder's keys and values, an empty tuple without an encoder.
        memory_visible: booleans `[batch, source]`, an empty tuple without an encoder.
    """

    keys_and_values: tuple
    filled: object
    positions: object
    memory: tuple = ()
    memory_visible: object = ()

    def reordered(self, rows, slot, size) -> "DecodingState":
        """The state in which each row has what `rows` `[batch]` hold in the `size` slots from `slot` on.

        Only keys and values of these slots are moved: a row and the one that it takes them from must be equal in all
        else, as the rows are that a search makes of one prompt.
        """

        def moved(values):
            part = tf.slice(values, [0, 0, slot, 0], [-1, -1, size, -1])
            return write_slots(values, tf.gather(part, rows), slot, axis=2)

        return self._replace(keys_and_values=tf.nest.map_structure(moved, self.keys_and_values))


@part
class Stack(Part):
    """Blocks one after another, then an optional norm; masks, biases and the decoding state belong to it.

    Args:
        blocks: the blocks; one block may stand in several places.
        final_norm: a normalisation layer or None.
        position_bias: a part that makes a score bias `[1 or batch, heads, time, keys]` from query and key positions.
        rotary: a part that makes of positions the rotation of queries and keys.
        final_projection: a projection behind the norm, or None.
        causal: whether a token sees only itself and what came before.
        dropout: rate on the input and on the normed output.

    Attributes:
        rematerialises: whether training keeps of each block its input alone, and computes the rest again.
    """

    rematerialises = False

    def __init__(
        self,
        blocks: list,
        final_norm: keras.layers.Layer | None = None,
        position_bias: keras.layers.Layer | None = None,
        rotary: keras.layers.Layer | None = None,
        final_projection: keras.layers.Layer | None = None,
        causal: bool = False,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.blocks, self.final_norm, self.position_bias = blocks, final_norm, position_bias
        self.rotary, self.final_projection = rotary, final_projection
        self.causal, self.dropout = causal, dropout
        self.drop = Dropout(dropout, dtype=self.dtype_policy)

    def decoding_state(self, batch: int, slots: int, memory: tuple = (), memory_visible=()) -> DecodingState:
        """An empty state for `batch` rows and `slots` tokens."""

        def zeros(attention):
            shape = (batch, attention.num_key_value_heads, slots, attention.head_dim)
            return ops.zeros(shape, self.compute_dtype)

        caches = tuple((zeros(block.attention), zeros(block.attention)) for block in self.blocks)
        filled, positions = ops.zeros((batch, slots), "bool"), ops.zeros((batch, slots), "int32")
        return DecodingState(caches, filled, positions, memory, memory_visible)

    def memory(self, encoded) -> tuple:
        """Each block's keys and values of an encoder's output `[batch, source, width]`."""
        return tuple(block.cross_attention.keys_and_values(encoded) for block in self.blocks)

    def call(
        self, hidden, real=None, positions=None, state=None, slot=None, memory=(), memory_visible=(), training=None
    ):
        """Runs the blocks.

        Args:
            hidden: `[batch, time, hidden]`.
            real: booleans `[batch, time]`, True for real tokens; None if all are.
            positions: `[batch or 1, time]`.
            state: a `DecodingState` to go on from, or None.
            slot: scalar, the slot of the first token of this call; only with `state`.
            memory, memory_visible: an encoder's keys and values and which of them are real; with `state` the state's.

        Returns:
            The result, the new state (or None) and the list of the inputs of each block and the result.
        """
        sight, filled, key_positions = self._sight(hidden, real, positions, state, slot)
        if state is not None:
            memory, memory_visible = state.memory, state.memory_visible
        cross_sight = None if len(memory) == 0 else {"visible": ops.expand_dims(memory_visible, (1, 2))}
        hidden, caches, layers = self.drop(hidden, training=training), [], []
        for index, block in enumerate(self.blocks):
            layers.append(hidden)
            cache = None if state is None else state.keys_and_values[index]
            given = {"sight": sight, "cross_sight": cross_sight, "memory": memory[index] if len(memory) else None}
            if self.rematerialises and training:
                hidden = rematerialised(block, hidden, given, training)
            else:
                hidden, cache = block(hidden, **given, cache=cache, training=training)
            caches.append(cache)
        if self.final_norm is not None:
            hidden = self.drop(self.final_norm(hidden), training=training)
        if self.final_projection is not None:
            hidden = self.final_projection(hidden)
        if state is not None:
            state = DecodingState(tuple(caches), filled, key_positions, memory, memory_visible)
        return hidden, state, [*layers, hidden]

    def _sight(self, hidden, real, positions, state, slot):
        """The arguments that all self-attentions share, and the state's new `filled` and `positions`."""
        batch, time = sizes(hidden)[:2]
        if state is None:
            filled, key_positions, queries = real, positions, ops.arange(time)
        else:
            slot = ops.convert_to_tensor(slot, "int32")
            real = ops.ones((batch, time), "bool") if real is None else real
            filled = write_slots(state.filled, real, slot, axis=1)
            positions = ops.where(real, ops.cast(positions, "int32"), 0)  # padding makes no row longer
            key_positions = write_slots(state.positions, positions, slot, axis=1)
            queries = slot + ops.arange(time)
        visible = None if filled is None else ops.expand_dims(filled, (1, 2))
        if self.causal:
            keys = ops.arange(time if state is None else sizes(filled)[1])
            past = (keys[None, :] <= queries[:, None])[None, None]
            visible = past if visible is None else ops.logical_and(visible, past)
        sight = {"visible": visible}
        if state is not None:
            sight["slot"] = slot
        if self.rotary is not None:
            sight["rotation"] = self.rotary(positions)
        if self.position_bias is not None:
            sight["bias"] = self.position_bias(positions, key_positions)
        return sight, filled, key_positions
