"""Tokenizer models inside the graph: words to tokens."""

import struct
from collections.abc import Callable

import tensorflow as tf
import tensorflow_text
import tokenizers

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Tokens, Words
from tfheads.preprocessing.pre_tokenizers import byte_alphabet

TokenizerModel = Callable[[Words], Tokens]
NORMAL, UNKNOWN = 1, 2  # SentencePiece's kinds of pieces
# Names of pieces that no text can make: these characters are not in the alphabet of byte-level vocabularies.
UNREACHABLE = "\ufffe\ufffe{}"
LONGEST_PIECE = 256  # bytes; the limit of the WordPiece operation


def build(part: dict, pre_tokenizer: dict | None) -> TokenizerModel:
    """The model of a tokenizer's description.

    Args:
        part: the value of "model" in tokenizer.json.
        pre_tokenizer: the value of "pre_tokenizer", which tells a byte-level vocabulary.

    Raises:
        ValueError: when it cannot be expressed exactly in the graph.
    """
    kind = part.get("type")
    if kind == "BPE":
        if pre_tokenizer is None or pre_tokenizer["type"] != "ByteLevel":
            raise description.refuse("model BPE without the pre_tokenizer ByteLevel")
        return ByteLevelBPE(part)
    if kind == "WordPiece":
        return WordPiece(part)
    raise description.refuse(f"model {kind}")


def tokens_by_id(vocabulary: dict[str, int], hole: str) -> list[str]:
    """The vocabulary as a list; an id without a token gets the name `hole` with the id in place of `{}`."""
    tokens = [hole.format(i) for i in range(max(vocabulary.values(), default=-1) + 1)]
    for token, i in vocabulary.items():
        tokens[i] = token
    return tokens


class ByteLevelBPE(tf.Module):
    """Byte-pair encoding by SentencePiece's operation, with minus the rank of a merge as the score of its piece.

    SentencePiece merges two neighbours whenever their concatenation is a piece; a merges file names the pairs. Both do
    the same once two things are taken from the merges file. A token's own text is merged in one way only, whatever
    stands around it: so a token that its own text does not give is never made, and is no piece here; and the score is
    the rank of the last merge on that way, even if other merges give the same token.
    """

    def __init__(self, part: dict):
        super().__init__()
        require = {"dropout": (None, 0.0), "continuing_subword_prefix": (None, ""), "end_of_word_suffix": (None, "")}
        description.require(part, "model", require | {"byte_fallback": (False, None), "ignore_merges": (False, None)})
        vocabulary, unknown = part["vocab"], part.get("unk_token")
        tokens, scores = byte_pair_pieces(vocabulary, part["merges"])
        ids = list(range(len(tokens)))
        missing = [chr(character) for character in byte_alphabet() if chr(character) not in vocabulary]
        # Without an unknown token, characters that the vocabulary lacks are left out before merging.
        self.drops = unknown is None and bool(missing)
        absent = -1 if unknown is None else vocabulary[unknown]
        if not part.get("fuse_unk"):  # the operation fuses unknown characters: here each is a piece with the unknown id
            tokens, scores, ids = tokens + missing, scores + [0.0] * len(missing), ids + [absent] * len(missing)
        kinds = [NORMAL] * len(tokens) + [UNKNOWN]
        tokens, scores, ids = [*tokens, UNREACHABLE.format("")], [*scores, 0.0], [*ids, absent]
        self.pieces = tensorflow_text.SentencepieceTokenizer(sentencepiece_model(tokens, scores, kinds))
        self.missing = code_points.table({ord(character): 1 for character in missing})
        with tf.init_scope():
            self.ids = tf.constant(ids, tf.int32)

    def __call__(self, words: Words) -> Tokens:
        """The tokens of all words."""
        inner = words.points.values
        if self.drops:  # without an unknown token a character that the vocabulary lacks is left out
            known = self.missing(inner.values) == 0
            inner = tf.ragged.boolean_mask(inner, inner.with_values(known))
        strings = code_points.encode(inner)
        if words.places is None:
            ids = self.pieces.tokenize(strings)
            return words.tokens(ids.with_values(tf.gather(self.ids, ids.values)))
        # Where characters were left out, the rust library too counts bytes without them.
        ids, starts, limits = self.pieces.tokenize_with_offsets(strings)
        return words.tokens_at_bytes(ids.with_values(tf.gather(self.ids, ids.values)), starts, limits)


