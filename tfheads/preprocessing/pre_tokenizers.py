"""Pre-tokenisers inside the graph: text to words.

Where a word starts is decided for all characters at once from the classes of a character and its neighbours. The
classes come from the rust library. RE2 is not used: it has no look-ahead and another version of Unicode. For regular
expressions other than GPT-2's there is `pattern_search.py`.
"""

import json
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Text, Words, segment_starts, utf8_lengths, words_from_starts
from tfheads.preprocessing.character_classes import character_classes
from tfheads.preprocessing.splitting import Metaspace, Split, Whitespace, split_at_pattern, whole_segments

PreTokenizer = Callable[[Text], Words]
SPACE, OTHER, LETTER, NUMBER, END = range(5)  # OTHER, LETTER, NUMBER in the order of NEIGHBOURS
NEIGHBOURS = "!a1"
CONTRACTIONS = ("s", "t", "re", "ve", "m", "ll", "d")


def build(part: dict | None) -> PreTokenizer:
    """The pre-tokeniser of a tokenizer's description.

    Args:
        part: the value of "pre_tokenizer" in tokenizer.json.

    Raises:
        ValueError: when it cannot be expressed exactly in the graph.
    """
    kind = None if part is None else part["type"]
    if kind not in BUILDERS:
        raise description.refuse(f"pre_tokenizer {kind}")
    return BUILDERS[kind](part)


def is_byte_level(part: dict | None) -> bool:
    """Whether all words of a pre-tokeniser are in the alphabet of bytes."""
    if part is not None and part["type"] == "Sequence":
        return bool(part["pretokenizers"]) and is_byte_level(part["pretokenizers"][-1])
    return part is not None and part["type"] == "ByteLevel"


