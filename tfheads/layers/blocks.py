"""How attention, feed-forward and norms are wired into one block of a stack."""

from typing import NamedTuple

import keras
import tensorflow as tf

from tfheads.layers.context import BlockContext, MixerOutput
from tfheads.layers.dropout import Dropout
from tfheads.layers.mixer import Mixer
from tfheads.layers.part import part


class BlockCache(NamedTuple):
    """What the layers of a block remember; an empty tuple for a layer that remembers nothing."""

    attention: tuple = ()
    cross_attention: tuple = ()
    feed_forward: tuple = ()


class Branches:
    """The layers of a block during one call: each takes hidden values, and what it remembers is kept here.

    Attributes:
        cache: what the layers remember, as far as they have been called.
        side_outputs: what they give beside hidden values.
    """

    def __init__(self, block: "Block", context: BlockContext, cache: BlockCache, training):
        self.block, self.context, self.cache, self.training = block, context, cache, training
        self.side_outputs = {}

    @property
    def sees_encoder(self) -> bool:
        """Whether there is an encoder's output to attend to."""
        return "encoder" in self.context.views

    def attention(self, hidden: tf.Tensor) -> tf.Tensor:
        """The attention's branch, after dropout."""
        return self.block.drop(self._output("attention", hidden), training=self.training)

    def cross_attention(self, hidden: tf.Tensor) -> tf.Tensor:
        """The cross-attention's branch, after dropout."""
        return self.block.drop(self._output("cross_attention", hidden), training=self.training)

    def feed_forward(self, hidden: tf.Tensor) -> tf.Tensor:
        """The feed-forward layer's branch, after dropout."""
        return self.block.feed_forward_drop(self._output("feed_forward", hidden), training=self.training)

    def _output(self, name, hidden):
        layer, cache = getattr(self.block, name), getattr(self.cache, name)
        output = layer(hidden, context=self.context, cache=cache, training=self.training)
        self.cache = self.cache._replace(**{name: output.cache})
        self.side_outputs.update(output.side_outputs)
        return output.hidden


class Block(Mixer):
    """Self-attention, optional cross-attention and a feed-forward layer; subclasses say how they are wired.

    Args:
        attention, feed_forward: the two mixers that every block has: of tokens, of the values of each token.
        attention_norm, feed_forward_norm: their norms; None for the second in a block whose branches share the first.
        cross_attention, cross_attention_norm: attention to an encoder's output, or None.
        dropout: rate on each branch before it joins the residual.
        feed_forward_dropout: the same for the feed-forward branch; None for the same as `dropout`.
    """

    def __init__(
        self,
        attention: keras.layers.Layer,
        feed_forward: keras.layers.Layer,
        attention_norm: keras.layers.Layer,
        feed_forward_norm: keras.layers.Layer | None = None,
        cross_attention: keras.layers.Layer | None = None,
        cross_attention_norm: keras.layers.Layer | None = None,
        dropout: float = 0.0,
        feed_forward_dropout: float | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.attention, self.attention_norm = attention, attention_norm
        self.feed_forward, self.feed_forward_norm = feed_forward, feed_forward_norm
        self.cross_attention, self.cross_attention_norm = cross_attention, cross_attention_norm
        self.dropout, self.feed_forward_dropout = dropout, feed_forward_dropout
        self.drop = Dropout(dropout, dtype=self.dtype_policy)
        own = feed_forward_dropout is not None
        self.feed_forward_drop = Dropout(feed_forward_dropout, dtype=self.dtype_policy) if own else self.drop

    def call(self, hidden, context: BlockContext, cache: tuple = (), training=None) -> MixerOutput:
        """Runs the block.

        Args:
            hidden: `[batch, time, hidden]`.
            context: what is the same for every block of the stack.
            cache: the block's `BlockCache`, or an empty tuple to remember nothing.
        """
        branches = Branches(self, context, cache or BlockCache(), training)
        hidden = self.wired(hidden, branches)
        return MixerOutput(hidden, branches.cache if cache else (), branches.side_outputs)

    def wired(self, hidden: tf.Tensor, branches: Branches) -> tf.Tensor:
        """The block's output `[batch, time, hidden]`: how the branches are put together."""
        raise NotImplementedError

    def empty_cache(self, batch, slots, encoder_hidden_states=None) -> BlockCache:
        """What the block remembers before the first token; of an encoder's output, if there is one, what it needs."""
        layers = {"attention": self.attention, "feed_forward": self.feed_forward}
        caches = {name: layer.empty_cache(batch, slots) for name, layer in layers.items()}
        if encoder_hidden_states is not None:
            caches["cross_attention"] = self.cross_attention.keys_and_values(encoder_hidden_states)
        return BlockCache(**caches)

    def reordered(self, cache, rows, slot, size) -> BlockCache:
        """As each layer reorders its own; rows that change places read the same of the encoder."""
        layers = {"attention": self.attention, "feed_forward": self.feed_forward}
        return cache._replace(
            **{name: layer.reordered(getattr(cache, name), rows, slot, size) for name, layer in layers.items()}
        )


@part
class PostNormBlock(Block):
    """Normalises after each residual sum: the original Transformer, BERT."""

    def wired(self, hidden, branches):
        hidden = self.attention_norm(hidden + branches.attention(hidden))
        if branches.sees_encoder:
            hidden = self.cross_attention_norm(hidden + branches.cross_attention(hidden))
        return self.feed_forward_norm(hidden + branches.feed_forward(hidden))


@part
class PreNormBlock(Block):
    """Normalises the input of each branch: GPT-2, T5, LLaMA."""

    def wired(self, hidden, branches):
        hidden = hidden + branches.attention(self.attention_norm(hidden))
        if branches.sees_encoder:
            hidden = hidden + branches.cross_attention(self.cross_attention_norm(hidden))
        return hidden + branches.feed_forward(self.feed_forward_norm(hidden))


@part
class ParallelBlock(Block):
    """Attention and feed-forward see the same input, each through its own norm: GPT-NeoX."""

    def wired(self, hidden, branches):
        attended = branches.attention(self.attention_norm(hidden))
        return branches.feed_forward(self.feed_forward_norm(hidden)) + attended + hidden


@part
class SharedNormParallelBlock(Block):
    """Attention and feed-forward see the same input through one norm: GPT-J."""

    def wired(self, hidden, branches):
        normed = self.attention_norm(hidden)
        return branches.attention(normed) + branches.feed_forward(normed) + hidden


@part
class NormedResidualBlock(Block):
    """As `PreNormBlock`, but what a branch is added to is its normalised input: a choice that BLOOM has."""

    def wired(self, hidden, branches):
        normed = self.attention_norm(hidden)
        normed = self.feed_forward_norm(normed + branches.attention(normed))
        return normed + branches.feed_forward(normed)
