"""Byte-pair encoding inside the graph: of bytes written as characters, or of characters with bytes for unknown ones."""

import struct
from collections.abc import Sequence

import tensorflow as tf
import tokenizers

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Tokens, Words, utf8_lengths
from tfheads.preprocessing.sentencepieces import SentencePieces

NORMAL, UNKNOWN = 1, 2  # SentencePiece's kinds of pieces
# Names of pieces that no text makes, for no piece is the half of one.
UNREACHABLE = "\ufffe\ufffe{}"
PRIVATE = range(0x100000, 0x10FFFE)  # where the stand-ins of bytes and unknown characters are taken from
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


class BytePairModel(tf.Module):
    """Byte-pair encoding by SentencePiece's operation, with minus the rank of a merge as the score of its piece.

    SentencePiece merges two neighbours whenever their concatenation is a piece; a merges file names the pairs. Both do
    the same once two things are taken from the merges file. A token's own text is merged in one way only, whatever
    stands around it: so a token that its own text does not give is never made, and is no piece here; and the score is
    the rank of the last merge on that way, even if other merges give the same token.

    What the vocabulary lacks is replaced before: with `byte_fallback` by a stand-in for each of its bytes, otherwise by
    the stand-in of an unknown character, or it is left out where there is no unknown token. A stand-in in a text is no
    exception, for it is a character that the vocabulary lacks too.

    Args:
        part: the value of "model" in tokenizer.json.
        alphabet: the code points that words can have; None for all.

    Raises:
        ValueError: when an option or a token cannot be expressed exactly.
    """

    def __init__(self, part: dict, alphabet: Sequence[int] | None = None):
        super().__init__()
        none = {"dropout": (None, 0.0), "continuing_subword_prefix": (None, ""), "end_of_word_suffix": (None, "")}
        description.require(part, "model", none)
        vocabulary, unknown = part["vocab"], part.get("unk_token")
        if any("\0" in token for token in vocabulary):
            raise description.refuse("model BPE with a token that holds NUL")
        tokens, scores = byte_pair_pieces(vocabulary, part["merges"])
        known = {token for token in vocabulary if len(token) == 1}
        absent = -1 if unknown is None else vocabulary[unknown]
        replacing = self._replacing(part, absent)
        if alphabet is not None and known.issuperset(map(chr, alphabet)):
            replacing = []  # nothing can lack
        self.drops = replacing is None
        private = iter(chr(point) for point in PRIVATE if chr(point) not in known)
        stand_ins = [next(private) for _ in replacing or ()]
        ids = [*range(len(tokens)), *(replacing or ()), absent]
        tokens, scores = [*tokens, *stand_ins, UNREACHABLE.format("")], scores + [0.0] * (len(stand_ins) + 1)
        kinds = [NORMAL] * (len(tokens) - 1) + [UNKNOWN]
        self.pieces = SentencePieces(sentencepiece_model(tokens, scores, kinds))
        self.known = code_points.table({ord(token): 1 for token in known})
        self.whole = WholeWords(vocabulary) if part.get("ignore_merges") else None
        with tf.init_scope():
            self.ids = tf.constant(ids, tf.int32)
            self.stand_ins = tf.constant([ord(character) for character in stand_ins], tf.int32) if stand_ins else None

    def _replacing(self, part: dict, absent: int) -> list[int] | None:
        """The ids of what replaces a missing character: its bytes, or one unknown; None where it is left out."""
        if part.get("byte_fallback"):
            _require_bytes(part)
            return [part["vocab"][token] for token in BYTES]
        if part.get("unk_token") is None:
            return None
        return [] if part.get("fuse_unk") else [absent]  # the operation itself fuses unknown characters

    def __call__(self, words: Words) -> Tokens:
        """The tokens of all words."""
        whole_words, words = words, self._without_missing(words)
        strings = code_points.encode(words.points.values)
        whole = None if self.whole is None else self.whole(strings)
        rest = strings if whole is None else tf.where(whole.row_lengths() > 0, "", strings)
        if words.places is None:
            ids = self.pieces.tokenize(rest)
            ids = ids.with_values(tf.gather(self.ids, ids.values))
            return words.tokens(ids if whole is None else tf.concat([ids, whole], 1))
        ids, starts, limits = self.pieces.tokenize_with_offsets(rest)
        ids = ids.with_values(tf.gather(self.ids, ids.values))
        if whole is not None:
            ends = tf.cast(tf.gather(tf.strings.length(strings), code_points.row_numbers(whole)), starts.dtype)
            ids, starts = tf.concat([ids, whole], 1), tf.concat([starts, whole.with_values(tf.zeros_like(ends))], 1)
            limits = tf.concat([limits, whole.with_values(ends)], 1)
        # Where characters were left out the rust library counts bytes without them and finds them in the whole word.
        return (whole_words if self.drops else words).tokens_at_bytes(ids, starts, limits)

    def _without_missing(self, words: Words) -> Words:
        """The words with stand-ins for the characters that the vocabulary lacks, or without these."""
        if not self.drops and self.stand_ins is None:
            return words
        known = self.known(words.points.values.values) > 0
        return tf.cond(tf.reduce_all(known), lambda: words, lambda: self._replaced(words, known))

    def _replaced(self, words: Words, known: tf.Tensor) -> Words:
        inner = words.points.values
        if self.drops:
            lengths = tf.cast(known, tf.int32)
        elif self.stand_ins.shape[0] == 1:
            lengths = tf.ones_like(inner.values)
        else:
            lengths = tf.where(known, 1, utf8_lengths(inner.values))
        source, offset = code_points.expand(lengths)
        points, kept = tf.gather(inner.values, source), tf.gather(known, source)
        if self.stand_ins is not None:
            number = tf.where(kept, 0, utf8_byte(points, offset)) if self.stand_ins.shape[0] > 1 else 0
            points = tf.where(kept, points, tf.gather(self.stand_ins, number))
        splits = code_points.splits_from_lengths(tf.cast(lengths, inner.row_splits.dtype))
        inner = code_points.ragged(points, tf.gather(splits, inner.row_splits))
        return Words(words.points.with_values(inner), None if words.places is None else tf.gather(words.places, source))


