"""What every block of a stack gets beside the hidden values, and what a mixer gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import tensorflow as tf


class ViewContext(NamedTuple):
    """What a `View` makes of the tokens: it is the same for all attention layers that read the view.

    Attributes:
        visible: booleans, broadcast to `[batch, heads, time, keys]`: which keys a query sees; None for all.
        rotation: what a rotary part made of the positions, to turn queries and keys by; or None.
        bias: added to the scores, broadcast like `visible`; or None.
    """

    visible: tf.Tensor | None = None
    rotation: tuple | None = None
    bias: tf.Tensor | None = None


@dataclass(frozen=True)
class BlockContext:
    """What every block of a stack gets beside the hidden values.

    Keras looks into arguments that are nests of tensors, and takes no other values beside them; it takes this as one.

    Attributes:
        views: what each view of the stack made of the tokens, by name; "encoder" is what cross-attention sees.
        mask: booleans `[batch, time]`, True for real tokens; None if all are.
        slot: scalar, the first slot of the cache that this call writes; None without a cache.
        encoder_hidden_states: what cross-attention makes its keys and values of, `[batch, source, width]`; None without
            an encoder, and where the cache has the keys and values.
        encoder_mask: booleans `[batch, source]`, True for the source's real tokens; None without an encoder.
        extras: further tensors by name that blocks of the family read, such as a number for each row.
        collect: names of the side outputs that are wanted, such as "attentions".
    """

    views: Mapping[str, ViewContext] = field(default_factory=dict)
    mask: tf.Tensor | None = None
    slot: tf.Tensor | None = None
    encoder_hidden_states: tf.Tensor | None = None
    encoder_mask: tf.Tensor | None = None
    extras: Mapping[str, tf.Tensor] = field(default_factory=dict)
    collect: frozenset[str] = frozenset()


NO_CONTEXT = BlockContext()
"""Of tokens that are all real, without an encoder."""


class MixerOutput(NamedTuple):
    """What a mixer or a block returns.

    Attributes:
        hidden: `[batch, time, hidden]`.
        cache: the new cache; an empty tuple without one.
        side_outputs: tensors by name that leave the model beside the hidden values, as far as `collect` names them.
    """

    hidden: tf.Tensor
    cache: tuple = ()
    side_outputs: Mapping[str, tf.Tensor] = {}
