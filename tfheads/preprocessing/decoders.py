"""Decoders inside the graph: ids to text.

Each token is a string of bytes, which may differ at the beginning of a text; a text is these strings joined, with
what is not UTF-8 replaced by U+FFFD. Both strings of every token are read from the rust library's decoder.
"""

import re

import tensorflow as tf

from tfheads.preprocessing import description
from tfheads.preprocessing.pre_tokenizers import byte_alphabet

# In this order; the replacements of transformers' clean_up_tokenization.
CLEAN_UP = [(f" {mark}", mark) for mark in (".", "?", "!", ",")] + [(" ' ", "'")]
CLEAN_UP += [(f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")]


def build(part: dict | None, tokens: list[str | None], special: set[int], clean_up: bool) -> "Decoder":
    """The decoder of a tokenizer's description.

    Args:
        part: the value of "decoder" in tokenizer.json.
        tokens: the token of each id; None for an id without one.
        special: the ids to leave out.
        clean_up: whether spaces before punctuation are removed at the end.

    Raises:
        ValueError: when it cannot be expressed exactly in the graph.
    """
    kind = None if part is None else part["type"]
    if kind == "ByteLevel":
        byte_of = {chr(character): byte for byte, character in enumerate(byte_alphabet())}
        first = following = [token_bytes(token or "", byte_of) for token in tokens]
    elif kind == "WordPiece":
        decoder = description.rust("decoder", part)
        begin = decoder.decode(["a"])
        first = [decoder.decode([token or ""]).encode() for token in tokens]
        following = [decoder.decode(["a", token or ""])[len(begin) :].encode() for token in tokens]
    elif kind is None:
        first = [(token or "").encode() for token in tokens]
        following = [b" " + token for token in first]
    else:
        raise description.refuse(f"decoder {kind}")
    exists = [token is not None for token in tokens]
    return Decoder(first, following, exists, [i in special for i in range(len(tokens))], clean_up)


def token_bytes(token: str, byte_of: dict[str, int]) -> bytes:
    """The bytes that a byte-level token stands for; a token outside the alphabet stands for its own text."""
    if all(character in byte_of for character in token):
        return bytes(byte_of[character] for character in token)
    return token.encode()


class Decoder(tf.Module):
    """Joins the strings of ids."""

    def __init__(
        self, first: list[bytes], following: list[bytes], exists: list[bool], special: list[bool], clean_up: bool
    ):
        super().__init__()
        self.differs, self.clean_up = first != following, clean_up
        with tf.init_scope():
            self.first, self.following = tf.constant(first), tf.constant(following)
            self.exists, self.special = tf.constant(exists), tf.constant(special)

    def __call__(self, ids: tf.RaggedTensor, skip_special_tokens: bool = True) -> tf.Tensor:
        """The texts `[batch]` of ids `[batch, (length)]`; ids without a token are left out."""
        known = (ids.values >= 0) & (ids.values < tf.size(self.exists))
        wanted = self.exists & ~self.special if skip_special_tokens else self.exists
        kept = known & tf.gather(wanted, tf.where(known, ids.values, 0))
        ids = tf.ragged.boolean_mask(ids, ids.with_values(kept))
        strings = tf.gather(self.following, ids.values)
        if self.differs:
            begins = ids.with_values(
                tf.range(tf.size(ids.values, tf.int64)) == tf.gather(ids.row_splits, ids.value_rowids())
            ).values
            strings = tf.where(begins, tf.gather(self.first, ids.values), strings)
        texts = tf.strings.reduce_join(ids.with_values(strings), axis=-1)
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        for found, replacement in CLEAN_UP if self.clean_up else ():
            texts = tf.strings.regex_replace(texts, re.escape(found), replacement)
        return texts
