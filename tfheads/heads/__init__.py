"""Heads: layers `(backbone output, token table, inputs) -> dict`, with the criteria they are trained on."""

from tfheads.heads.classification import ChoiceHead, ClassificationHead
from tfheads.heads.discrimination import DiscriminatorHead
from tfheads.heads.documents import DocumentHead, document_head
from tfheads.heads.joined import DoubleHead, PreTrainingHead
from tfheads.heads.language import LanguageModelHead
from tfheads.heads.offset import OffsetLanguageModelHead
from tfheads.heads.pooling import (
    ChosenToken,
    DensePooler,
    FirstToken,
    LastOfToken,
    LastToken,
    MeanToken,
    PooledModelHead,
)
from tfheads.heads.scaled import ScaledLanguageModelHead
from tfheads.heads.standard import decoder_heads, end_token_classifier, standard_heads
from tfheads.heads.summary import SequenceSummary, sequence_summary
from tfheads.heads.targets import TargetLanguageModelHead
from tfheads.heads.tokens import QuestionAnsweringHead, TokenClassificationHead

__all__ = [
    "ChoiceHead",
    "ChosenToken",
    "ClassificationHead",
    "DensePooler",
    "DiscriminatorHead",
    "DocumentHead",
    "DoubleHead",
    "FirstToken",
    "LanguageModelHead",
    "LastOfToken",
    "LastToken",
    "MeanToken",
    "OffsetLanguageModelHead",
    "PooledModelHead",
    "PreTrainingHead",
    "QuestionAnsweringHead",
    "ScaledLanguageModelHead",
    "SequenceSummary",
    "TargetLanguageModelHead",
    "TokenClassificationHead",
    "decoder_heads",
    "document_head",
    "end_token_classifier",
    "sequence_summary",
    "standard_heads",
]
