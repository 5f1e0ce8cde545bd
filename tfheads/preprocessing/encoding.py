"""From the tokens of texts and pairs to rows for a model: truncation, windows, added tokens, offsets.

All of it is arithmetic on the numbers of tokens: each place of each row learns which token of a pool stands there, and
every attribute of the rows is one look-up in that pool.
"""

from typing import NamedTuple

import tensorflow as tf

from tfheads.preprocessing import code_points
from tfheads.preprocessing.aligned_text import Tokens
from tfheads.preprocessing.post_processors import Added, Template

TRUNCATIONS = ("longest_first", "only_first", "only_second", "do_not_truncate")


class Encoding(NamedTuple):
    """Rows of tokens, one window or several for each text; all that is ragged has the same `row_splits`.

    Attributes:
        input_ids: with the added ones `[windows, (length)]`, int32.
        token_type_ids: as the tokenizer's template gives them `[windows, (length)]`, int32.
        sequence_ids: 0 for the text, 1 for the pair, -1 for what was added `[windows, (length)]`, int32.
        word_ids: the number of each token's word in its text, as the rust library counts words, -1 for what was added
            `[windows, (length)]`, int32.
        starts, ends: where each token stands in its text, in characters (code points): from the first one to the one
            after the last; 0 and 0 for what was added `[windows, (length)]`, int32.
        rows: the number of the text that each window is of `[windows]`, int32.

    `word_ids`, `starts` and `ends` are None where the tokenizer itself knows no offsets.
    """

    input_ids: tf.RaggedTensor
    token_type_ids: tf.RaggedTensor
    sequence_ids: tf.RaggedTensor
    word_ids: tf.RaggedTensor | None
    starts: tf.RaggedTensor | None
    ends: tf.RaggedTensor | None
    rows: tf.Tensor


class Truncation(NamedTuple):
    """How texts are cut to the length of a row.

    Attributes:
        room: the tokens that a row has for its sequences; None for no limit.
        strategy: one of TRUNCATIONS.
        stride: how many tokens neighbouring windows share, one number or `[batch]`; None for the first window of each
            text alone.
        side: where a text is cut, "right" or "left".
    """

    room: int | None = None
    strategy: str = "longest_first"
    stride: int | tf.Tensor | None = None
    side: str = "right"


class Slice(NamedTuple):
    """The part of a sequence that stands in each window; all `[windows]`, int32.

    Attributes:
        number: 0 for the first window of a sequence.
        begin: the token it begins with, counted in its sequence.
        size: the number of tokens.
    """

    number: tf.Tensor
    begin: tf.Tensor
    size: tf.Tensor


def kept_tokens(lengths: list[tf.Tensor], truncation: Truncation) -> list[tf.Tensor]:
    """The most tokens of each sequence that a window has, by the rust library's rules.

    Args:
        lengths: the numbers of tokens of the texts, and of the pairs if there are some; each `[batch]`, int32.
        truncation: how to cut.

    Returns:
        As `lengths`.
    """
    room, strategy = truncation.room, truncation.strategy
    if room is None or strategy == "do_not_truncate":
        return lengths
    if room == 0 or len(lengths) == 1:
        return [tf.minimum(length, room) for length in lengths]
    if strategy == "longest_first":
        return longest_first(*lengths, room)
    cut = TRUNCATIONS.index(strategy) - TRUNCATIONS.index("only_first")
    too_many = tf.maximum(lengths[0] + lengths[1] - room, 0)
    message = (
        f"Argument `max_length` must leave room for at least one token of the {('text', 'pair')[cut]}, which alone is "
        f"truncated, but the {('pair', 'text')[cut]} takes all of it."
    )
    with checked(tf.reduce_all((too_many == 0) | (lengths[cut] > too_many)), message):
        kept = tf.identity(lengths[cut] - too_many)
    return [kept, lengths[1]] if cut == 0 else [lengths[0], kept]


