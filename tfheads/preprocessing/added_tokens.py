"""Added tokens inside the graph: tokens that are looked for in the text before everything else."""

import re
from typing import NamedTuple

import tensorflow as tf
import tensorflow_text

from tfheads.preprocessing import description

WHITE_SPACE = r"[\x{9}-\x{D} \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]*"
NO_TOKEN = -1


class Segments(NamedTuple):
    """Texts cut at added tokens."""

    strings: tf.Tensor  # [segments]
    ids: tf.Tensor  # [segments], the id of an added token, NO_TOKEN for text
    row_splits: tf.Tensor  # [batch + 1]


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
        if wide and any(a != b and a.startswith(b) for a in contents for b in contents):
            raise description.refuse("added tokens with lstrip or rstrip beside others that begin alike")
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
        rows = found.value_rowids()
        begins, ends = begins.values, ends.values
        pieces = tf.strings.substr(tf.gather(strings, rows), begins, ends - begins)
        ids = tf.where(tf.gather(taken, rows), tf.gather(segments.ids, rows), self._look_up(pieces))
        return Segments(pieces, ids, tf.gather(found.row_splits, segments.row_splits))

    def _look_up(self, pieces: tf.Tensor) -> tf.Tensor:
        if self.strips:
            pieces = tf.strings.regex_replace(pieces, f"^{WHITE_SPACE}", "")
            pieces = tf.strings.regex_replace(pieces, f"{WHITE_SPACE}$", "")
        return self.ids.lookup(pieces)
