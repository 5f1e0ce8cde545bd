"""From texts to the inputs of a model: with the tokenizer itself, or inside a graph."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import transformers

from tfheads.checks import after, require
from tfheads.preprocessing.graph_tokenizers import GraphTokenizer, graph_tokenizer

SMALLEST_BUCKET = 16
UNLIMITED = 10**6  # tokenizers without a limit say more


def are_texts(value) -> bool:
    """Whether a value is a text, or texts or pairs of texts in a list, an array, a tensor or the like."""
    if tf.is_tensor(value):
        return value.dtype == tf.string
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "US" or (value.dtype.kind == "O" and value.size > 0 and _is_text(value.flat[0]))
    if isinstance(value, (str, bytes)):
        return True
    return isinstance(value, Sequence) and len(value) > 0 and any(_is_text(one) for one in _flat(value[0]))


class TextReader:
    """Reads texts for a model: token ids in rows of one width, padding on the right.

    Rows are as wide as the first of 16, 32, 64, ... tokens that fits, so that few shapes are compiled; texts that are
    too long lose their end, or their beginning if the tokenizer's `truncation_side` says so.

    Args:
        tokenizer: of transformers; a fast one where texts are read inside a graph.
        input_names: the inputs that the model takes.
        max_length: the longest row, in tokens; None takes the tokenizer's `model_max_length`.
        pad_token_id: what rows are filled with.
    """

    def __init__(
        self,
        tokenizer: transformers.PreTrainedTokenizerBase,
        input_names: Sequence[str],
        max_length: int | None,
        pad_token_id: int,
    ):
        self.tokenizer, self.input_names, self.pad_token_id = tokenizer, input_names, pad_token_id
        limit = tokenizer.model_max_length if max_length is None else max_length
        self.max_length = limit if limit < UNLIMITED else None
        self._graph = None
        signature = [tf.TensorSpec([None], tf.string)]
        self._traced_tensors = tf.function(self._tensors, input_signature=signature, autograph=False)

    def arrays(self, texts) -> dict[str, np.ndarray]:
        """Inputs `[batch, time]` of texts, or of pairs of texts.

        Raises:
            ValueError: no texts, something else among them, or a text without a token.
        """
        texts = _as_list(texts)
        if not texts:
            raise ValueError("texts must not be empty, got none")
        first = [_text(index, one[0] if isinstance(one, tuple) else one) for index, one in enumerate(texts)]
        second = None
        if any(isinstance(one, tuple) for one in texts):
            second = [_second(index, one) for index, one in enumerate(texts)]
        cut = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        rows = self.tokenizer(first, second, padding=False, return_attention_mask=False, **cut)
        lengths = np.array([len(row) for row in rows["input_ids"]])
        if not all(first) or not lengths.all():
            empty = next(index for index, text in enumerate(first) if not text or not lengths[index])
            raise ValueError(f"texts must have a token each, number {empty} is {first[empty]!r}")
        width = self._width(int(lengths.max()))
        real = np.arange(width) < lengths[:, None]
        inputs = {"attention_mask": real.astype("int32")}
        for name in ("input_ids", "token_type_ids"):
            if name in rows and name in self.input_names:
                fill = self.pad_token_id if name == "input_ids" else 0
                inputs[name] = np.full((len(first), width), fill, "int32")
                inputs[name][real] = np.concatenate(rows[name])
        return inputs

    def tensors(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Inputs `[batch, time]` of a tensor of texts `[batch]`, made by operations of the graph.

        Raises:
            TypeError, ValueError: the tokenizer cannot run in the graph with exactly the same ids, see
                `tfheads.preprocessing.graph_tokenizer`; or the texts have another shape.
            tf.errors.InvalidArgumentError: a text without a token.
        """
        if texts.shape.rank != 1:
            raise ValueError(f"texts must be [batch] in a graph or a dataset, pairs only in lists, got {texts.shape}")
        return self._traced_tensors(texts)

    def _tensors(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = self._in_graph().tokenize(texts, self.max_length)
        lengths = tf.cast(ids.row_lengths(), tf.int32)
        empty = (lengths == 0) | (tf.strings.length(texts) == 0)
        lacking = tf.reduce_sum(tf.cast(empty, tf.int32))
        checks = require(lacking == 0, "texts must have a token each, the number of those without must be 0", lacking)
        ids, lengths = after(checks, (ids, lengths))
        width = self._width(tf.reduce_max(lengths))
        padded = ids.to_tensor(self.pad_token_id, shape=[None, None])
        padded = tf.pad(padded, [[0, 0], [0, width - tf.shape(padded)[1]]], constant_values=self.pad_token_id)
        return {"input_ids": padded, "attention_mask": tf.sequence_mask(lengths, width, tf.int32)}

    def _in_graph(self) -> GraphTokenizer:
        if self._graph is None:
            with tf.init_scope():
                self._graph = graph_tokenizer(self.tokenizer)
        return self._graph

    def _width(self, length):
        """The next width that is compiled: a power of two, or the longest row."""
        top = self.max_length or UNLIMITED
        widths = [SMALLEST_BUCKET << power for power in range(20) if SMALLEST_BUCKET << power < top] + [top]
        if tf.is_tensor(length):
            return tf.gather(widths, tf.searchsorted(widths, length[None])[0])
        return next(width for width in widths if width >= length)


def _as_list(texts) -> list:
    if tf.is_tensor(texts):
        texts = texts.numpy()
    if isinstance(texts, (str, bytes)):
        return [texts]
    return texts.tolist() if isinstance(texts, np.ndarray) else list(texts)


def _is_text(value) -> bool:
    return isinstance(value, (str, bytes))


def _flat(value):
    return value if isinstance(value, (list, tuple)) else (value,)


def _text(index: int, value) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        kind = type(value).__name__
        hint = ", join its words" if isinstance(value, list) else ""
        raise ValueError(f"texts must be strings or tuples of two strings, number {index} is a {kind}{hint}")
    return value


def _second(index: int, pair) -> str:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ValueError(f"texts must all be strings or all tuples of two strings, number {index} is {pair!r}")
    return _text(index, pair[1])