def longest_first(first: tf.Tensor, second: tf.Tensor, room: int) -> list[tf.Tensor]:
    """The longer sequence is cut to what the shorter leaves; where that is less than the shorter has, both get half."""
    short = tf.minimum(first, second)
    fits = first + second <= room
    long_kept = tf.where(short > room, short, tf.maximum(short, room - short))
    halves = short + long_kept > room
    short_kept = tf.where(halves, room // 2, short)
    long_kept = tf.where(halves, room - room // 2, long_kept)
    swapped = first > second
    return [
        tf.where(fits, first, tf.where(swapped, long_kept, short_kept)),
        tf.where(fits, second, tf.where(swapped, short_kept, long_kept)),
    ]


def checked(condition: tf.Tensor, message: str):
    """A context whose operations wait until the condition is known to be true."""
    assertion = tf.debugging.Assert(condition, [message])
    return tf.control_dependencies([] if assertion is None else [assertion])


def windows(lengths: list[tf.Tensor], truncation: Truncation, order: tuple[int, ...]) -> tuple[tf.Tensor, list[Slice]]:
    """The row that each window is of, and its slice of each sequence.

    Where both sequences of a row overflow, each slice of one stands beside each of the other.

    Args:
        lengths: as for `kept_tokens`.
        truncation: how to cut.
        order: the numbers of the sequences from left to right.
    """
    kept = kept_tokens(lengths, truncation)
    batch = tf.size(lengths[0])
    if truncation.stride is None:
        rows, numbers = tf.range(batch), [tf.zeros([batch], tf.int32)] * len(lengths)
    else:
        counts = [window_counts(*pair, truncation.stride) for pair in zip(lengths, kept, strict=True)]
        rows, numbers = combinations([counts[number] for number in order])
        numbers = [numbers[order.index(number)] for number in range(len(lengths))]
    slices = []
    for length, most, number in zip(lengths, kept, numbers, strict=True):
        length, most = tf.gather(length, rows), tf.gather(most, rows)
        stride = 0 if truncation.stride is None else tf.gather(tf.broadcast_to(truncation.stride, [batch]), rows)
        shift = number * (most - stride)
        if truncation.side == "right":
            begin, end = shift, tf.minimum(shift + most, length)
        else:
            begin, end = tf.maximum(length - shift - most, 0), length - shift
        slices.append(Slice(number, begin, end - begin))
    return rows, slices


def window_counts(length: tf.Tensor, most: tf.Tensor, stride: int | tf.Tensor) -> tf.Tensor:
    """How many windows of at most so many tokens a sequence needs, when neighbours share `stride` tokens `[batch]`."""
    message = "Argument `stride` must be less than the tokens that truncation leaves of a text or pair"
    message += "." if tf.is_tensor(stride) else f", got {stride}."
    with checked(tf.reduce_all((length <= most) | (stride < most)), message):
        rest = tf.maximum(length - most, 0)
    step = tf.maximum(most - stride, 1)
    return 1 + (rest + step - 1) // step


def combinations(counts: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The windows of each row in the rust library's order: the row of each, and its number of each sequence's slice.

    First the first slices of both; then each later slice of the first sequence with all of the second; then the first
    one with the later ones of the second.
    """
    if len(counts) == 1:
        rows, number = code_points.runs(counts[0])
        return rows, [number]
    rows, number = code_points.runs(counts[0] * counts[1])
    second = tf.gather(counts[1], rows)
    block = (tf.gather(counts[0], rows) - 1) * second
    in_block = (number > 0) & (number <= block)
    quotient, remainder = (number - 1) // second, (number - 1) % second
    after = tf.maximum(number - block, 0)
    return rows, [tf.where(in_block, quotient + 1, 0), tf.where(in_block, remainder, tf.where(number > 0, after, 0))]


class Layout:
    """Which token of a pool stands at which place of the rows.

    Args:
        template: what stands in a row.
        tokens: of the texts, then of the pairs, which are rows behind those of the texts.
        rows, slices: as `windows` gives them.
    """

    def __init__(self, template: Template, tokens: Tokens, batch: tf.Tensor, rows: tf.Tensor, slices: list[Slice]):
        self.tokens, self.template, self.rows, self.slices = tokens, template, rows, slices
        self.added = [i for piece in template.pieces if isinstance(piece, Added) for i in piece.ids]
        first = tf.cast(tokens.ids.row_starts(), tf.int32) + len(self.added)
        sizes, begins, place = [], [], 0
        for piece in template.pieces:
            if isinstance(piece, Added):
                size, begin = tf.fill(tf.shape(rows), len(piece.ids)), tf.fill(tf.shape(rows), place)
                place += len(piece.ids)
            else:
                size = slices[piece.number].size
                begin = tf.gather(first, rows + piece.number * batch) + slices[piece.number].begin
            sizes.append(size)
            begins.append(begin)
        sizes = tf.reshape(tf.stack(sizes, 1), [-1])
        self.part, self.offset = code_points.runs(sizes)
        self.index = tf.gather(tf.reshape(tf.stack(begins, 1), [-1]), self.part) + self.offset
        ends = code_points.splits_from_lengths(tf.cast(sizes, tf.int64))
        self.row_splits = ends[:: len(template.pieces)]

    def of_tokens(self, values: tf.Tensor, added: list[int] | int) -> tf.Tensor:
        """A value of each place, from that of each token and those of what the template adds `[places]`."""
        added = [added] * len(self.added) if isinstance(added, int) else added
        return tf.gather(tf.concat([tf.constant(added, tf.int32), values], 0), self.index)

    def of_pieces(self, values: list[tf.Tensor | int]) -> tf.Tensor:
        """A value of each place, from that of each piece of the template in each window `[windows]` or alike in all."""
        values = [tf.broadcast_to(value, tf.shape(self.rows)) for value in values]
        return tf.gather(tf.reshape(tf.stack(values, 1), [-1]), self.part)

    def ragged(self, values: tf.Tensor) -> tf.RaggedTensor:
        """Values of places as rows."""
        return code_points.ragged(values, self.row_splits)

    def ids(self) -> tf.RaggedTensor:
        """The ids `[windows, (length)]`."""
        return self.ragged(self.of_tokens(self.tokens.ids.values, self.added))

    def encoding(self, trims: tuple[bool, ...]) -> Encoding:
        """All that there is to know of the rows."""
        types, sequences = [], []
        for piece in self.template.pieces:
            if isinstance(piece, Added):
                types.append(piece.type_id)
                sequences.append(-1)
            else:
                is_later = self.slices[piece.number].number > 0
                types.append(tf.where(is_later, piece.later_type_id, piece.type_id))
                sequences.append(piece.number)
        type_ids, sequence_ids = (self.ragged(self.of_pieces(values)) for values in (types, sequences))
        if self.tokens.words is None:
            return Encoding(self.ids(), type_ids, sequence_ids, None, None, None, self.rows)
        words = self.ragged(self.of_tokens(self.tokens.words, -1))
        starts, ends = map(self.ragged, self._offsets(trims))
        return Encoding(self.ids(), type_ids, sequence_ids, words, starts, ends, self.rows)

    def _offsets(self, trims: tuple[bool, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        starts, ends = self.of_tokens(self.tokens.starts, 0), self.of_tokens(self.tokens.ends, 0)
        if not trims:
            return starts, ends
        leading, trailing = self.of_tokens(self.tokens.leading, 0), self.of_tokens(self.tokens.trailing, 0)
        for space_is_added in trims:
            # A single space before a first token is none of the text's, if the tokenizer adds one there.
            is_added = ((self.offset == 0) | (starts == 0)) & (leading == 1) & space_is_added
            starts = tf.minimum(starts + tf.where(is_added, 0, leading), ends)
            ends = tf.where(ends >= trailing, tf.maximum(ends - trailing, starts), ends)
        return starts, ends
