"""Preprocessing inside the TensorFlow graph: what goes into a SavedModel."""

from tfheads.preprocessing.graph_tokenizers import GraphTokenizer, graph_tokenizer
from tfheads.preprocessing.verification import verify

__all__ = ["GraphTokenizer", "graph_tokenizer", "verify"]
