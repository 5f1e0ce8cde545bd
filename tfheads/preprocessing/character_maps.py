"""Normalisers that look at one character at a time: tables read from the rust library."""

import json
from functools import lru_cache

import numpy as np
import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Text


@lru_cache(maxsize=32)
def _changed(part: str) -> dict[int, str]:
    return code_points.probe(description.rust("normalizer", json.loads(part)).normalize_str)


def changed(part: dict) -> dict[int, str]:
    """What a rust normaliser makes of each character alone; read once for each description."""
    return _changed(json.dumps(part, sort_keys=True))


class CodePointMap(tf.Module):
    """Replaces each character by none, one or several, whatever stands beside it."""

    def __init__(self, changed: dict[int, str]):
        super().__init__()
        replacements = sorted(set(changed.values()))
        number = {replacement: i + 1 for i, replacement in enumerate(replacements)}
        self.numbers = code_points.table({point: number[replacement] for point, replacement in changed.items()})
        lengths = np.array([1, *map(len, replacements)], np.int32)
        with tf.init_scope():
            self.lengths = tf.constant(lengths)
            self.starts = tf.constant(np.cumsum(lengths) - lengths, tf.int32)
            self.characters = tf.constant([0, *map(ord, "".join(replacements))], tf.int32)

    def __call__(self, text: Text) -> Text:
        """The text with every character replaced."""
        numbers = self.numbers(text.points.values)
        return tf.cond(tf.reduce_any(numbers > 0), lambda: self._replace(text, numbers), lambda: text)

    def _replace(self, text: Text, numbers: tf.Tensor) -> Text:
        lengths = tf.gather(self.lengths, numbers)
        source, offset = code_points.expand(lengths)
        number = tf.gather(numbers, source)
        replaced = tf.gather(self.characters, tf.gather(self.starts, number) + offset)
        characters = tf.where(number > 0, replaced, tf.gather(text.points.values, source))
        old = text.points.row_splits
        splits = tf.gather(code_points.splits_from_lengths(tf.cast(lengths, old.dtype)), old)
        return text.replaced(code_points.ragged(characters, splits), source)


def per_character(part: dict) -> CodePointMap:
    """A normaliser that treats each character alone."""
    return CodePointMap(changed(part))
