"""Pre-tokenisers that cut text at characters of one kind or at matches: white space, digits, SentencePiece's mark."""

import json
import re

import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Text, Words, segment_starts, words_from_starts
from tfheads.preprocessing.character_classes import character_classes
from tfheads.preprocessing.pattern_search import PatternSearch

SPACE = ord(" ")


def whole_segments(text: Text) -> Words:
    """Each segment that is not empty as one word."""
    return words_from_starts(text, segment_starts(text))


class Split(tf.Module):
    """Cuts at characters of a class.

    Args:
        delimiters: 1 for each character to cut at, otherwise 0.
        behavior: what becomes of such a character: "Removed", "Isolated", "Contiguous" (those beside each other form a
            word), "MergedWithPrevious" or "MergedWithNext".
    """

    def __init__(self, delimiters: code_points.CodePointTable, behavior: str):
        super().__init__()
        self.delimiters, self.behavior = delimiters, behavior

    @classmethod
    def at(cls, part: dict, behavior: str) -> "Split":
        """Cuts where a rust pre-tokeniser cuts a letter from the character."""
        plain = {key: value for key, value in part.items() if key != "behavior"}
        return cls(code_points.CodePointTable(1 - character_classes(json.dumps(plain), "a")), behavior)

    @classmethod
    def at_white_space(cls, part: dict) -> "Split":
        """Words between white space."""
        return cls.at(part, "Removed")

    @classmethod
    def at_digits(cls, part: dict) -> "Split":
        """Numbers, or single digits, apart from everything else."""
        return cls.at(part, "Isolated" if part["individual_digits"] else "Contiguous")

    @classmethod
    def at_punctuation(cls, part: dict) -> "Split":
        """Marks of punctuation apart from words."""
        return cls.at({"type": "Punctuation", "behavior": "Isolated"}, part["behavior"])

    @classmethod
    def at_delimiter(cls, part: dict) -> "Split":
        """Words between one character."""
        return cls(code_points.table({ord(part["delimiter"]): 1}), "Removed")

    def __call__(self, text: Text) -> Words:
        """The words."""
        first = segment_starts(text)
        here = self.delimiters(text.points.values) > 0
        before = tf.roll(here, 1, 0)
        if self.behavior == "Removed":
            return words_from_starts(text, ~here & (first | before), ~here)
        starts = {
            "Isolated": here | before,
            "Contiguous": here != before,
            "MergedWithPrevious": before,
            "MergedWithNext": here,
        }[self.behavior]
        return words_from_starts(text, first | starts)


class SplitAtMatches(tf.Module):
    """Cuts at the matches of a regular expression, or with `invert` at what is between.

    Args:
        part: the description of a pre-tokeniser "Split"; its behavior is that of `Split`, where two matches beside each
            other remain two.

    Raises:
        ValueError: the expression cannot be searched for in the graph.
    """

    def __init__(self, part: dict):
        super().__init__()
        pattern = part["pattern"]
        expression = pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])
        self.search, self.invert = PatternSearch(expression, "pre_tokenizer Split"), part["invert"]
        self.behavior = part["behavior"]

    def __call__(self, text: Text) -> Words:
        """The words."""
        starts, matched = self.search(text)
        matched = matched != self.invert
        before = tf.roll(matched, 1, 0)
        if self.behavior == "Removed":
            return words_from_starts(text, starts & ~matched, ~matched)
        joined = {
            "Isolated": tf.zeros_like(matched),
            "Contiguous": matched == before,
            "MergedWithPrevious": matched & ~before,
            "MergedWithNext": ~matched & before,
        }[self.behavior]
        return words_from_starts(text, segment_starts(text) | (starts & ~joined))


def split_at_pattern(part: dict) -> Split | SplitAtMatches:
    """The pre-tokeniser "Split"; of a single character the cheaper one."""
    character = part["pattern"].get("String", "")
    if len(character) == 1 and not part["invert"]:
        return Split(code_points.table({ord(character): 1}), part["behavior"])
    return SplitAtMatches(part)


class Whitespace(tf.Module):
    """Runs of the characters of words and runs of all others but white space."""

    def __init__(self, part: dict):
        super().__init__()
        self.classes = code_points.CodePointTable(character_classes(json.dumps(part), "a!"))

    def __call__(self, text: Text) -> Words:
        """The words, without white space."""
        kind = self.classes(text.points.values)
        kept = kind > 0
        return words_from_starts(text, kept & (segment_starts(text) | (kind != tf.roll(kind, 1, 0))), kept)


class Metaspace(tf.Module):
    """SentencePiece's spaces: each becomes a visible mark, which a word begins with.

    Raises:
        ValueError: when it has a scheme that is not known.
    """

    def __init__(self, part: dict):
        super().__init__()
        description.require(
            part, "pre_tokenizer", {"prepend_scheme": ("always", "never", "first"), "split": (True, False)}
        )
        self.mark, self.scheme, self.split = ord(part["replacement"]), part["prepend_scheme"], part["split"]
        self.needs_places = self.scheme == "first"  # in front of the whole text only

    def __call__(self, text: Text) -> Words:
        """The words, which begin with the mark where a space or, depending on the scheme, the text began."""
        points = text.points.values
        text = text._replace(points=text.points.with_values(tf.where(points == SPACE, self.mark, points)))
        if self.scheme != "never":
            text = text.preceded(self.mark, self._lacks_mark(text))
        starts = segment_starts(text)
        return words_from_starts(text, starts | (text.points.values == self.mark) if self.split else starts)

    def _lacks_mark(self, text: Text) -> tf.Tensor:
        """True for segments that do not begin with the mark and are to begin with it `[segments]`."""
        begins = text.points.row_splits[:-1]
        lacks = tf.gather(tf.concat([text.points.values, [self.mark]], 0), begins) != self.mark
        if self.scheme == "first":
            lacks &= tf.gather(tf.concat([text.places, [0]], 0), begins) == 0
        return lacks
