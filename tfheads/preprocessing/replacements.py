"""Normalisers inside the graph that replace, add or remove certain texts: Replace, Prepend, Strip."""

import re
from functools import lru_cache

import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Text, segment_starts
from tfheads.preprocessing.chains import reached
from tfheads.preprocessing.character_classes import character_classes
from tfheads.preprocessing.pattern_search import PatternSearch

# Runs of one character or of white space, and single characters beside them: the regular expressions that tokenizers of
# SentencePiece have, such as " {2,}", "\\n" and "\\s{2,}|[\\n\\r\\t]".
RUN = re.compile(r"(?s)(\\[nrts]|[^\\\[\](){}.*+?^$|])(?:\{(\d+),\}|(\+))?(?:\|\[((?:\\[nrt])+)\])?")
ESCAPES = {r"\n": "\n", r"\r": "\r", r"\t": "\t"}


def build(part: dict):
    """The normaliser "Replace".

    Raises:
        ValueError: when its pattern is a regular expression that cannot be searched for in the graph.
    """
    pattern = part["pattern"]
    if "String" in pattern and pattern["String"]:
        return ReplaceText(pattern["String"], part["content"])
    run = RUN.fullmatch(pattern.get("Regex", ""))
    if run is None:
        return ReplaceMatches(pattern.get("Regex", ""), part["content"])
    atom, least, plus, singles = run.groups()
    if least is None and plus is None and singles is None and atom != r"\s":
        return ReplaceText(ESCAPES.get(atom, atom), part["content"])
    if least is None and plus is None:
        return ReplaceMatches(pattern["Regex"], part["content"])
    points = white_space() if atom == r"\s" else {ord(ESCAPES.get(atom, atom))}
    singles = {ord(ESCAPES[found]) for found in re.findall(r"\\.", singles or "")}
    return ReplaceRuns(points, int(least or 1), singles, part["content"])


@lru_cache(maxsize=1)
def white_space() -> set[int]:
    """What the rust library's regular expressions take for white space."""
    part = {"type": "Replace", "pattern": {"Regex": r"\s"}, "content": ""}
    return set(code_points.probe(description.rust("normalizer", part).normalize_str))


def replaced(text: Text, matched: tf.Tensor, last: tf.Tensor, content: tf.Tensor) -> Text:
    """The text with `content` in place of each match.

    Args:
        text: the text.
        matched: True for characters in a match `[characters]`.
        last: True for the last character of each match `[characters]`; what is inserted has its place.
        content: code points.
    """
    lengths = tf.where(last, tf.size(content), tf.where(matched, 0, 1))
    source, offset = code_points.expand(lengths)
    inserted = tf.gather(tf.concat([content, [0]], 0), tf.where(tf.gather(last, source), offset, tf.size(content)))
    values = tf.where(tf.gather(last, source), inserted, tf.gather(text.points.values, source))
    splits = tf.gather(code_points.splits_from_lengths(tf.cast(lengths, tf.int64)), text.points.row_splits)
    return text.replaced(code_points.ragged(values, splits), source)


def before_ends(text: Text) -> tf.Tensor:
    """How many characters of its segment stand behind each character `[characters]`, int32."""
    ends = tf.gather(tf.cast(text.points.row_splits[1:], tf.int32), code_points.row_numbers(text.points))
    return ends - 1 - tf.range(tf.size(text.points.values))


class ReplaceText(tf.Module):
    """Replaces a text wherever it stands, from the left, without overlaps."""

    def __init__(self, pattern: str, content: str):
        super().__init__()
        self.overlaps = any(pattern.startswith(pattern[at:]) for at in range(1, len(pattern)))
        with tf.init_scope():
            self.pattern = [ord(character) for character in pattern]
            self.content = tf.constant([ord(character) for character in content], tf.int32)

    def __call__(self, text: Text) -> Text:
        """The text with everything replaced."""
        points, length = text.points.values, len(self.pattern)
        begins = points == self.pattern[0]
        for offset, point in enumerate(self.pattern[1:], start=1):
            begins &= tf.roll(points, -offset, 0) == point
        return tf.cond(tf.reduce_any(begins), lambda: self._replaced(text, begins, length), lambda: text)

    def _replaced(self, text: Text, begins: tf.Tensor, length: int) -> Text:
        if length > 1:
            begins &= before_ends(text) >= length - 1
        places = tf.cast(tf.where(begins)[:, 0], tf.int32)
        if self.overlaps:
            places = _without_overlaps(places, length)
        size = tf.size(begins)
        inside = tf.reshape(places[:, None] + tf.range(length), [-1])
        matched = tf.scatter_nd(inside[:, None], tf.ones_like(inside), [size]) > 0
        ends = places + length - 1
        return replaced(text, matched, tf.scatter_nd(ends[:, None], tf.ones_like(ends), [size]) > 0, self.content)


