"""The parts that families are made of; nothing here knows a family."""

from tfheads.layers.activations import ACTIVATIONS, activation
from tfheads.layers.alibi import LinearPositionBias
from tfheads.layers.attentions import Attention, CrossAttention
from tfheads.layers.blocks import (
    Block,
    NormedResidualBlock,
    ParallelBlock,
    PostNormBlock,
    PreNormBlock,
    SharedNormParallelBlock,
)
from tfheads.layers.buckets import BucketedPositionBias
from tfheads.layers.context import NO_CONTEXT, BlockContext, MixerOutput, ViewContext
from tfheads.layers.embeddings import (
    FixedPositionEmbeddings,
    ScaledInputEmbeddings,
    TextEmbeddings,
    TokenTypesAreTokens,
)
from tfheads.layers.feed_forwards import FeedForward, GatedFeedForward
from tfheads.layers.mixer import Mixer
from tfheads.layers.norms import LayerNorm, PlainLayerNorm, RMSNorm
from tfheads.layers.part import Part, part
from tfheads.layers.rotary import RotaryPositions, rotary_positions
from tfheads.layers.stack import Stack
from tfheads.layers.state import DecodingState
from tfheads.layers.views import View

__all__ = [
    "ACTIVATIONS",
    "Attention",
    "Block",
    "BlockContext",
    "BucketedPositionBias",
    "CrossAttention",
    "DecodingState",
    "FeedForward",
    "FixedPositionEmbeddings",
    "GatedFeedForward",
    "LayerNorm",
    "LinearPositionBias",
    "Mixer",
    "MixerOutput",
    "NO_CONTEXT",
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
    "View",
    "ViewContext",
    "activation",
    "part",
    "rotary_positions",
]
