"""Heads: layers `(backbone output, token table, inputs) -> dict`, with the criteria they are trained on."""

from tfheads.heads.language import LanguageModelHead
from tfheads.heads.pooling import FirstTokenPooler

__all__ = ["FirstTokenPooler", "LanguageModelHead"]
