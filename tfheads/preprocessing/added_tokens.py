"""Added tokens inside the graph: tokens that are looked for in the text before everything else."""

import re
from typing import NamedTuple

import tensorflow as tf
import tensorflow_text

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Text, Tokens, Words

SPACES = "".join(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F)))
SPACES += "\u205f\u3000"  # what the rust library holds to be white space
WHITE_SPACE = f"[{SPACES}]*"
NO_TOKEN = -1
BYTE_LEVEL_SPACE = "\u0120"


class Margins(tf.Module):
    """How many characters of white space tokens begin and end with, a space of byte-level vocabularies included.

    Args:
        tokens: the token of each id; None for an id without one.
    """

    def __init__(self, tokens: list[str | None]):
        super().__init__()
        tokens, cut = [token or "" for token in tokens], SPACES + BYTE_LEVEL_SPACE
        with tf.init_scope():
            self.leading = tf.constant([len(token) - len(token.lstrip(cut)) for token in tokens], tf.int32)
            self.trailing = tf.constant([len(token) - len(token.rstrip(cut)) for token in tokens], tf.int32)

    def of_ids(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of tokens as they stand in the vocabulary: how many at the beginning, how many at the end `[tokens]`."""
        return tf.gather(self.leading, ids), tf.gather(self.trailing, ids)

    def of_strings(self, strings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of tokens as they stand in a text, which may have taken white space around them."""
        lengths, cut = tf.strings.length(strings, "UTF8_CHAR"), f"[{SPACES}{BYTE_LEVEL_SPACE}]+"
        rests = [tf.strings.regex_replace(strings, pattern, "") for pattern in ("^" + cut, cut + "$")]
        leading, trailing = (lengths - tf.strings.length(rest, "UTF8_CHAR") for rest in rests)
        return leading, trailing


class Segments(NamedTuple):
    """Texts cut at added tokens.

    Attributes:
        strings: `[segments]`.
        ids: the id of an added token, NO_TOKEN for text `[segments]`.
        row_splits: `[batch + 1]`.
        starts, ends: the place where each token that was found starts, and the one after its last; 0 for text
            `[segments]`. None before they are located, and where nobody asks.
    """

    strings: tf.Tensor
    ids: tf.Tensor
    row_splits: tf.Tensor
    starts: tf.Tensor | None = None
    ends: tf.Tensor | None = None

    def in_row(self, lengths: tf.Tensor) -> tf.Tensor:
        """The sum of the lengths of the segments before each one in its row `[segments]`, for lengths `[segments]`."""
        before = tf.cumsum(lengths, exclusive=True)
        first = tf.gather(tf.concat([before, [0]], 0), self.row_splits[:-1])
        return before - tf.gather(first, code_points.row_numbers(code_points.ragged(lengths, self.row_splits)))

    def text(self) -> tf.RaggedTensor:
        """The characters of what is no token `[segments, (characters)]`."""
        return code_points.decode(tf.where(self.ids == NO_TOKEN, self.strings, ""))

    def located(self) -> tuple["Segments", Text]:
        """These segments of original strings with the places of their tokens, and the text between."""
        points, is_text = self.text(), self.ids == NO_TOKEN
        spelled = tf.strings.length(self.strings, "UTF8_CHAR")
        lengths = tf.where(is_text, tf.cast(points.row_lengths(), tf.int32), spelled)
        starts = self.in_row(lengths)
        shifts = starts - tf.cast(points.row_starts(), tf.int32)
        places = tf.range(tf.size(points.values)) + tf.gather(shifts, code_points.row_numbers(points))
        segments = self._replace(starts=tf.where(is_text, 0, starts), ends=tf.where(is_text, 0, starts + lengths))
        return segments, Text(points, places)

    def located_in(self, text: Text) -> tuple["Segments", Text]:
        """These segments of a text that was cut further at tokens: their places, and the text that is left."""
        if text.places is None:
            return self, Text(self.text())
        is_text, is_new = (
            self.ids == NO_TOKEN,
            self.ends == 0,
        )  # of a token that was found before, nothing is in the text
        lengths = tf.where(is_new, tf.strings.length(self.strings, "UTF8_CHAR"), 0)
        first = tf.cumsum(lengths, exclusive=True)
        is_new &= ~is_text
        found = tf.boolean_mask(first, is_new)
        last = found + tf.boolean_mask(lengths, is_new) - 1
        where = tf.where(is_new)
        starts = tf.tensor_scatter_nd_update(self.starts, where, tf.gather(text.places, found))
        ends = tf.tensor_scatter_nd_update(self.ends, where, tf.gather(text.places, last) + 1)
        places = tf.boolean_mask(text.places, tf.gather(is_text, code_points.runs(lengths)[0]))
        return self._replace(starts=starts, ends=ends), Text(self.text(), places)

    def with_tokens(self, tokens: Tokens, words: Words, margins: Margins | None) -> Tokens:
        """The tokens of each row: those of the text, whose words are given, and the added ones `[batch, (tokens)]`."""
        found = self.ids != NO_TOKEN
        splits, is_added, source = code_points.one_more_in_front(tokens.ids.row_splits, found)
        count = tf.size(tokens.ids.values)
        index = tf.where(is_added, count + tf.range(tf.size(source)) - source, source)

        def joined(values: tf.Tensor, of_segments: tf.Tensor) -> tf.Tensor:
            return tf.gather(tf.concat([values, tf.boolean_mask(of_segments, found)], 0), index)

        ids = code_points.ragged(joined(tokens.ids.values, self.ids), tf.gather(splits, self.row_splits))
        if tokens.words is None:
            return Tokens(ids)
        first_word = self.in_row(tf.where(found, 1, tf.cast(words.points.row_lengths(), tf.int32)))
        numbers = tokens.words + tf.gather(first_word, code_points.row_numbers(tokens.ids))
        starts, ends = joined(tokens.starts, self.starts), joined(tokens.ends, self.ends)
        located = Tokens(ids, joined(numbers, first_word), starts, ends)
        if margins is None:
            return located
        of_text = margins.of_ids(tokens.ids.values)
        of_added = margins.of_strings(tf.where(found, self.strings, ""))
        leading, trailing = (joined(*pair) for pair in zip(of_text, of_added, strict=True))
        return located._replace(leading=leading, trailing=trailing)


class AddedTokens(tf.Module):
    """Finds the leftmost and longest of some tokens, again and again.

    Args:
        tokens: descriptions as in "added_tokens" of tokenizer.json.
        contents: what to look for, one string for each token.

    Raises:
        ValueError: when a token has an option that cannot be expressed exactly in the graph.
    """

    def __init__(self, tokens: list[dict], contents: list[str]):
        super().__init__()
        for token, content in zip(tokens, contents, strict=True):
            if token["single_word"]:
                raise description.refuse(f"added token {token['content']!r} with single_word=True")
            if not content or "\0" in content or "\1" in content:
                raise description.refuse(f"added token {content!r}")
        if len(set(contents)) < len(contents):
            raise description.refuse("two added tokens with the same text")
        wide = [token for token in tokens if token["lstrip"] or token["rstrip"]]
        if wide and any(content != content.strip() for content in contents):
            raise description.refuse("added tokens with lstrip or rstrip beside others that hold outer white space")
        for content, token in zip(contents, tokens, strict=True):
            # White space before the shorter one would be taken for it, where the longer one stands.
            longer = [other for text, other in zip(contents, tokens, strict=True) if text.startswith(content)]
            if token["lstrip"] and not all(other["lstrip"] for other in longer):
                raise description.refuse(f"added token {content!r} with lstrip=True beside a longer one without it")
        by_length = sorted(zip(contents, tokens, strict=True), key=lambda item: -len(item[0].encode()))
        self.pattern = "|".join(
            (WHITE_SPACE if token["lstrip"] else "") + re.escape(content) + (WHITE_SPACE if token["rstrip"] else "")
            for content, token in by_length
        )
        self.strips = bool(wide)
        with tf.init_scope():
            keys = tf.constant([content.encode() for content in contents])
            values = tf.constant([token["id"] for token in tokens], tf.int32)
            self.ids = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), NO_TOKEN)
        # The splitting operation drops empty texts; a placeholder that is no token keeps the row of a found token.
        self.placeholder = next(chr(i) for i in range(0x20, 0x3000) if all(chr(i) not in text for text in contents))

    def __call__(self, segments: Segments) -> Segments:
        """The segments cut further at these tokens; segments that are tokens already stay."""
        taken = segments.ids != NO_TOKEN
        strings = tf.where(taken, self.placeholder, segments.strings)
        # The splitting operation ends at NUL: it searches a text of the same length without it.
        searched = tf.strings.regex_replace(strings, r"\x{0}", "\1")
        found, begins, ends = tensorflow_text.regex_split_with_offsets(searched, self.pattern, self.pattern)
        rows = code_points.row_numbers(found)
        pieces = tf.cond(
            tf.reduce_all(searched == strings),
            lambda: found.values,
            lambda: _cut(strings, ends.values - begins.values),
        )
        known = tf.gather(tf.where(taken, segments.strings, ""), rows)
        taken = tf.gather(taken, rows)
        ids = tf.where(taken, tf.gather(segments.ids, rows), self._look_up(pieces))
        pieces = tf.where(taken, known, pieces)
        row_splits = tf.gather(found.row_splits, segments.row_splits)
        if segments.ends is None:
            return Segments(pieces, ids, row_splits)
        starts, ends = (tf.where(taken, tf.gather(values, rows), 0) for values in (segments.starts, segments.ends))
        return Segments(pieces, ids, row_splits, starts, ends)

    def _look_up(self, pieces: tf.Tensor) -> tf.Tensor:
        if self.strips:
            pieces = tf.strings.regex_replace(pieces, f"^{WHITE_SPACE}", "")
            pieces = tf.strings.regex_replace(pieces, f"{WHITE_SPACE}$", "")
        return self.ids.lookup(pieces)


def _cut(strings: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Strings, one behind another, cut into pieces of so many bytes `[pieces]`."""
    bytes_ = tf.strings.bytes_split(strings).values
    return tf.strings.reduce_join(code_points.ragged(bytes_, code_points.splits_from_lengths(lengths)), axis=-1)
