"""A stack of blocks: what every block sees is computed here, once."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import ops

from tfheads.layers.context import NO_CONTEXT, BlockContext, ViewContext
from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part, part
from tfheads.layers.rematerialisation import rematerialised
from tfheads.layers.shapes import sizes
from tfheads.layers.slots import write_slots
from tfheads.layers.state import DecodingState
from tfheads.layers.views import TokenPlaces, View


class StackOutput(NamedTuple):
    """What a stack returns.

    Attributes:
        hidden: the result `[batch, time, hidden]`.
        state: the new state, or None.
        hidden_states: the inputs of each block, and the result.
        side_outputs: what blocks gave beside hidden values, by name, in the order of the blocks.
    """

    hidden: tf.Tensor
    state: DecodingState | None
    hidden_states: tuple
    side_outputs: Mapping[str, tuple]


@part
class Stack(Part):
    """Blocks one after another, then an optional norm; views and the decoding state belong to it.

    Args:
        blocks: the blocks; one block may stand in several places.
        views: a `View`, which is called "full", or several by name: which keys tokens see, and what positions do.
        final_norm: a normalisation layer or None.
        final_projection: a projection behind the norm, or None.
        dropout: rate on the input and on the normed output.

    Attributes:
        rematerialises: whether training keeps of each block its input alone, and computes the rest again.
    """

    rematerialises = False

    def __init__(
        self,
        blocks: list,
        views: View | dict[str, View],
        final_norm: keras.layers.Layer | None = None,
        final_projection: keras.layers.Layer | None = None,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.blocks, self.views = blocks, {"full": views} if isinstance(views, View) else views
        self.final_norm, self.final_projection, self.dropout = final_norm, final_projection, dropout
        self.drop = Dropout(dropout, dtype=self.dtype_policy)

    @property
    def causal(self) -> bool:
        """Whether tokens see only what came before, in every view."""
        return all(view.causal for view in self.views.values())

    def decoding_state(self, batch, slots, encoder_hidden_states=None, encoder_mask=()) -> DecodingState:
        """An empty state for `batch` rows and `slots` tokens, which attend to an encoder's output if there is one."""
        caches = tuple(block.empty_cache(batch, slots, encoder_hidden_states) for block in self.blocks)
        filled, positions = ops.zeros((batch, slots), "bool"), ops.zeros((batch, slots), "int32")
        return DecodingState(caches, filled, positions, encoder_mask)

    def reordered(self, state: DecodingState, rows: tf.Tensor, slot, size) -> DecodingState:
        """The state in which each row goes on from what `rows` `[batch]` have.

        Args:
            rows: for each row the one that it takes from. The two must have been equal before the `size` slots from
                `slot` on, as the rows are that a search makes of one prompt.
        """
        pairs = zip(self.blocks, state.caches, strict=True)
        return state._replace(caches=tuple(block.reordered(cache, rows, slot, size) for block, cache in pairs))

    def call(self, hidden, positions, context: BlockContext = NO_CONTEXT, state=None, training=None) -> StackOutput:
        """Runs the blocks.

        Args:
            hidden: `[batch, time, hidden]`.
            positions: `[batch or 1, time]`.
            context: the tokens' mask, and what blocks get beside it; with `state` the slot of the first token.
            state: a `DecodingState` to go on from, or None.
        """
        context, state = self._with_views(hidden, positions, context, state)
        hidden, caches, layers, side_outputs = self.drop(hidden, training=training), [], [], {}
        for index, block in enumerate(self.blocks):
            layers.append(hidden)
            if self.rematerialises and training:
                output = rematerialised(block, hidden, context, training)
            else:
                cache = () if state is None else state.caches[index]
                output = block(hidden, context=context, cache=cache, training=training)
            hidden = output.hidden
            caches.append(output.cache)
            for name, value in output.side_outputs.items():
                side_outputs.setdefault(name, []).append(value)
        if self.final_norm is not None:
            hidden = self.drop(self.final_norm(hidden), training=training)
        if self.final_projection is not None:
            hidden = self.final_projection(hidden)
        state = None if state is None else state._replace(caches=tuple(caches))
        side_outputs = {name: tuple(values) for name, values in side_outputs.items()}
        return StackOutput(hidden, state, (*layers, hidden), side_outputs)

    def _with_views(self, hidden, positions, context, state):
        """The context with what the views make of the tokens, and the state in which these are known."""
        batch, time = sizes(hidden)[:2]
        slots = ops.arange(time)
        if state is None:
            order = slots[None, :]
            places = TokenPlaces(slots, slots, order, order, positions, positions, context.mask)
        else:
            slot = ops.convert_to_tensor(context.slot, "int32")
            mask = ops.ones((batch, time), "bool") if context.mask is None else context.mask
            filled = write_slots(state.filled, mask, slot, axis=1)
            positions = ops.where(mask, ops.cast(positions, "int32"), 0)  # padding makes no row longer
            known = write_slots(state.positions, positions, slot, axis=1)
            keys = ops.arange(sizes(filled)[1])
            places = TokenPlaces(slot + slots, keys, positions, known, positions, known, filled)
            state = state._replace(filled=filled, positions=known)
            encoder_mask = None if isinstance(state.encoder_mask, tuple) else state.encoder_mask
            context = replace(context, slot=slot, mask=mask, encoder_mask=encoder_mask)
        views = {name: view(places=places) for name, view in self.views.items()}
        if context.encoder_mask is not None:
            views["encoder"] = ViewContext(ops.expand_dims(context.encoder_mask, (1, 2)))
        return replace(context, views=views), state
