"""Heads: layers `(backbone output, token table, inputs) -> dict`, with the criteria they are trained on."""

from tfheads.heads.classification import ChoiceHead, ClassificationHead
from tfheads.heads.discrimination import DiscriminatorHead
from tfheads.heads.documents import DocumentHead, document_head
from tfheads.heads.head import Head, TaskHead
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
from tfheads.heads.standard import (
    ANSWERS,
    CLASSIFIER,
    LANGUAGE_MODEL,
    POOLER,
    decoder_heads,
    encoder_decoder_heads,
    encoder_heads,
    row_heads,
)
from tfheads.heads.summary import SequenceSummary, sequence_summary
from tfheads.heads.targets import TargetLanguageModelHead
from tfheads.heads.tokens import QuestionAnsweringHead, TokenClassificationHead

__all__ = [
    "ANSWERS",
    "CLASSIFIER",
    "ChoiceHead",
    "ChosenToken",
    "ClassificationHead",
    "DensePooler",
    "DiscriminatorHead",
    "DocumentHead",
    "DoubleHead",
    "FirstToken",
    "Head",
    "LANGUAGE_MODEL",
    "LanguageModelHead",
    "LastOfToken",
    "LastToken",
    "MeanToken",
    "OffsetLanguageModelHead",
    "POOLER",
    "PooledModelHead",
    "PreTrainingHead",
    "QuestionAnsweringHead",
    "ScaledLanguageModelHead",
    "SequenceSummary",
    "TargetLanguageModelHead",
    "TaskHead",
    "TokenClassificationHead",
    "decoder_heads",
    "document_head",
    "encoder_decoder_heads",
    "encoder_heads",
    "sequence_summary",
    "row_heads",
]
