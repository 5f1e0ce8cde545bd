"""Text on its way to ids inside the graph: characters, words and tokens that know where they come from.

The contract of the parts of a tokenizer:

- A normaliser takes a `Text` and gives a `Text`; by `Text.replaced` it says which character each new one comes from.
- A pre-tokeniser takes a `Text` and gives `Words`, usually by `words_from_starts`; no word is empty.
- A model takes `Words` and gives `Tokens`, usually by `Words.tokens_at_bytes`.

A place is the number of a character (a code point) in the original string. Each character has one place, its span is
that one character, as in the rust library: what a character becomes has its place, however many it becomes; of several
that become one, the first one's place counts; what is inserted has the place of the character before it, in front of
everything that of the first one; what is removed is gone. A token reaches from the place of its first character to that
of its last one.

Places are None where nobody asks for them, so that ids alone cost nothing more. The methods here pass None on; a part
that uses them never looks at places itself.
"""

from typing import NamedTuple

import tensorflow as tf

from tfheads.preprocessing import code_points


class Text(NamedTuple):
    """Characters of some segments.

    Attributes:
        points: code points `[segments, (characters)]`, int32.
        places: the place of each character `[characters]`, int32, or None.
    """

    points: tf.RaggedTensor
    places: tf.Tensor | None = None

    def replaced(self, points: tf.RaggedTensor, source: tf.Tensor | None) -> "Text":
        """Other characters in place of these.

        Args:
            points: the new ones `[segments, (new characters)]`.
            source: the number in `self.points.values` of the character that each new one comes from
                `[new characters]`; None only where places are None.
        """
        return Text(points, None if self.places is None else tf.gather(self.places, source))

    def numbered(self) -> "Text":
        """This text with the number of each character in `points.values` as its place, for normalisers of many steps.

        What the steps make of it goes to `replaced`, its places as the source.
        """
        return Text(self.points, None if self.places is None else tf.range(tf.size(self.points.values)))

    def preceded(self, point: int, wanted: tf.Tensor) -> "Text":
        """A character before the first one of the segments that are wanted `[segments]`; empty ones stay empty."""
        wanted &= self.points.row_lengths() > 0
        splits, is_new, source = code_points.one_more_in_front(self.points.row_splits, wanted)
        characters = tf.where(is_new, point, tf.gather(self.points.values, source))
        return self.replaced(code_points.ragged(characters, splits), source)


class Words(NamedTuple):
    """Characters of the words of some segments.

    Attributes:
        points: code points `[segments, (words), (characters)]`, int32.
        places: the place of each character `[characters]`, int32, or None.
    """

    points: tf.RaggedTensor
    places: tf.Tensor | None = None

    def tokens_at_bytes(self, ids: tf.RaggedTensor, starts: tf.RaggedTensor, limits: tf.RaggedTensor) -> "Tokens":
        """Tokens that reach from byte to byte of their words in UTF-8, as TensorFlow Text's tokenizers give them.

        Args:
            ids: `[words, (tokens)]`, for the words of all segments.
            starts, limits: the first byte of each token and the one after its last, both counted from the beginning of
                its word `[words, (tokens)]`. Not read where places are None.
        """
        if self.places is None:
            return self.tokens(ids)
        inner = self.points.values
        lengths = utf8_lengths(inner.values)
        character = tf.repeat(tf.range(tf.size(lengths)), lengths)
        word_starts = tf.gather(code_points.splits_from_lengths(lengths), inner.row_splits[:-1])
        begin = tf.gather(word_starts, code_points.row_numbers(ids))
        first = tf.gather(character, begin + tf.cast(starts.values, tf.int32))
        last = tf.gather(character, begin + tf.cast(limits.values, tf.int32) - 1)
        return self.tokens(ids, first, last)

    def tokens(self, ids: tf.RaggedTensor, first: tf.Tensor | None = None, last: tf.Tensor | None = None) -> "Tokens":
        """Tokens of words.

        Args:
            ids: `[words, (tokens)]`, for the words of all segments.
            first, last: the number in `points.values.values` of the first and the last character of each token
                `[tokens]`; None only where places are None.
        """
        merged = self.points.with_values(ids).merge_dims(1, 2)
        if self.places is None:
            return Tokens(merged)
        begin = tf.cast(tf.gather(self.points.row_splits[:-1], code_points.row_numbers(merged)), tf.int32)
        words = code_points.row_numbers(ids) - begin
        return Tokens(merged, words, tf.gather(self.places, first), tf.gather(self.places, last) + 1)


class Tokens(NamedTuple):
    """Tokens of some segments; all but the ids are None where nobody asks for places.

    Attributes:
        ids: `[segments, (tokens)]`, int32.
        words: the number of each token's word in its segment `[tokens]`, int32.
        starts, ends: the place where each token starts and the one after its last `[tokens]`, int32.
        leading, trailing: how many characters of white space each token begins and ends with `[tokens]`, int32; None
            where offsets are not trimmed.
    """

    ids: tf.RaggedTensor
    words: tf.Tensor | None = None
    starts: tf.Tensor | None = None
    ends: tf.Tensor | None = None
    leading: tf.Tensor | None = None
    trailing: tf.Tensor | None = None


def utf8_lengths(points: tf.Tensor) -> tf.Tensor:
    """How many bytes of UTF-8 each code point has `[characters]`, int32."""
    return 1 + sum(tf.cast(points >= limit, tf.int32) for limit in (0x80, 0x800, 0x10000))


def words_from_starts(text: Text, starts: tf.Tensor, kept: tf.Tensor | None = None) -> Words:
    """Words from the flags of their first characters.

    Args:
        text: characters of some segments.
        starts: True for the first character of each word `[characters]`.
        kept: True for the characters that belong to a word `[characters]`; all by default.
    """
    characters, places = text.points.values, text.places
    counts = code_points.splits_from_lengths(tf.cast(starts, tf.int64))
    if kept is not None:
        characters, starts = tf.boolean_mask(characters, kept), tf.boolean_mask(starts, kept)
        places = None if places is None else tf.boolean_mask(places, kept)
    first = tf.where(starts)[:, 0]
    word_splits = tf.concat([first, [tf.size(characters, tf.int64)]], 0)
    words = code_points.ragged(characters, word_splits)
    return Words(code_points.ragged(words, tf.gather(counts, text.points.row_splits)), places)


def segment_starts(text: Text) -> tf.Tensor:
    """True for the first character of each segment `[characters]`."""
    size = tf.size(text.points.values, tf.int64)
    splits = text.points.row_splits
    flags = tf.scatter_nd(splits[:, None], tf.ones_like(splits), [size + 1])
    return flags[:size] > 0
