"""Signatures of bare models: text in, one vector out."""

import os
from collections.abc import Callable, Mapping

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.pipelines.feature_extraction import FeatureExtractionPipeline
from tfheads.pipelines.sentence_embeddings import POOLINGS, SentenceModules
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.text import SPACES, TextBundle
from tfheads.serving.token_level import EXAMPLE_TEXT, text_input, traced, valid_text

FARTHEST = -3e38


class EmbeddingBundle(TextBundle):
    """A bare model with its tokenizer, and how the hidden values of a text become a vector.

    Args:
        model: a bare model, or an encoder.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: see `Served.export_serving`.

    Raises:
        ValueError: an unknown pooling, or what the model's directory asks for cannot be done in the graph.
    """

    option_names = ("pooling", "normalize")

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        self.sentence = sentence_modules(model, options.get("pooling"), options.get("normalize"))
        if self.sentence.lower_case:
            raise ValueError("do_lower_case must be False in the model's directory for an export, got True")
        lengths = [length for length in (self.row_length, self.sentence.max_length) if length is not None]
        self.row_length = min(lengths, default=None)
        self.embedded = self.rows(self._vectors)

    def signatures(self) -> dict[str, Callable]:
        return {"serving_default": traced(self._embedded, text=text_input()), **self.token_level_signatures()}

    def example_inputs(self) -> dict[str, list[dict]]:
        return {"serving_default": [{"text": [EXAMPLE_TEXT]}], **self.token_level_examples()}

    def _embedded(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        text = tf.strings.regex_replace(valid_text(text), f"^[{SPACES}]+|[{SPACES}]+$", "")
        return self.embedded(self.encode(text))

    def _vectors(self, inputs: Mapping) -> dict[str, tf.Tensor]:
        hidden = self.model.inferred(inputs, "last_hidden_state")["last_hidden_state"]
        real = tf.cast(inputs["attention_mask"], tf.bool)[:, :, None]
        vector = tf.concat([GRAPH_POOLINGS[name](hidden, real) for name in self.sentence.poolings], axis=-1)
        if self.sentence.normalize:
            vector /= tf.maximum(tf.norm(vector, axis=-1, keepdims=True), 1e-12)
        return {"embedding": vector}


def sentence_modules(model: TaskModel, pooling: str | None, normalize: bool | None) -> SentenceModules:
    """How a text becomes a vector, by the options or by the directory that the model was loaded from.

    Raises:
        ValueError: an unknown pooling, or the directory asks for what is not supported.
    """
    if pooling is not None and pooling != "sentence-transformers":
        if pooling not in POOLINGS:
            known = ", ".join(map(repr, ("sentence-transformers", *POOLINGS)))
            raise ValueError(f"pooling must be one of {known}, got {pooling!r}")
        return SentenceModules((pooling,), bool(normalize))
    place = getattr(model.config, "_name_or_path", "")
    own = FeatureExtractionPipeline.files(place)["sentence_modules"] if place and os.path.isdir(place) else None
    if own is None:
        if pooling is not None:
            raise ValueError("pooling='sentence-transformers' needs a model from a directory with modules.json")
        return SentenceModules(("mean",), bool(normalize))
    return own if normalize is None else SentenceModules(**{**vars(own), "normalize": bool(normalize)})


def _mean(hidden, real, power: float = 1.0):
    count = tf.reduce_sum(tf.cast(real, "float32"), axis=1)
    return tf.reduce_sum(tf.where(real, hidden, 0.0), axis=1) / count**power


def _weighted(hidden, real):
    weights = tf.where(real, tf.range(1, tf.shape(hidden)[1] + 1)[None, :, None], 0)
    weights = tf.cast(weights, "float32")
    return tf.reduce_sum(hidden * weights, axis=1) / tf.reduce_sum(weights, axis=1)


def _last(hidden, real):
    last = tf.reduce_sum(tf.cast(real[:, :, 0], tf.int32), axis=1) - 1
    return tf.gather(hidden, last, axis=1, batch_dims=1)


# Vectors `[rows, hidden]` of hidden values `[rows, time, hidden]`, of which `real` `[rows, time, 1]` are no padding.
GRAPH_POOLINGS = {
    "cls": lambda hidden, real: hidden[:, 0],
    "max": lambda hidden, real: tf.reduce_max(tf.where(real, hidden, FARTHEST), axis=1),
    "mean": _mean,
    "mean_sqrt_len": lambda hidden, real: _mean(hidden, real, 0.5),
    "weightedmean": _weighted,
    "lasttoken": _last,
}
