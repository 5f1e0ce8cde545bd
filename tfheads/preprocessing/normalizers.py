"""Normalisers inside the graph: code points in, code points out, as the rust library changes them.

A normaliser that looks at one character at a time is a table. What remains of Unicode's decompositions is the canonical
order of combining marks: a stable sort within each run of marks, done only where there is something to sort.
"""

import json
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import tensorflow as tf

from tfheads.preprocessing import code_points, description

Normalizer = Callable[[tf.RaggedTensor], tf.RaggedTensor]
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


def per_character(part: dict) -> code_points.CodePointMap:
    """A normaliser that treats each character alone."""
    return code_points.CodePointMap(changed(part))


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
    """Sorts each run of combining marks by canonical class, keeping the order of equal ones."""

    def __init__(self):
        super().__init__()
        ranks = combining_order()
        self.ranks = code_points.table(ranks)
        self.classes = max(ranks.values()) + 1

    def __call__(self, text: tf.RaggedTensor) -> tf.RaggedTensor:
        """The text in canonical order."""
        ranks = self.ranks(text.values)
        unsorted = tf.reduce_any((ranks[:-1] > ranks[1:]) & (ranks[1:] > 0))
        return tf.cond(unsorted, lambda: self._sort(text, ranks), lambda: text)

    def _sort(self, text: tf.RaggedTensor, ranks: tf.Tensor) -> tf.RaggedTensor:
        first = tf.scatter_nd(text.row_splits[:, None], tf.ones_like(text.row_splits), [tf.size(ranks, tf.int64) + 1])
        run = tf.cumsum(tf.cast((ranks == 0) | (first[:-1] > 0), tf.int64))
        # The position makes every key another one, so that the order of equal classes is kept for certain.
        size = tf.size(ranks, tf.int64)
        order = tf.argsort((run * self.classes + tf.cast(ranks, tf.int64)) * size + tf.range(size))
        return text.with_values(tf.gather(text.values, order))


class Chain(tf.Module):
    """Normalisers one after the other."""

    def __init__(self, parts: list[Normalizer]):
        super().__init__()
        self.parts = parts

    def __call__(self, text: tf.RaggedTensor) -> tf.RaggedTensor:
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
            per_character({"type": "NFD"}),
            CanonicalOrder(),
            per_character(none | {"strip_accents": True}),
        ]
        self.steps = Chain(steps + ([per_character(none | {"lowercase": True})] if part["lowercase"] else []))

    def __call__(self, text: tf.RaggedTensor) -> tf.RaggedTensor:
        """The normalised text."""
        if self.movable is None:
            return self.whole(text)
        moves = tf.reduce_any(self.movable(text.values) > 0)
        return tf.cond(moves, lambda: self.steps(text), lambda: self.whole(text))


def decomposition(part: dict) -> Chain:
    """NFD or NFKD."""
    return Chain([per_character(part), CanonicalOrder()])


BUILDERS: dict[str, Callable[[dict], Normalizer]] = {
    "BertNormalizer": BertNormalizer,
    "Lowercase": per_character,
    "StripAccents": per_character,
    "NFD": decomposition,
    "NFKD": decomposition,
    "Sequence": lambda part: Chain([build(child) for child in part["normalizers"]]),
}
