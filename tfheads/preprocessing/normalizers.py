"""Normalisers inside the graph: text in, text out, as the rust library changes it.

A normaliser that looks at one character at a time is a table. What remains of Unicode's decompositions is the canonical
order of combining marks: a stable sort within each run of marks, done only where there is something to sort.
"""

import json
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Text

Normalizer = Callable[[Text], Text]
OVERLAY, IOTA_SUBSCRIPT = "\u0334", "\u0345"  # the lowest (1) and the highest (240) canonical combining class


def build(part: dict | None) -> Normalizer | None:
    """The normaliser of a tokenizer's description.

    Args:
        part: the value of "normalizer" in tokenizer.json.

    Raises:
        ValueError: when it cannot be expressed exactly in the graph.
    """
    if part is None:
        return None
    if part["type"] not in BUILDERS:
        raise description.refuse(f"normalizer {part['type']}")
    return BUILDERS[part["type"]](part)


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


@lru_cache(maxsize=1)
def combining_order() -> dict[int, int]:
    """The rank of each combining mark's canonical class (from 1), as the rust library orders marks."""
    order = description.rust("normalizer", {"type": "NFD"}).normalize_str

    def swaps(first: str, second: str) -> bool:
        return first != second and order(first + second) == second + first

    samples: dict[int, str] = {}
    for point in range(0x300, 0x1E000):
        samples.setdefault(unicodedata.combining(chr(point)), chr(point))
    samples.pop(0)
    bar = code_points.SEPARATOR
    above = code_points.probe(lambda text: order(text.replace(bar, OVERLAY + bar) + OVERLAY))
    below = code_points.probe(lambda text: order(IOTA_SUBSCRIPT + text.replace(bar, bar + IOTA_SUBSCRIPT)))
    marks = {point for point, result in above.items() if result == OVERLAY + chr(point)}
    marks |= {point for point, result in below.items() if result == chr(point) + IOTA_SUBSCRIPT}
    return {point: 1 + sum(swaps(chr(point), sample) for sample in samples.values()) for point in marks}


class CanonicalOrder(tf.Module):
    """Sorts each run of combining marks by canonical class, keeping the order of equal ones; see `Decomposition`."""

    def __init__(self):
        super().__init__()
        ranks = combining_order()
        self.ranks = code_points.table(ranks)
        self.classes = max(ranks.values()) + 1

    def __call__(self, text: Text) -> Text:
        """The text in canonical order; places must number the characters before their decomposition."""
        ranks = self.ranks(text.points.values)
        unsorted = tf.reduce_any((ranks[:-1] > ranks[1:]) & (ranks[1:] > 0))
        return tf.cond(unsorted, lambda: self._sort(text, ranks), lambda: text)

    def _sort(self, text: Text, ranks: tf.Tensor) -> Text:
        splits, size = text.points.row_splits, tf.size(ranks, tf.int64)
        first = tf.scatter_nd(splits[:, None], tf.ones_like(splits), [size + 1])
        run = tf.cumsum(tf.cast((ranks == 0) | (first[:-1] > 0), tf.int64))
        # The position makes every key another one, so that the order of equal classes is kept for certain.
        order = tf.argsort((run * self.classes + tf.cast(ranks, tf.int64)) * size + tf.range(size))
        points = text.points.with_values(tf.gather(text.points.values, order))
        if text.places is None:
            return Text(points)
        # In the rust library a mark takes along whether it is the first character of a decomposition or a later one;
        # a first one gets the place of the next source in order, a later one that of the source before it.
        is_first = tf.concat([[True], text.places[1:] != text.places[:-1]], 0)
        return Text(points, tf.cumsum(tf.cast(tf.gather(is_first, order), tf.int32)) - 1)


class Decomposition(tf.Module):
    """Each character replaced by its parts, then all in canonical order: NFD or NFKD."""

    def __init__(self, part: dict):
        super().__init__()
        self.parts, self.order = per_character(part), CanonicalOrder()

    def __call__(self, text: Text) -> Text:
        """The decomposed text."""
        result = self.order(self.parts(text.numbered()))
        return text.replaced(result.points, result.places)


class Chain(tf.Module):
    """Normalisers one after the other."""

    def __init__(self, parts: list[Normalizer]):
        super().__init__()
        self.parts = parts

    def __call__(self, text: Text) -> Text:
        """The text after all of them."""
        for part in self.parts:
            text = part(text)
        return text


class BertNormalizer(tf.Module):
    """Cleaning, spaces around Chinese characters, removal of accents, lower case: one table for all of it.

    Only when marks remain that Unicode's canonical order may move (a few scripts have such) the steps run one by one.
    """

    def __init__(self, part: dict):
        super().__init__()
        self.whole = per_character(part)
        ranks = combining_order()
        replaced = changed(part)
        movable = {point: 1 for point, text in replaced.items() if any(ord(mark) in ranks for mark in text)}
        movable |= {point: 1 for point in ranks if point not in replaced}
        strips = part["lowercase"] if part["strip_accents"] is None else part["strip_accents"]
        self.movable = code_points.table(movable) if strips else None
        none = {
            "type": "BertNormalizer",
            "clean_text": False,
            "handle_chinese_chars": False,
            "strip_accents": False,
            "lowercase": False,
        }
        cleaning = {key: part[key] for key in ("clean_text", "handle_chinese_chars")}
        steps = [
            per_character(none | cleaning),
            Decomposition({"type": "NFD"}),
            per_character(none | {"strip_accents": True}),
        ]
        self.steps = Chain(steps + ([per_character(none | {"lowercase": True})] if part["lowercase"] else []))

    def __call__(self, text: Text) -> Text:
        """The normalised text."""
        if self.movable is None:
            return self.whole(text)
        moves = tf.reduce_any(self.movable(text.points.values) > 0)
        return tf.cond(moves, lambda: self.steps(text), lambda: self.whole(text))


BUILDERS: dict[str, Callable[[dict], Normalizer]] = {
    "BertNormalizer": BertNormalizer,
    "Lowercase": per_character,
    "StripAccents": per_character,
    "NFD": Decomposition,
    "NFKD": Decomposition,
    "Sequence": lambda part: Chain([build(child) for child in part["normalizers"]]),
}
