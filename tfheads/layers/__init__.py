"""The parts that families are made of; nothing here knows a family."""

from tfheads.layers.activations import ACTIVATIONS, activation
from tfheads.layers.alibi import LinearPositionBias
from tfheads.layers.attentions import Attention
from tfheads.layers.buckets import BucketedPositionBias
from tfheads.layers.embeddings import (
    FixedPositionEmbeddings,
    ScaledInputEmbeddings,
    TextEmbeddings,
    TokenTypesAreTokens,
)
from tfheads.layers.feed_forwards import FeedForward, GatedFeedForward
from tfheads.layers.norms import LayerNorm, PlainLayerNorm, RMSNorm
from tfheads.layers.part import Part, part
from tfheads.layers.rotary import RotaryPositions, rotary_positions
from tfheads.layers.stack import DecodingState, Stack
from tfheads.layers.wirings import (
    Block,
    NormedResidualBlock,
    ParallelBlock,
    PostNormBlock,
    PreNormBlock,
    SharedNormParallelBlock,
)

__all__ = [
    "ACTIVATIONS",
    "Attention",
    "Block",
    "BucketedPositionBias",
    "DecodingState",
    "FeedForward",
    "FixedPositionEmbeddings",
    "GatedFeedForward",
    "LayerNorm",
    "LinearPositionBias",
    "NormedResidualBlock",
    "ParallelBlock",
    "Part",
    "PlainLayerNorm",
    "PostNormBlock",
    "PreNormBlock",
    "RMSNorm",
    "RotaryPositions",
    "ScaledInputEmbeddings",
    "SharedNormParallelBlock",
    "Stack",
    "TextEmbeddings",
    "TokenTypesAreTokens",
    "activation",
    "part",
    "rotary_positions",
]
