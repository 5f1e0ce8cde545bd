"""Tokens as strings to text inside the graph, for what is made of tokens and of pieces of the original text.

Outside of the graph that is `convert_tokens_to_string` of the tokenizer, which runs its decoder on strings.
"""

import json
import re
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import transformers

from tfheads.preprocessing.decoders import NO_BYTE, Decoder, whole_text_edits
from tfheads.preprocessing.pre_tokenizers import byte_alphabet

# The replacements of the rust library's WordPiece decoder, in its order.
WORDPIECE_CLEAN_UP = [
    *((f" {mark}", mark) for mark in (".", "?", "!", ",")),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    *((f" {ending}", ending) for ending in ("'s", "'ve", "'re")),
]


class Pieces(NamedTuple):
    """What tokens stand for, in bytes: at the beginning of a text, and behind other tokens; `[tokens]` both."""

    first: tf.Tensor
    following: tf.Tensor

    def where(self, condition: tf.Tensor, others: "Pieces") -> "Pieces":
        """These where the condition is true, the others elsewhere."""
        return Pieces(*(tf.where(condition, *pair) for pair in zip(self, others, strict=True)))


class TokenStrings(tf.Module):
    """What the tokens of a tokenizer stand for.

    Args:
        tokenizer: a fast tokenizer of transformers.
        decoder: what decodes its ids.
    """

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase, decoder: Decoder):
        super().__init__()
        part = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
        self._of_strings = KINDS.get(part["type"] if part else None, _of_marked_strings)(part)
        self._edits = [edit for step in steps_behind_fuse(part) for edit in whole_text_edits(step)]
        self.decoder = decoder

    def of_ids(self, ids: tf.Tensor) -> Pieces:
        """What ids `[tokens]` stand for."""
        pieces = Pieces(tf.gather(self.decoder.first, ids), tf.gather(self.decoder.following, ids))
        if self.decoder.byte_values is None:
            return pieces
        byte = tf.gather(self.decoder.byte_values, ids)
        character = tf.gather(self.decoder.single_bytes, tf.maximum(byte, 0))
        return Pieces(character, character).where(byte != NO_BYTE, pieces)

    def of_strings(self, strings: tf.Tensor) -> Pieces:
        """What strings `[tokens]` become that stand in the place of tokens."""
        return self._of_strings(strings)

    def joined(self, pieces: Pieces, rows: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """The texts `[count]` of tokens that belong to `rows` `[tokens]`, sorted; no row is without tokens."""
        begins = tf.concat([[True], rows[1:] != rows[:-1]], 0)[: tf.size(rows)]
        strings = tf.where(begins, pieces.first, pieces.following)
        texts = tf.RaggedTensor.from_value_rowids(strings, rows, nrows=tf.cast(count, rows.dtype), validate=False)
        texts = tf.strings.unicode_transcode(tf.strings.reduce_join(texts, axis=-1), "UTF-8", "UTF-8", errors="replace")
        for found, replacement in self._edits:
            texts = tf.strings.regex_replace(texts, found, replacement)
        return texts


def steps_behind_fuse(part: dict | None) -> list[dict]:
    """The decoders of a description that run on whole texts."""
    steps = part["decoders"] if part and part["type"] == "Sequence" else []
    kinds = [step["type"] for step in steps]
    return steps[kinds.index("Fuse") + 1 :] if "Fuse" in kinds else []


def _of_wordpieces(part: dict):
    """WordPiece: a space before all but the first, unless a mark says that it goes on; then spaces before marks go."""
    mark, clean_up = re.escape(part["prefix"]), WORDPIECE_CLEAN_UP if part["cleanup"] else []

    def cleaned(strings):
        for found, replacement in clean_up:
            strings = tf.strings.regex_replace(strings, re.escape(found), replacement)
        return strings

    def pieces(strings):
        goes_on = tf.strings.regex_full_match(strings, f"(?s){mark}.*")
        following = tf.strings.regex_replace(strings, f"^{mark}", "")
        following = tf.where(goes_on, following, tf.strings.join([" ", strings]))
        return Pieces(cleaned(strings), cleaned(following))

    return pieces


def _of_byte_strings(part: dict):
    """Byte-level: a string of characters that stand for bytes is these bytes, any other is itself."""
    alphabet = np.array(byte_alphabet())
    byte_of = np.full(alphabet.max() + 2, -1, np.int32)
    byte_of[alphabet] = np.arange(256)

    def pieces(strings):
        points = tf.strings.unicode_decode(strings, "UTF-8", errors="replace")
        byte = tf.gather(byte_of, tf.minimum(points.values, len(byte_of) - 1))
        spelled = tf.reduce_all(points.with_values(byte >= 0), axis=-1)
        characters = tf.gather(tf.constant([bytes([value]) for value in range(256)]), tf.maximum(byte, 0))
        spelling = tf.strings.reduce_join(points.with_values(characters), axis=-1)
        strings = tf.where(spelled, spelling, strings)
        return Pieces(strings, strings)

    return pieces


def _of_words(part: dict | None):
    """Without a decoder: a space before all but the first."""
    return lambda strings: Pieces(strings, tf.strings.join([" ", strings]))


def _of_marked_strings(part: dict):
    """SentencePiece: the mark of a space is a space, the first of which may go."""
    kinds = [step["type"] for step in part.get("decoders", [])]
    strips = part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never"
    strips |= "Metaspace" in kinds

    def pieces(strings):
        strings = tf.strings.regex_replace(strings, "\u2581", " ")
        return Pieces(tf.strings.regex_replace(strings, "^ ", "") if strips else strings, strings)

    return pieces


KINDS = {None: _of_words, "WordPiece": _of_wordpieces, "ByteLevel": _of_byte_strings}
