"""Decoders inside the graph: ids to text.

Each token is a string of bytes, which may differ at the beginning of a text; a text is these strings joined, with
what is not UTF-8 replaced by U+FFFD. Both strings of every token are read from the rust library's decoder.
"""

import re

import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.pre_tokenizers import byte_alphabet

# In this order; the replacements of transformers' clean_up_tokenization.
CLEAN_UP = [(f" {mark}", mark) for mark in (".", "?", "!", ",")] + [(" ' ", "'")]
CLEAN_UP += [(f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")]
NO_BYTE = -1
EACH_TOKEN = ("Metaspace", "WordPiece", "Replace", "Strip")  # what these decoders make of a token depends on it alone


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
    steps = _flat(part)
    kinds = [step["type"] for step in steps]
    exists = [token is not None for token in tokens]
    names = [token or "" for token in tokens]
    specials = [i in special for i in range(len(tokens))]
    if kinds == ["ByteLevel"]:
        byte_of = {chr(character): byte for byte, character in enumerate(byte_alphabet())}
        strings = [token_bytes(token, byte_of) for token in names]
        return Decoder(strings, strings, exists, specials, clean_up_edits(clean_up))
    if not kinds:
        first = [token.encode() for token in names]
        return Decoder(first, [b" " + token for token in first], exists, specials, clean_up_edits(clean_up))
    end = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
    for kind in kinds[:end]:
        if kind not in (*EACH_TOKEN, "ByteFallback"):
            raise description.refuse(f"decoder {kind}")
    bytes_at = kinds.index("ByteFallback") if "ByteFallback" in kinds else end
    if bytes_at < end - 1:
        raise description.refuse(f"decoder {kinds[bytes_at + 1]} between ByteFallback and Fuse")
    first, following = strings_of_tokens(steps[:bytes_at], names)
    values = [byte_value(token) for token in first] if bytes_at < end else None
    if values and values != [byte_value(token) for token in following]:
        raise description.refuse("decoder ByteFallback for tokens that are bytes only at the beginning of a text")
    first, following = [token.encode() for token in first], [token.encode() for token in following]
    edits = [edit for step in steps[end + 1 :] for edit in whole_text_edits(step)] + clean_up_edits(clean_up)
    return Decoder(first, following, exists, specials, edits, values)


def _flat(part: dict | None) -> list[dict]:
    """The decoders of a description in their order."""
    if part is None:
        return []
    return [step for child in part["decoders"] for step in _flat(child)] if part["type"] == "Sequence" else [part]


def strings_of_tokens(steps: list[dict], tokens: list[str]) -> tuple[list[str], list[str]]:
    """What decoders of single tokens make of each one at the beginning of a text, and after another one."""
    if not steps:
        return tokens, tokens
    decoder = description.rust("decoder", {"type": "Sequence", "decoders": steps})
    begin = len(decoder.decode(["a"]))
    return [decoder.decode([token]) for token in tokens], [decoder.decode(["a", token])[begin:] for token in tokens]


def byte_value(token: str) -> int:
    """The byte that a token such as <0x0A> stands for; NO_BYTE for another token."""
    found = re.fullmatch("<0x([+0-9A-Fa-f][0-9A-Fa-f])>", token)
    return int(found[1], 16) if found else NO_BYTE


def whole_text_edits(step: dict) -> list[tuple[str, str]]:
    """What a decoder does to a whole text, as regular expressions and what replaces their matches."""
    if step["type"] == "Fuse":
        return []
    if step["type"] == "Strip":
        content = re.escape(step["content"])
        begin = [(f"^(?:{content}){{1,{step['start']}}}", "")] if step["start"] else []
        return begin + ([(f"(?:{content}){{1,{step['stop']}}}$", "")] if step["stop"] else [])
    if step["type"] == "Replace" and "String" in step["pattern"] and step["pattern"]["String"]:
        return [(re.escape(step["pattern"]["String"]), step["content"].replace("\\", "\\\\"))]
    raise description.refuse(f"decoder {step['type']} after Fuse")


def clean_up_edits(wanted: bool) -> list[tuple[str, str]]:
    """The regular expressions of transformers' clean-up of spaces and what replaces their matches."""
    return [(re.escape(found), replacement) for found, replacement in CLEAN_UP] if wanted else []


def token_bytes(token: str, byte_of: dict[str, int]) -> bytes:
    """The bytes that a byte-level token stands for; a token outside the alphabet stands for its own text."""
    if all(character in byte_of for character in token):
        return bytes(byte_of[character] for character in token)
    return token.encode()


class Decoder(tf.Module):
    """Joins the strings of ids.

    Args:
        first, following: the string of each token at the beginning of a text and after another token.
        exists, special: whether there is a token with each id, and whether it is a special one.
        edits: regular expressions and what replaces their matches in the whole text.
        byte_values: the byte that each token stands for, NO_BYTE for other tokens; None where no token does. Bytes that
            follow each other are a text if they are UTF-8, otherwise each becomes U+FFFD.
    """

    def __init__(
        self,
        first: list[bytes],
        following: list[bytes],
        exists: list[bool],
        special: list[bool],
        edits: list[tuple[str, str]],
        byte_values: list[int] | None = None,
    ):
        super().__init__()
        self.differs, self.edits = first != following, edits
        with tf.init_scope():
            self.first, self.following = tf.constant(first), tf.constant(following)
            self.exists, self.special = tf.constant(exists), tf.constant(special)
            self.byte_values = None if byte_values is None else tf.constant(byte_values, tf.int32)
            self.single_bytes = tf.constant([bytes([byte]) for byte in range(256)])

    def __call__(self, ids: tf.RaggedTensor, skip_special_tokens: bool = True) -> tf.Tensor:
        """The texts `[batch]` of ids `[batch, (length)]`; ids without a token are left out."""
        known = (ids.values >= 0) & (ids.values < tf.size(self.exists))
        wanted = self.exists & ~self.special if skip_special_tokens else self.exists
        kept = known & tf.gather(wanted, tf.where(known, ids.values, 0))
        ids = tf.ragged.boolean_mask(ids, ids.with_values(kept))
        strings = tf.gather(self.following, ids.values)
        if self.differs:
            strings = tf.where(_begins(ids), tf.gather(self.first, ids.values), strings)
        if self.byte_values is not None:
            strings = self._with_bytes(ids, strings)
        texts = tf.strings.reduce_join(ids.with_values(strings), axis=-1)
        texts = _valid(texts)
        for found, replacement in self.edits:
            texts = tf.strings.regex_replace(texts, found, replacement)
        return texts

    def _with_bytes(self, ids: tf.RaggedTensor, strings: tf.Tensor) -> tf.Tensor:
        """The strings with the bytes of tokens that stand for one; U+FFFD for each that is in no UTF-8 text."""
        values = tf.gather(self.byte_values, ids.values)
        is_byte = values != NO_BYTE
        strings = tf.where(is_byte, tf.gather(self.single_bytes, tf.maximum(values, 0)), strings)
        after = is_byte & tf.concat([[False], is_byte[:-1]], 0)[: tf.size(is_byte)] & ~_begins(ids)
        run = tf.cumsum(tf.cast(~after, tf.int32)) - 1
        starts = tf.where(~after)[:, 0]
        splits = tf.concat([starts, [tf.size(run, tf.int64)]], 0)
        joined = tf.strings.reduce_join(tf.RaggedTensor.from_row_splits(strings, splits, validate=False), axis=-1)
        broken = tf.gather(joined != _valid(joined), run)
        return tf.where(is_byte & broken, "\ufffd", strings)


def _valid(texts: tf.Tensor) -> tf.Tensor:
    """The texts with U+FFFD for what is not UTF-8."""
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")


def _begins(ids: tf.RaggedTensor) -> tf.Tensor:
    """True for the first id of each row `[ids]`."""
    return tf.range(tf.size(ids.values, tf.int64)) == tf.gather(ids.row_splits, code_points.row_numbers(ids))
