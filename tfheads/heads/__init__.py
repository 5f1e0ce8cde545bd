"""Heads: layers `(backbone output, token table, inputs) -> dict`, with the criteria they are trained on."""

from tfheads.heads.classification import ChoiceHead, ClassificationHead
from tfheads.heads.discrimination import DiscriminatorHead
from tfheads.heads.documents import DocumentHead, document_head
from tfheads.heads.joined import DoubleHead, PreTrainingHead
from tfheads.heads.language import LanguageModelHead
from tfheads.heads.pooling import ChosenToken, DensePooler, FirstToken, LastToken, MeanToken, PooledModelHead
from tfheads.heads.standard import decoder_heads, standard_heads
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
    "SequenceSummary",
    "TargetLanguageModelHead",
    "TokenClassificationHead",
    "decoder_heads",
    "document_head",
    "sequence_summary",
    "standard_heads",
]