def _without_overlaps(places: tf.Tensor, length: int) -> tf.Tensor:
    """The matches that remain when each search goes on behind the one before."""
    count = tf.size(places)
    following = tf.concat([tf.searchsorted(places, places + length), [count]], 0)
    chosen = tf.concat([[True], tf.zeros([count], tf.bool)], 0)

    return tf.boolean_mask(places, reached(following, chosen, count)[:-1])


class ReplaceRuns(tf.Module):
    """Replaces runs of certain characters that are long enough; a single one where it is one of `singles`."""

    def __init__(self, points: set[int], least: int, singles: set[int], content: str):
        super().__init__()
        if singles and (least > 2 or not singles <= points):
            raise description.refuse("normalizer Replace with a pattern of single characters beside runs")
        self.least, self.kinds = least, code_points.table(dict.fromkeys(points, 1) | dict.fromkeys(singles, 2))
        with tf.init_scope():
            self.content = tf.constant([ord(character) for character in content], tf.int32)

    def __call__(self, text: Text) -> Text:
        """The text with everything replaced."""
        kinds = self.kinds(text.points.values)
        return tf.cond(tf.reduce_any(kinds > 0), lambda: self._replaced(text, kinds), lambda: text)

    def _replaced(self, text: Text, kinds: tf.Tensor) -> Text:
        found = kinds > 0
        starts = segment_starts(text) | (found != tf.roll(found, 1, 0))
        run = tf.cumsum(tf.cast(starts, tf.int32)) - 1
        long = tf.gather(tf.math.segment_sum(tf.ones_like(run), run), run) >= self.least
        matched = found & (long | (kinds == 2))
        return replaced(text, matched, matched & tf.concat([starts[1:], [True]], 0), self.content)


class ReplaceMatches(tf.Module):
    """Replaces the matches of a regular expression."""

    def __init__(self, pattern: str, content: str):
        super().__init__()
        self.search = PatternSearch(pattern, "normalizer Replace")
        with tf.init_scope():
            self.content = tf.constant([ord(character) for character in content], tf.int32)

    def __call__(self, text: Text) -> Text:
        """The text with everything replaced."""
        starts, matched = self.search(text)
        ends = tf.concat([starts[1:], [True]], 0)[: tf.size(starts)]
        return replaced(text, matched, matched & ends, self.content)


class Prepend(tf.Module):
    """Puts a text in front of every segment that is not empty."""

    def __init__(self, part: dict):
        super().__init__()
        self.content = [ord(character) for character in part["prepend"]]

    def __call__(self, text: Text) -> Text:
        """The text with what stands in front."""
        for point in reversed(self.content):
            text = text.preceded(point, tf.ones([text.points.nrows()], tf.bool))
        return text


class Strip(tf.Module):
    """Removes white space at the beginning or the end of a text."""

    def __init__(self, part: dict):
        super().__init__()
        self.left, self.right = part["strip_left"], part["strip_right"]
        self.words = code_points.CodePointTable(character_classes('{"type": "WhitespaceSplit"}', "a"))

    def __call__(self, text: Text) -> Text:
        """The text without outer white space."""
        splits = tf.cast(text.points.row_splits, tf.int32)
        row = code_points.row_numbers(text.points)
        seen = tf.concat([[0], tf.cumsum(tf.cast(self.words(text.points.values) > 0, tf.int32))], 0)
        kept = tf.ones_like(row, tf.bool)
        if self.left:  # something other than white space up to here
            kept &= seen[1:] > tf.gather(seen, tf.gather(splits, row))
        if self.right:  # something other than white space from here on
            kept &= tf.gather(seen, tf.gather(splits, row + 1)) > seen[:-1]
        points = tf.ragged.boolean_mask(text.points, text.points.with_values(kept))
        return Text(points, None if text.places is None else tf.boolean_mask(text.places, kept))
