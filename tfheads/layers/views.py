"""Views: which keys the tokens of a stack see, and how positions enter the scores."""

from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import ops

from tfheads.layers.context import ViewContext
from tfheads.layers.part import Part, part


@dataclass(frozen=True)
class TokenPlaces:
    """Where queries and keys stand.

    Without a cache, keys are the queries and a slot is a place in the row. With one, keys are its slots: all rows write
    the same slot, and a padded prompt leaves slots without a token, so a slot is not a position.

    Attributes:
        slots, key_slots: the slots of queries `[time]` and of keys `[keys]`: a causal view sees no later slot.
        order, key_order: what distances are counted in `[1 or batch, time]` and `[1 or batch, keys]`: places in the
            row, over its real tokens.
        positions, key_positions: the positions that embeddings and rotations see, likewise.
        key_mask: booleans `[batch, keys]`, True for keys that are real; None if all are.
    """

    slots: tf.Tensor
    key_slots: tf.Tensor
    order: tf.Tensor
    key_order: tf.Tensor
    positions: tf.Tensor | None
    key_positions: tf.Tensor | None
    key_mask: tf.Tensor | None


@part
class View(Part):
    """Which keys a token sees, and what its position does to scores: one kind of attention of a stack.

    Args:
        causal: whether a token sees only itself and what came before.
        window: a token sees keys that are fewer than so many places away from it (Beltagy et al. 2020); None for all.
        rotary: a part that makes of positions the rotation of queries and keys, or None.
        position_bias: a part that makes a score bias `[1 or batch, heads, time, keys]` of query and key positions, or
            None.

    Raises:
        ValueError: a window of less than one place.
    """

    def __init__(
        self,
        causal: bool = False,
        window: int | None = None,
        rotary: keras.layers.Layer | None = None,
        position_bias: keras.layers.Layer | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if window is not None and window < 1:
            raise ValueError(f"a window must have at least 1 place, got {window}")
        self.causal, self.window, self.rotary, self.position_bias = causal, window, rotary, position_bias

    def call(self, places: TokenPlaces) -> ViewContext:
        """What attention layers with this view need to know of the tokens."""
        return ViewContext(
            visible=self.visible(places),
            rotation=None if self.rotary is None else self.rotary(places.positions),
            bias=None if self.position_bias is None else self.position_bias(places.positions, places.key_positions),
        )

    def visible(self, places: TokenPlaces) -> tf.Tensor | None:
        """Booleans, broadcast to `[batch, 1, time, keys]`; None if each token sees all."""
        conditions = []
        if places.key_mask is not None:
            conditions.append(ops.expand_dims(places.key_mask, (1, 2)))
        if self.causal:
            conditions.append((places.key_slots[None, :] <= places.slots[:, None])[None, None])
        if self.window is not None:
            distances = ops.abs(places.order[:, :, None] - places.key_order[:, None, :])
            conditions.append((distances < self.window)[:, None])
        if not conditions:
            return None
        visible = conditions[0]
        for condition in conditions[1:]:
            visible = ops.logical_and(visible, condition)
        return visible
