"""Signatures of masked language models: text with masks in, the most probable tokens out."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from tfheads.models import TaskModel
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.rows import NO_LIMIT, first_tokens
from tfheads.serving.text import TextBundle
from tfheads.serving.token_level import per_row, text_input, traced


class MaskedLMBundle(TextBundle):
    """A masked language model with its tokenizer.

    Args:
        model: a masked language model.
        graph: its tokenizer in the graph.
        tokenizer: the tokenizer itself.
        options: of `serving_default`, see `Served.export_serving`.

    Raises:
        ValueError: the tokenizer has no mask token, or `top_k` is out of range.
    """

    option_names = ("top_k",)

    def __init__(self, model: TaskModel, graph: GraphTokenizer, tokenizer, options: dict):
        super().__init__(model, graph, tokenizer, options)
        if tokenizer.mask_token_id is None:
            raise ValueError(f"tokenizer must have a mask token, {type(tokenizer).__name__} has none")
        self.mask_token, self.mask_token_id = tokenizer.mask_token, tokenizer.mask_token_id
        self.encoder = self.rows(self._hidden, per_token=["hidden"])
        self.top_k, most = options.get("top_k", 5), model.vocab_size
        if not isinstance(self.top_k, int) or not 1 <= self.top_k <= most:
            raise ValueError(f"top_k must be a whole number from 1 to {most}, got {self.top_k!r}")

    def signatures(self) -> dict[str, Callable]:
        inputs = {"text": text_input(), "top_k": per_row("top_k", "int32")}
        # One function: the signatures hold its graph once.
        filled = tf.function(self._filled, input_signature=list(inputs.values()), autograph=False)

        def with_default(text):
            return filled(text, tf.fill(tf.shape(text), self.top_k))

        return {
            "serving_default": traced(with_default, text=text_input()),
            "fill_mask": traced(lambda text, top_k: filled(text, top_k), **inputs),
            **self.token_level_signatures(),
        }

    def example_inputs(self) -> dict[str, list[dict]]:
        text = {"text": [f"The old cat {self.mask_token} on the red mat."]}
        return {
            "serving_default": [text],
            "fill_mask": [{**text, "top_k": [1]}],
            **self.token_level_examples(),
        }

    def _filled(self, text, top_k) -> dict[str, tf.Tensor]:
        most = self.model.vocab_size
        top_k = tf.clip_by_value(top_k, 0, most)  # an error would be one for all rows that a server joins
        tf.debugging.assert_equal(tf.size(top_k), tf.size(text), "top_k must have a number for each text")
        inputs = self.encode(text)
        ids, lengths = first_tokens(inputs["input_ids"], NO_LIMIT)
        places, logits = self._masks(inputs)
        rows = tf.cast(places[:, 0], tf.int32)
        wanted = tf.gather(top_k, rows)
        scores, chosen = tf.math.top_k(tf.nn.softmax(logits), tf.reduce_max(tf.concat([[1], wanted], 0)))
        kept = tf.range(tf.shape(chosen)[1]) < wanted[:, None]
        counts = tf.math.bincount(rows, minlength=tf.size(text), maxlength=tf.size(text))
        sequences = self._sequences(ids, lengths, places, chosen, tf.gather(counts, rows) == 1)
        tokens = self._decoded(chosen[:, :, None], tf.ones_like(chosen), is_only=None)
        answer = {"tokens": tokens, "token_ids": chosen, "scores": scores, "sequences": sequences}
        answer = {name: tf.where(kept, value, tf.zeros([], value.dtype)) for name, value in answer.items()}
        answer = {name: _by_row(value, rows, tf.size(text)) for name, value in answer.items()}
        return {**answer, "mask_count": counts}

    def _hidden(self, inputs: Mapping) -> dict[str, tf.Tensor]:
        return {"hidden": self.model.backbone(inputs, training=False)["last_hidden_state"]}

    def _masks(self, inputs: Mapping) -> tuple[tf.Tensor, tf.Tensor]:
        """Where the masks are `[masks, 2]` (row, place), and their logits `[masks, vocabulary]`."""
        ids, hidden = inputs["input_ids"], self.encoder(inputs)["hidden"]
        masks = tf.where(ids.values == self.mask_token_id)[:, 0]
        rows = tf.gather(ids.value_rowids(), masks)
        encoded = {"last_hidden_state": tf.gather(hidden, masks)[:, None, :]}
        table = tf.convert_to_tensor(self.model.backbone.token_table)
        logits = self.model.head(encoded, token_table=table, training=False)["logits"]
        return tf.stack([rows, masks - tf.gather(ids.row_starts(), rows)], 1), tf.cast(logits[:, 0], "float32")

    def _sequences(self, ids, lengths, places, chosen, is_only) -> tf.Tensor:
        """The texts `[masks, top_k]` with each mask filled by each token."""
        rows, columns = places[:, 0], tf.cast(places[:, 1], tf.int32)
        here = tf.range(tf.shape(ids)[1])[None, :] == columns[:, None]
        filled = tf.where(here[:, None, :], chosen[:, :, None], tf.gather(ids, rows)[:, None, :])
        lengths = tf.broadcast_to(tf.gather(lengths, rows)[:, None], tf.shape(chosen))
        return self._decoded(filled, lengths, is_only)

    def _decoded(self, ids, lengths, is_only) -> tf.Tensor:
        """Texts `[masks, top_k]` of ids `[masks, top_k, time]`.

        Where a text has several masks its special tokens stay, for the other masks are among them; `is_only` None
        leaves them everywhere.
        """
        shape = tf.shape(lengths)
        flat = tf.reshape(ids, [shape[0] * shape[1], tf.shape(ids)[2]])
        ragged = tf.RaggedTensor.from_tensor(flat, lengths=tf.reshape(lengths, [-1]))
        whole = tf.reshape(self.detokenize_all(ragged), shape)
        if is_only is None:
            return whole
        plain = tf.reshape(self.detokenize(ragged), shape)
        return tf.where(is_only[:, None], plain, whole)


def _by_row(values: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Values `[masks, top_k]` as `[batch, masks of the row, top_k]`, filled up with 0 or ""."""
    ragged = tf.RaggedTensor.from_value_rowids(values, rows, nrows=tf.cast(count, rows.dtype))
    return ragged.to_tensor()
