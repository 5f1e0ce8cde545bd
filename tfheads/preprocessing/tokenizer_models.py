"""Tokenizer models inside the graph: words to tokens."""

from collections.abc import Callable

import tensorflow as tf
import tensorflow_text

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Tokens, Words
from tfheads.preprocessing.byte_pair_model import BytePairModel, tokens_by_id
from tfheads.preprocessing.pre_tokenizers import byte_alphabet, is_byte_level
from tfheads.preprocessing.unigram import Unigram

TokenizerModel = Callable[[Words], Tokens]
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
        return BytePairModel(part, byte_alphabet() if is_byte_level(pre_tokenizer) else None)
    if kind == "Unigram":
        return Unigram(part)
    if kind == "WordPiece":
        return WordPiece(part)
    raise description.refuse(f"model {kind}")


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
