"""The Unigram model inside the graph: the segmentation with the highest sum of scores, exactly as the rust library's.

SentencePiece's operation adds scores in 32 bits, the rust library in 64: they differ where two segmentations are
equally good, or nearly, which real texts hold ("-----", "hahaha"). So the search is made of TensorFlow's operations:
pieces are found at all places at once, then all words are gone through together, a character at every step.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfheads.preprocessing import code_points, description
from tfheads.preprocessing.aligned_text import Tokens, Words, utf8_lengths
from tfheads.preprocessing.byte_pair_model import BYTES, utf8_byte
from tfheads.preprocessing.chains import reached
from tfheads.preprocessing.piece_tries import Matches, PieceTrie

UNKNOWN_PENALTY = 10.0  # of a character without a piece, below the lowest score
SIGNIFICANT_BITS = 53  # of a score in 64 bits
LONGEST_TEXT = 20  # bits: texts up to a million characters add exactly


class Unigram(tf.Module):
    """SentencePiece's Unigram model (Kudo 2018), with the rust library's choice among equally good segmentations.

    Args:
        part: the value of "model" in tokenizer.json.
        dtype: what scores are added in: 64 bits as in the rust library, or 32 as in SentencePiece itself.

    Raises:
        ValueError: when its description cannot be expressed exactly.
    """

    def __init__(self, part: dict, dtype: tf.DType = tf.float64):
        super().__init__()
        pieces, scores = [piece for piece, _ in part["vocab"]], [score for _, score in part["vocab"]]
        if part.get("unk_id") is None:
            raise description.refuse("model Unigram without unk_id")
        # Of pieces with the same text the rust library's trie finds the last one.
        number = {piece: i for i, piece in enumerate(pieces)}
        self.trie = PieceTrie([piece for piece in number if piece])
        self.unknown, unknown_score = part["unk_id"], min(scores) - UNKNOWN_PENALTY
        self.adds_exactly = dtype == tf.float64 and adds_exactly([*scores, unknown_score])
        self.bytes = None
        if part.get("byte_fallback"):
            lacking = [token for token in BYTES if token not in number]
            if lacking:
                raise description.refuse(f"model Unigram with byte_fallback=True and no piece {lacking[0]!r}")
        with tf.init_scope():
            ids = [number[piece] for piece in number if piece]
            # Behind the pieces: an unknown character, and none.
            self.ids = tf.constant([*ids, self.unknown, self.unknown], tf.int32)
            self.scores = tf.constant([*(scores[i] for i in ids), unknown_score, -np.inf], dtype)
            if part.get("byte_fallback"):
                self.bytes = tf.constant([number[token] for token in BYTES], tf.int32)

    def __call__(self, words: Words) -> Tokens:
        """The tokens of all words."""
        inner = words.points.values
        distinct, place = tf.unique(code_points.encode(inner))
        text = code_points.decode(distinct)
        found = self.segmented(text)
        ids = code_points.ragged(found.ids, found.splits)
        if words.places is None:
            return words.tokens(tf.gather(ids, place))
        begins = tf.cast(text.row_splits[:-1], tf.int32)
        begins = tf.gather(begins, code_points.row_numbers(ids))
        first = tf.gather(ids.with_values(found.starts - begins), place)
        last = tf.gather(ids.with_values(found.ends - 1 - begins), place)
        begins = tf.gather(tf.cast(inner.row_splits[:-1], tf.int32), code_points.row_numbers(first))
        return words.tokens(tf.gather(ids, place), first.values + begins, last.values + begins)

    def segmented(self, text: tf.RaggedTensor) -> "Found":
        """The tokens of words `[words, (characters)]`."""
        return self._fused(text, self._best(text))

    def _best(self, text: tf.RaggedTensor) -> "Segmentation":
        """The best pieces of words `[words, (characters)]`."""
        matches = self.trie(text)
        islands = _islands(text, matches) if self.adds_exactly else text.row_splits
        layout = Layout(islands)
        longest = tf.reduce_max(tf.concat([matches.lengths, [1]], 0))
        pieces = self._pieces_by_end(matches, layout, longest)
        lengths = tf.gather(_best_lengths(tf.gather(self.scores, pieces), layout), layout.rows)
        last = tf.where(_on_best_path(lengths, layout))[:, 0]
        lengths = tf.gather(lengths, last)
        last = tf.cast(last, tf.int32)
        pieces = tf.gather_nd(pieces, tf.stack([tf.gather(layout.rows, last), longest - lengths], 1))
        return Segmentation(pieces, last + 1 - lengths, last + 1)

    def _pieces_by_end(self, matches: Matches, layout: "Layout", longest: tf.Tensor) -> tf.Tensor:
        """The pieces that end at each character `[rows, lengths]`, the longest first; the last one means none."""
        none, unknown = tf.size(self.scores) - 1, tf.size(self.scores) - 2
        size = tf.size(layout.rows)
        single = tf.boolean_mask(matches.starts, matches.lengths == 1)
        alone = tf.tensor_scatter_nd_update(tf.fill([size], unknown), single[:, None], tf.fill(tf.shape(single), none))
        shape = tf.stack([size, longest])
        pieces = tf.concat(
            [tf.fill([size, longest - 1], none), tf.scatter_nd(layout.rows[:, None], alone, [size])[:, None]], 1
        )
        row = tf.gather(layout.rows, matches.starts + matches.lengths - 1)
        pieces = tf.tensor_scatter_nd_update(pieces, tf.stack([row, longest - matches.lengths], 1), matches.pieces)
        return tf.reshape(pieces, shape)

    def _fused(self, text: tf.RaggedTensor, pieces: "Segmentation") -> "Found":
        """The ids of pieces; unknown ones that follow each other in a word are one token, or their bytes."""
        ids, starts, ends = tf.gather(self.ids, pieces.pieces), pieces.starts, pieces.ends
        word = tf.gather(code_points.row_numbers(text), starts)
        unknown = ids == self.unknown
        same = tf.concat([[False], unknown[1:] & unknown[:-1] & (word[1:] == word[:-1])], 0)[: tf.size(ids)]
        first = tf.where(~same)[:, 0]
        group = tf.cumsum(tf.cast(~same, tf.int32)) - 1
        word, starts = tf.gather(word, first), tf.gather(starts, first)
        ends = tf.math.segment_max(ends, group)
        literal = tf.math.segment_min(tf.cast(pieces.pieces == tf.size(self.scores) - 2, tf.int32), group) == 0
        literal &= tf.math.segment_sum(tf.ones_like(group), group) == 1
        ids = tf.gather(ids, first)
        if self.bytes is not None:
            ids, word, starts, ends = self._with_bytes(text, (ids, word, starts, ends), literal)
        counts = tf.math.bincount(word, minlength=tf.cast(text.nrows(), tf.int32), dtype=tf.int64)
        return Found(ids, starts, ends, code_points.splits_from_lengths(counts))

    def _with_bytes(self, text: tf.RaggedTensor, tokens: tuple[tf.Tensor, ...], literal: tf.Tensor):
        """The tokens with all bytes in place of unknown ones; each of these reaches over all that was unknown."""
        ids, _, starts, ends = tokens
        expanded = (ids == self.unknown) & ~literal
        byte_splits = code_points.splits_from_lengths(utf8_lengths(text.values))
        begins = tf.gather(byte_splits, starts)
        counts = tf.where(expanded, tf.gather(byte_splits, ends) - begins, 1)
        source, offset = code_points.runs(counts)
        ids, word, starts, ends, begins, expanded = (tf.gather(value, source) for value in (*tokens, begins, expanded))
        byte = tf.where(expanded, begins + offset, 0)
        character = tf.searchsorted(byte_splits, byte, side="right") - 1
        character = tf.minimum(character, tf.maximum(tf.size(text.values) - 1, 0))
        value = utf8_byte(tf.gather(text.values, character), byte - tf.gather(byte_splits, character))
        return tf.where(expanded, tf.gather(self.bytes, tf.bitwise.bitwise_and(value, 0xFF)), ids), word, starts, ends


class Segmentation(NamedTuple):
    """Pieces of all words, one after the other."""

    pieces: tf.Tensor  # [pieces]
    starts: tf.Tensor  # [pieces], the number of the first character
    ends: tf.Tensor  # [pieces], one after the last


class Found(NamedTuple):
    """Tokens of all words, one after the other."""

    ids: tf.Tensor  # [tokens]
    starts: tf.Tensor  # [tokens], the number of the first character
    ends: tf.Tensor  # [tokens], one after the last
    splits: tf.Tensor  # [words + 1], of the tokens


class Layout:
    """Characters of many rows ordered by their number in the row, within it from the longest row to the shortest.

    So a step over all rows at once is a slice, and the rows that are not at their end are the first ones.

    Attributes:
        rows: the place of each character in this order `[characters]`.
        counts: how many rows have a character of each number `[numbers]`.
        starts: where each number begins `[numbers + 1]`.
        splits: the splits of the rows `[rows + 1]`.
    """

    def __init__(self, splits: tf.Tensor):
        self.splits = tf.cast(splits, tf.int32)
        lengths = self.splits[1:] - self.splits[:-1]
        row, number = code_points.runs(lengths)
        order = tf.argsort(lengths, direction="DESCENDING", stable=True)
        rank = tf.scatter_nd(order[:, None], tf.range(tf.size(order)), tf.shape(order))
        self.counts = tf.math.bincount(number)
        self.starts = code_points.splits_from_lengths(self.counts)
        self.rows = tf.gather(self.starts, number) + tf.gather(rank, row)


def adds_exactly(scores: list[float]) -> bool:
    """Whether no sum of scores, for texts up to a million characters, is rounded in 64 bits."""
    numbers, bits = np.array(scores), 0
    while bits < SIGNIFICANT_BITS and np.any(np.ldexp(numbers, bits) % 1):
        bits += 1
    return bool(np.abs(numbers).max() <= 2.0 ** (SIGNIFICANT_BITS - LONGEST_TEXT - bits))


def _islands(text: tf.RaggedTensor, matches: Matches) -> tf.Tensor:
    """The splits of words where no piece reaches over: what lies between can be searched alone."""
    size = tf.size(text.values)
    ends = matches.starts + matches.lengths
    change = tf.concat([tf.ones_like(ends), -tf.ones_like(ends)], 0)
    change = tf.scatter_nd(tf.concat([matches.starts + 1, ends], 0)[:, None], change, [size + 1])
    free = tf.where(tf.cumsum(change) == 0)[:, 0]
    return tf.cond(size > 0, lambda: free, lambda: tf.zeros([1], tf.int64))


def _best_lengths(scores: tf.Tensor, layout: Layout) -> tf.Tensor:
    """The length of the best last piece up to each character `[rows]`; of equally good ones the longest.

    Args:
        scores: of the pieces that end at each character `[rows, lengths]`, the longest first.
        layout: the order of the rows.
    """
    longest = tf.shape(scores)[1]
    lengths = tf.range(longest, 0, -1)[None]
    lowest = tf.constant(-np.inf, scores.dtype)
    count = tf.concat([layout.counts, [0]], 0)
    before = tf.concat([tf.fill([count[0], longest - 1], lowest), tf.zeros([count[0], 1], scores.dtype)], 1)
    steps = tf.size(layout.counts)
    found = tf.TensorArray(tf.int32, steps, infer_shape=False, element_shape=[None])

    def step(number, before, found):
        here = before + scores[layout.starts[number] : layout.starts[number + 1]]
        best = tf.reduce_max(here, 1, keepdims=True)
        found = found.write(number, tf.reduce_max(tf.where(here == best, lengths, 0), 1))
        goes_on = count[number + 1]
        return number + 1, tf.concat([before[:goes_on, 1:], best[:goes_on]], 1), found

    shapes = (tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape(None))
    loop = (0, before, found)
    return tf.while_loop(lambda number, *_: number < steps, step, loop, shape_invariants=shapes)[2].concat()


def _on_best_path(lengths: tf.Tensor, layout: Layout) -> tf.Tensor:
    """True for the last characters of the best pieces `[characters]`, from the length of each one's best last piece."""
    size = tf.size(lengths)
    back = tf.concat([[0], tf.range(1, size + 1) - lengths], 0)  # 0 stands for the beginning
    marked = tf.scatter_nd(layout.splits[:, None], tf.ones_like(layout.splits), [size + 1]) > 0

    return reached(back, marked, tf.size(layout.counts))[1:]
