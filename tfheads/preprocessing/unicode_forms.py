"""Unicode's forms inside the graph: decomposed (NFD, NFKD) and composed (NFC, NFKC).

A decomposition is a table and the canonical order of combining marks: a stable sort within each run of marks, done only
where there is something to sort. A composed form is the decomposition with what can be composed put together again.
"""

import unicodedata
from functools import lru_cache

import numpy as np
import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Text, segment_starts
from tfheads.preprocessing.character_maps import per_character
from tfheads.preprocessing.piece_tries import NOWHERE, SHIFT, HashTable

OVERLAY, IOTA_SUBSCRIPT = "\u0334", "\u0345"  # the lowest (1) and the highest (240) canonical combining class


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


@lru_cache(maxsize=1)
def compositions() -> dict[tuple[str, str], str]:
    """The pairs of characters that the rust library composes to one."""
    compose = description.rust("normalizer", {"type": "NFC"}).normalize_str
    decomposed = code_points.probe(description.rust("normalizer", {"type": "NFD"}).normalize_str)
    changed = code_points.probe(compose)
    pairs = {}
    for point, parts in decomposed.items():
        for at in range(len(parts)) if point not in changed else ():
            rest = compose(parts[:at] + parts[at + 1 :])
            if len(rest) == 1 and compose(rest + parts[at]) == chr(point):
                pairs[rest, parts[at]] = chr(point)
    return pairs


class Composition(tf.Module):
    """Composes what Unicode's canonical composition composes, in text that is decomposed and in canonical order.

    A group is a character that can only stand first and what follows it up to the next such one. All groups are gone
    through together, a character at every step.
    """

    def __init__(self):
        super().__init__()
        pairs = compositions()
        self.ranks = code_points.table(combining_order())
        self.seconds = code_points.table({ord(second): 1 for _, second in pairs})
        self.pairs = HashTable({ord(a) << SHIFT | ord(b): ord(composed) for (a, b), composed in pairs.items()})

    def __call__(self, text: Text) -> Text:
        """The composed text."""
        points = text.points.values
        ranks = self.ranks(points)
        first = segment_starts(text) | ((ranks == 0) & (self.seconds(points) == 0))
        begins = tf.cast(tf.where(first)[:, 0], tf.int32)
        sizes = tf.concat([begins[1:], [tf.size(points)]], 0)[: tf.size(begins)] - begins
        begins, sizes = tf.boolean_mask(begins, sizes > 1), tf.boolean_mask(sizes, sizes > 1)
        starts = tf.gather(ranks, begins) == 0
        # The place of the character to compose with, or NOWHERE; the rank of the last one that was not composed.
        base, last = tf.where(starts, begins, NOWHERE), tf.fill(tf.shape(begins), NOWHERE)
        kept, changes = tf.ones_like(points, tf.bool), _changes(text)

        def step(offset, begins, sizes, base, last, points, kept, changes):
            goes_on = sizes > offset
            begins, sizes, base, last = (tf.boolean_mask(value, goes_on) for value in (begins, sizes, base, last))
            here = begins + offset
            rank = tf.gather(ranks, here)
            key = tf.bitwise.left_shift(tf.cast(tf.gather(points, tf.maximum(base, 0)), tf.int64), np.int64(SHIFT))
            composed = self.pairs(key + tf.cast(tf.gather(points, here), tf.int64))
            done = (composed != NOWHERE) & (base != NOWHERE) & (last < tf.where(last == NOWHERE, 0, rank))
            into, gone = tf.boolean_mask(base, done)[:, None], tf.boolean_mask(here, done)[:, None]
            points = tf.tensor_scatter_nd_update(points, into, tf.boolean_mask(composed, done))
            changes = tf.tensor_scatter_nd_add(changes, into, tf.gather_nd(changes, gone) - 1)
            kept = tf.tensor_scatter_nd_update(kept, gone, tf.zeros([tf.shape(gone)[0]], tf.bool))
            new_base = ~done & (rank == 0)
            last = tf.where(done, last, tf.where(new_base | (base == NOWHERE), NOWHERE, rank))
            return offset + 1, begins, sizes, tf.where(new_base, here, base), last, points, kept, changes

        loop = (1, begins, sizes, base, last, points, kept, changes)
        some = tf.TensorShape([None])
        shapes = (tf.TensorShape([]), some, some, some, some, points.shape, kept.shape, changes.shape)
        result = tf.while_loop(lambda offset, begins, *_: tf.size(begins) > 0, step, loop, shape_invariants=shapes)
        points, kept, changes = result[-3:]
        flags = text.points.with_values(kept)
        composed = tf.ragged.boolean_mask(text.points.with_values(points), flags)
        if text.places is None:
            return Text(composed)
        changes = tf.boolean_mask(changes, kept)
        used = tf.where(changes <= 0, 1 - changes, 0)
        return Text(composed, tf.cumsum(used, exclusive=True) - tf.where(changes > 0, 1, 0))


def _changes(text: Text) -> tf.Tensor:
    """0 for the first character of each decomposition, 1 for a later one `[characters]`.

    That is how the rust library counts, and less than 0 for one that others were composed into: as many characters
    before the decomposition stand for it. Its offsets follow from these numbers in the order of the new characters.
    """
    if text.places is None:
        return tf.zeros_like(text.points.values)
    return tf.cast(tf.concat([[-1], text.places[:-1]], 0)[: tf.size(text.places)] == text.places, tf.int32)


class ComposedForm(tf.Module):
    """NFC or NFKC. Text of characters that are never changed, in canonical order, is not gone through."""

    DECOMPOSED = {"NFC": "NFD", "NFKC": "NFKD"}

    def __init__(self, part: dict):
        super().__init__()
        self.decomposition, self.composition = Decomposition({"type": self.DECOMPOSED[part["type"]]}), Composition()
        changed = code_points.probe(description.rust("normalizer", part).normalize_str)
        second = {ord(second) for _, second in compositions()}
        self.changing = code_points.table(dict.fromkeys([*changed, *second], 1))

    def __call__(self, text: Text) -> Text:
        """The text in this form."""
        points = text.points.values
        ranks = self.composition.ranks(points)
        changes = tf.reduce_any(self.changing(points) > 0) | tf.reduce_any((ranks[:-1] > ranks[1:]) & (ranks[1:] > 0))
        return tf.cond(changes, lambda: self._changed(text), lambda: text)

    def _changed(self, text: Text) -> Text:
        numbered = text.numbered()
        result = self.composition(self.decomposition(numbered))
        return text.replaced(result.points, result.places)
