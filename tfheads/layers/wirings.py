"""How attention, feed-forward and norms are wired into one block of a stack."""

import keras

from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part, part


class Block(Part):
    """Self-attention, optional cross-attention and a feed-forward layer; subclasses say how they are wired.

    Args:
        attention, feed_forward: the two layers every block has.
        attention_norm, feed_forward_norm: their norms; None for the second in a wiring whose branches share the first.
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

    def call(self, hidden, sight, cross_sight=None, cache=None, memory=None, training=None):
        """Runs the block.

        Args:
            hidden: `[batch, time, hidden]`.
            sight: keyword arguments of the self-attention that are the same for every block of the stack.
            cross_sight: the same for the cross-attention.
            cache: this block's keys and values of a decoding state, or None.
            memory: this block's keys and values of the encoder's output, or None.

        Returns:
            The new `hidden` and the new cache.
        """
        raise NotImplementedError


@part
class PostNormBlock(Block):
    """Normalises after each residual sum: the original Transformer, BERT."""

    def call(self, hidden, sight, cross_sight=None, cache=None, memory=None, training=None):
        branch, cache = self.attention(hidden, **sight, cache=cache, training=training)
        hidden = self.attention_norm(hidden + self.drop(branch, training=training))
        if memory is not None:
            branch, _ = self.cross_attention(hidden, **cross_sight, memory=memory, training=training)
            hidden = self.cross_attention_norm(hidden + self.drop(branch, training=training))
        branch = self.feed_forward(hidden)
        return self.feed_forward_norm(hidden + self.feed_forward_drop(branch, training=training)), cache


@part
class PreNormBlock(Block):
    """Normalises the input of each branch: GPT-2, T5, LLaMA."""

    def call(self, hidden, sight, cross_sight=None, cache=None, memory=None, training=None):
        branch, cache = self.attention(self.attention_norm(hidden), **sight, cache=cache, training=training)
        hidden = hidden + self.drop(branch, training=training)
        if memory is not None:
            normed = self.cross_attention_norm(hidden)
            branch, _ = self.cross_attention(normed, **cross_sight, memory=memory, training=training)
            hidden = hidden + self.drop(branch, training=training)
        branch = self.feed_forward(self.feed_forward_norm(hidden))
        return hidden + self.feed_forward_drop(branch, training=training), cache


@part
class ParallelBlock(Block):
    """Attention and feed-forward see the same input, each through its own norm: GPT-NeoX."""

    def call(self, hidden, sight, cross_sight=None, cache=None, memory=None, training=None):
        attended, cache = self.attention(self.attention_norm(hidden), **sight, cache=cache, training=training)
        branch = self.feed_forward(self.feed_forward_norm(hidden))
        return self.drop(branch, training=training) + self.drop(attended, training=training) + hidden, cache


@part
class SharedNormParallelBlock(Block):
    """Attention and feed-forward see the same input through one norm: GPT-J."""

    def call(self, hidden, sight, cross_sight=None, cache=None, memory=None, training=None):
        normed = self.attention_norm(hidden)
        attended, cache = self.attention(normed, **sight, cache=cache, training=training)
        branch = self.feed_forward(normed)
        return self.drop(attended, training=training) + self.drop(branch, training=training) + hidden, cache


@part
class NormedResidualBlock(Block):
    """As `PreNormBlock`, but what a branch is added to is its normalised input: a choice that BLOOM has."""

    def call(self, hidden, sight, cross_sight=None, cache=None, memory=None, training=None):
        normed = self.attention_norm(hidden)
        branch, cache = self.attention(normed, **sight, cache=cache, training=training)
        normed = self.feed_forward_norm(normed + self.drop(branch, training=training))
        return normed + self.drop(self.feed_forward(normed), training=training), cache
