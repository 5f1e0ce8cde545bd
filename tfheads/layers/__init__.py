"""The parts that families are made of; nothing here knows a family."""

from tfheads.layers.activations import ACTIVATIONS, activation
from tfheads.layers.attentions import Attention
from tfheads.layers.embeddings import TextEmbeddings
from tfheads.layers.feed_forwards import FeedForward, GatedFeedForward
from tfheads.layers.norms import LayerNorm, RMSNorm
from tfheads.layers.part import Part, part
from tfheads.layers.stack import DecodingState, Stack
from tfheads.layers.wirings import Block, PostNormBlock, PreNormBlock

__all__ = [
    "ACTIVATIONS",
    "Attention",
    "Block",
    "DecodingState",
    "FeedForward",
    "GatedFeedForward",
    "LayerNorm",
    "Part",
    "PostNormBlock",
    "PreNormBlock",
    "RMSNorm",
    "Stack",
    "TextEmbeddings",
    "activation",
    "part",
]