@lru_cache(maxsize=1)
def byte_alphabet() -> list[int]:
    """The printable character that stands for each byte in byte-level vocabularies, as a code point."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(0x100, 0x200))
    return [byte if byte in plain else next(stand_ins) for byte in range(256)]


class ByteLevel(tf.Module):
    """GPT-2's pre-tokeniser: words by its regular expression, then each byte as a printable character.

    The expression is `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`. In other
    words: a word is a run of letters, of numbers, of white space or of other characters. The last white space of a run
    before a word stands alone, and if it is U+0020 it belongs to the word. An apostrophe that is alone between another
    word and one of the endings forms a word with it.
    """

    def __init__(self, part: dict):
        super().__init__()
        self.add_prefix_space, self.use_regex = part["add_prefix_space"], part.get("use_regex", True)
        plain = json.dumps({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True})
        self.classes = code_points.CodePointTable(character_classes(plain, NEIGHBOURS)) if self.use_regex else None
        with tf.init_scope():
            self.alphabet = tf.constant(byte_alphabet(), tf.int32)

    def __call__(self, text: Text) -> Words:
        """Words in the printable alphabet."""
        if self.add_prefix_space:
            text = self._with_prefix_space(text)
        starts = segment_starts(text)
        if self.use_regex:
            starts |= self._starts(text.points.values, starts)
        return self._to_bytes(words_from_starts(text, starts))

    def _with_prefix_space(self, text: Text) -> Text:
        first = tf.concat([text.points.values, [ord(" ")]], 0)
        return text.preceded(ord(" "), tf.gather(first, text.points.row_splits[:-1]) != ord(" "))

    def _starts(self, characters: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        """Where words start within segments `[characters]`, given where segments start."""
        kind = self.classes(characters)
        # What stands before or after, END beyond the segment.
        last = tf.concat([first[1:], tf.ones([tf.minimum(tf.size(first), 1)], tf.bool)], 0)
        before = tf.where(first, END, tf.roll(kind, 1, 0))
        after = tf.where(last, END, tf.roll(kind, -1, 0))
        glued = (tf.roll(characters, 1, 0) == ord(" ")) & (before == SPACE)
        space = kind == SPACE
        in_spaces = space & ((before != SPACE) | ((after != SPACE) & (after != END)))
        in_words = ~space & (kind != before) & ~glued
        starts = in_spaces | in_words
        return self._contractions(characters, kind, before, starts, last)

    def _contractions(self, characters, kind, before, starts, last):
        """Moves the starts after apostrophes behind the ending that follows."""
        apostrophe = (characters == ord("'")) & starts & (before != OTHER)
        # The ending must lie in the same segment: `next_1` and `next_2` are 0 beyond it.
        next_1 = tf.where(last, 0, tf.roll(characters, -1, 0))
        next_2 = tf.where(last | tf.roll(last, -1, 0), 0, tf.roll(characters, -2, 0))
        one, two = tf.zeros_like(apostrophe), tf.zeros_like(apostrophe)
        for ending in CONTRACTIONS:
            if len(ending) == 1:
                one |= next_1 == ord(ending)
            else:
                two |= (next_1 == ord(ending[0])) & (next_2 == ord(ending[1]))
        one, two = apostrophe & one, apostrophe & two
        inside = tf.roll(one | two, 1, 0)
        behind = (tf.roll(one, 2, 0) | tf.roll(two, 3, 0)) & (kind == LETTER)
        return (starts & ~inside) | behind

    def _to_bytes(self, words: Words) -> Words:
        """Each byte of UTF-8 as a character, which has the place of the character that it is a part of."""
        inner = words.points.values
        values, splits, places = tf.cond(
            tf.reduce_all(inner.values < 0x80),
            lambda: (tf.gather(self.alphabet, inner.values), inner.row_splits, words.places),
            lambda: self._utf8(inner.values, inner.row_splits, words.places),
        )
        return Words(words.points.with_values(code_points.ragged(values, splits)), places)

    def _utf8(self, characters: tf.Tensor, splits: tf.Tensor, places: tf.Tensor | None) -> tuple:
        lengths = utf8_lengths(characters)
        source, offset = code_points.expand(lengths)
        length = tf.gather(lengths, source)
        value = tf.bitwise.right_shift(tf.gather(characters, source), 6 * (length - 1 - offset))
        lead = tf.bitwise.bitwise_or(value, tf.gather([0, 0, 0xC0, 0xE0, 0xF0], length))
        rest = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(value, 0x3F), 0x80)
        bytes_ = tf.where(offset == 0, lead, rest)
        positions = code_points.splits_from_lengths(tf.cast(lengths, splits.dtype))
        places = None if places is None else tf.gather(places, source)
        return tf.gather(self.alphabet, bytes_), tf.gather(positions, splits), places


class BertPreTokenizer(tf.Module):
    """Words between white space, each punctuation character alone."""

    SPACE, WORD, PUNCTUATION = range(3)

    def __init__(self, part: dict):
        super().__init__()
        split = description.rust("pre_tokenizer", part).pre_tokenize_str
        classes = character_classes(json.dumps(part), "a").copy()
        for point in np.flatnonzero(classes != self.WORD):
            if not 0xD800 <= point < 0xE000 and split(chr(point)):
                classes[point] = self.PUNCTUATION
        self.classes = code_points.CodePointTable(classes)

    def __call__(self, text: Text) -> Words:
        """The words, without white space."""
        kind = self.classes(text.points.values)
        starts = segment_starts(text) | (tf.roll(kind, 1, 0) != self.WORD) | (kind == self.PUNCTUATION)
        kept = kind != self.SPACE
        return words_from_starts(text, starts & kept, kept)


class Chain(tf.Module):
    """Pre-tokenisers one after the other, each on the words of the one before."""

    def __init__(self, part: dict):
        super().__init__()
        self.parts = [build(child) for child in part["pretokenizers"]]
        self.needs_places = any(getattr(child, "needs_places", False) for child in self.parts)

    def __call__(self, text: Text) -> Words:
        """The words after all of them."""
        words = whole_segments(text)
        for part in self.parts:
            inner = part(Text(words.points.values, words.places))
            splits = tf.gather(inner.points.row_splits, words.points.row_splits)
            words = Words(code_points.ragged(inner.points.values, splits), inner.places)
        return words


BUILDERS: dict[str | None, Callable[[dict | None], PreTokenizer]] = {
    None: lambda part: whole_segments,
    "ByteLevel": ByteLevel,
    "BertPreTokenizer": BertPreTokenizer,
    "CharDelimiterSplit": Split.at_delimiter,
    "Digits": Split.at_digits,
    "Metaspace": Metaspace,
    "Punctuation": Split.at_punctuation,
    "Sequence": Chain,
    "Split": split_at_pattern,
    "Whitespace": Whitespace,
    "WhitespaceSplit": Split.at_white_space,
}