def utf8_byte(points: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """The bytes of UTF-8 with the numbers `offset` of code points, both `[characters]`."""
    length = utf8_lengths(points)
    value = tf.bitwise.right_shift(points, 6 * (length - 1 - offset))
    lead = tf.bitwise.bitwise_or(value, tf.gather([0, 0, 0xC0, 0xE0, 0xF0], length))
    rest = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(value, 0x3F), 0x80)
    return tf.where(offset == 0, lead, rest)


def _require_bytes(part: dict) -> None:
    """Refuses a vocabulary without a token for each byte, and merges that name such tokens."""
    lacking = [token for token in BYTES if token not in part["vocab"]]
    if lacking:
        raise description.refuse(f"model BPE with byte_fallback=True and no token {lacking[0]!r}")
    for merge in part["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if left in BYTES or right in BYTES:
            raise description.refuse(f"model BPE with a merge of the byte token {left!r} with {right!r}")


class WholeWords(tf.Module):
    """Words that are tokens themselves, whatever merges there are (the option `ignore_merges`)."""

    def __init__(self, vocabulary: dict[str, int]):
        super().__init__()
        with tf.init_scope():
            keys = tf.constant([token.encode() for token in vocabulary])
            values = tf.constant(list(vocabulary.values()), tf.int32)
            self.ids = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)

    def __call__(self, strings: tf.Tensor) -> tf.RaggedTensor:
        """The ids of words that are tokens `[words, (0 or 1)]`."""
        ids = self.ids.lookup(strings)
        found = ids >= 0
        return code_points.ragged(
            tf.boolean_mask(ids, found), code_points.splits_from_lengths(tf.cast(found, tf.int64))
        )


def tokens_by_id(vocabulary: dict[str, int], hole: str) -> list[str]:
    """The vocabulary as a list; an id without a token gets the name `hole` with the id in place of `{}`."""
    tokens = [hole.format(i) for i in range(max(vocabulary.values(), default=-1) + 1)]
    for token, i in vocabulary.items():
        tokens[i] = token
    return tokens


def byte_pair_pieces(vocabulary: dict[str, int], merges: list) -> tuple[list[str], list[float]]:
    """SentencePiece's pieces and their scores for a vocabulary and its merges; see `ByteLevelBPE`."""
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    rust = tokenizers.models.BPE(vocabulary, merges)
    ranks: dict[str, list[int]] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, []).append(rank)
    first_ranks = {merge: rank for rank, merge in reversed(list(enumerate(merges)))}
    tokens, scores = [], []
    for i, token in enumerate(tokens_by_id(vocabulary, UNREACHABLE)):
        made_by, rank = ranks.get(token, []), len(merges)
        if made_by and [piece.id for piece in rust.tokenize(token)] == [i]:
            rank = made_by[0] if len(made_by) == 1 else last_merge(token, first_ranks)
        elif len(token) != 1:
            token = UNREACHABLE.format(i)
        tokens.append(token)
        scores.append(-float(rank))
    return tokens, scores


def last_merge(token: str, ranks: dict[tuple[str, str], int]) -> int:
    """The rank of the merge that completes a token when its own text is encoded."""
    symbols = list(token)
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(zip(symbols, symbols[1:], strict=False)) if pair in ranks]
        best, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        if len(symbols) == 1:
            return best


def sentencepiece_model(tokens: list[str], scores: list[float], kinds: list[int]) -> bytes:
    """A SentencePiece BPE model of these pieces in the format of its files, which normalises nothing.

    The unknown piece is the one of kind UNKNOWN; there are no others with a role.
    """

    def number(value: int) -> bytes:
        value &= (1 << 64) - 1
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def integer(field: int, value: int) -> bytes:
        return number(field << 3) + number(value)

    def block(field: int, content: bytes) -> bytes:
        return number(field << 3 | 2) + number(len(content)) + content

    pieces = [
        block(1, block(1, token.encode()) + number(2 << 3 | 5) + struct.pack("<f", score) + integer(3, kind))
        for token, score, kind in zip(tokens, scores, kinds, strict=True)
    ]
    bpe, absent = 2, -1
    roles = integer(40, kinds.index(UNKNOWN)) + b"".join(integer(field, absent) for field in (41, 42, 43))
    trainer = integer(3, bpe) + integer(4, len(tokens)) + roles
    # A table of replacements that finds nothing (its 256 nodes lead nowhere): without one the library logs a line.
    nothing = struct.pack("<I", 4 * 256) + bytes(4 * 256) + b"\0"
    switches = b"".join(integer(field, 0) for field in (3, 4, 5))
    normalizer = block(1, b"identity") + block(2, nothing) + switches
    return b"".join(pieces) + block(2, trainer) + block(3, normalizer)