def byte_pair_pieces(vocabulary: dict[str, int], merges: list) -> tuple[list[str], list[float]]:
    """SentencePiece's pieces and their scores for a vocabulary and its merges; see `ByteLevelBPE`."""
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    rust = tokenizers.models.BPE(vocabulary, merges)
    ranks: dict[str, list[int]] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, []).append(rank)
    tokens, scores = [], []
    for i, token in enumerate(tokens_by_id(vocabulary, UNREACHABLE)):
        made_by, rank = ranks.get(token, []), len(merges)
        if made_by and [piece.id for piece in rust.tokenize(token)] == [i]:
            rank = made_by[0] if len(made_by) == 1 else last_merge(token, merges)
        elif len(token) != 1:
            token = UNREACHABLE.format(i)
        tokens.append(token)
        scores.append(-float(rank))
    return tokens, scores


def last_merge(token: str, merges: list[tuple[str, str]]) -> int:
    """The rank of the merge that completes a token when its own text is encoded."""
    rank = {}
    for i, pair in enumerate(merges):
        rank.setdefault(pair, i)
    symbols = list(token)
    while True:
        pairs = [(rank[pair], i) for i, pair in enumerate(zip(symbols, symbols[1:], strict=False)) if pair in rank]
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


class WordPiece(tf.Module):
    """BERT's model: the longest token that begins a word, then the longest that continues it, or the unknown token."""

    def __init__(self, part: dict):
        super().__init__()
        vocabulary, unknown = part["vocab"], part["unk_token"]
        if unknown not in vocabulary:
            raise description.refuse(f"model WordPiece whose unk_token {unknown!r} is not in its vocabulary")
        self.longest, prefix = part["max_input_chars_per_word"], part["continuing_subword_prefix"]
        known = set("".join(vocabulary))
        self.placeholder = next(chr(i) for i in range(0x21, 0xD800) if chr(i) not in known)  # is unknown
        with tf.init_scope():
            # The operation counts bytes, the rust library characters: so its limit is switched off and ours is used.
            self.pieces = tensorflow_text.FastWordpieceTokenizer(
                word_pieces(vocabulary, prefix, self.longest),
                suffix_indicator=prefix,
                max_bytes_per_word=4 * self.longest + 1,
                token_out_type=tf.int32,
                unknown_token=unknown,
                no_pretokenization=True,
            )
        self.unknown = vocabulary[unknown]

    def __call__(self, words: Words) -> Tokens:
        """The tokens of all words."""
        inner = words.points.values
        too_long = inner.row_lengths() > self.longest
        strings = tf.where(too_long, self.placeholder, code_points.encode(inner))
        if words.places is None:
            return words.tokens(self.pieces.tokenize(strings))
        ids, starts, limits = self.pieces.tokenize_with_offsets(strings)
        word = code_points.row_numbers(ids)
        whole = tf.gather(tf.strings.length(code_points.encode(inner)), word)
        limits = tf.where(tf.gather(too_long, word), tf.cast(whole, limits.dtype), limits.values)
        return words.tokens_at_bytes(ids, starts, starts.with_values(limits))


def word_pieces(vocabulary: dict[str, int], prefix: str, longest: int) -> list[str]:
    """The tokens by id, with those that are longer than any word and the missing ones renamed to what is as long.

    Raises:
        ValueError: when a token is too long for the operation.
    """
    longer = "x" * (longest + 1) + "{}"
    tokens = tokens_by_id(vocabulary, longer)
    for i, token in enumerate(tokens):
        if len(token.removeprefix(prefix)) > longest:
            tokens[i] = longer.format(i)
        if "\0" in token:
            raise description.refuse(f"model WordPiece with the token {token!r}")
        if len(tokens[i].encode()) > LONGEST_PIECE:
            raise description.refuse(f"model WordPiece with the token {token!r} of more than {LONGEST_PIECE} bytes")
    return tokens
