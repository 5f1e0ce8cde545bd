"""Unicode code points inside the TensorFlow graph, and tables over all of them read from the rust library.

Characters are a RaggedTensor `[segments, (characters)]` of int32 code points. Classes and mappings of characters are
tables with an entry for every code point, filled by asking the rust library itself, so that its version of Unicode
decides and neither RE2's nor ICU's.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

CODE_POINTS = 0x110000
PAGE = 256
SEPARATOR = "|"
CHUNK = 256
PLANE = 0x10000
# Planes 4 to 13 have never had a character, 15 and 16 are for private use: their code points are all alike.
UNIFORM_PLANES = (*range(4, 14), 15, 16)


def decode(strings: tf.Tensor) -> tf.RaggedTensor:
    """UTF-8 strings `[segments]` as code points `[segments, (characters)]`; what is not UTF-8 becomes U+FFFD."""
    return tf.strings.unicode_decode(strings, "UTF-8", errors="replace")


def encode(text: tf.RaggedTensor) -> tf.Tensor:
    """Code points `[..., (characters)]` as UTF-8 strings `[...]`."""
    return tf.strings.unicode_encode(text, "UTF-8")


def ragged(values: tf.Tensor, splits: tf.Tensor) -> tf.RaggedTensor:
    """Rows of `values` between consecutive `splits`, which are right by construction and are not checked again."""
    return tf.RaggedTensor.from_row_splits(values, splits, validate=False)


def splits_from_lengths(lengths: tf.Tensor) -> tf.Tensor:
    """Row splits `[rows + 1]` of rows of these lengths `[rows]`."""
    return tf.concat([tf.zeros([1], lengths.dtype), tf.cumsum(lengths)], 0)


def expand(lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """For items that become `lengths[i]` items each: the item each new one comes from, and its number in it."""
    source = tf.repeat(tf.range(tf.size(lengths)), lengths)
    offset = tf.range(tf.size(source)) - tf.gather(tf.cumsum(lengths, exclusive=True), source)
    return source, offset


def runs(lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As `expand`, but for lengths that differ much, in time and memory of their sum alone."""
    splits = splits_from_lengths(lengths)
    size = splits[-1]
    begins = tf.scatter_nd(splits[1:, None], tf.ones_like(lengths), [size + 1])
    source = tf.cumsum(begins[:size])
    return source, tf.range(size) - tf.gather(splits, source)


def row_numbers(text: tf.RaggedTensor) -> tf.Tensor:
    """The number of the row of each value, int32; as `value_rowids`, whose time and memory the longest row decides."""
    return runs(tf.cast(text.row_lengths(), tf.int32))[0]


def substrings(text: tf.RaggedTensor, rows: tf.Tensor, starts: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Parts of texts in UTF-8 `[parts]`; unlike `tf.strings.substr` of gathered texts it copies the parts alone.

    Args:
        text: code points `[texts, (characters)]`.
        rows: the text of each part `[parts]`.
        starts, ends: the number of its first character in the text, and of the one after its last `[parts]`, int32.
    """
    lengths = tf.maximum(ends - starts, 0)
    part, offset = runs(lengths)
    first = tf.gather(tf.cast(text.row_starts(), tf.int32), rows) + starts
    points = tf.gather(text.values, tf.gather(first, part) + offset)
    return encode(ragged(points, splits_from_lengths(tf.cast(lengths, tf.int64))))


def one_more_in_front(splits: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For rows of which some get one more item in front of the others.

    Args:
        splits: of the rows `[rows + 1]`, int64.
        wanted: the rows that get one `[rows]`.

    Returns:
        The new splits; True for the new items `[items]`; and the number of the old item at each place, for a new one
        of the item that follows it `[items]`, int32.
    """
    splits = splits + splits_from_lengths(tf.cast(wanted, splits.dtype))
    where = tf.boolean_mask(splits[:-1], wanted)
    new = tf.scatter_nd(where[:, None], tf.ones_like(where, tf.int32), [splits[-1]])
    return splits, new > 0, tf.range(tf.size(new)) - tf.cumsum(new, exclusive=True)


def probed() -> Iterator[int]:
    """The code points to ask for: all but the surrogates, of a uniform plane the first and the two non-characters."""
    single = (plane * PLANE + offset for plane in UNIFORM_PLANES for offset in (0, PLANE - 2, PLANE - 1))
    return itertools.chain(range(0xD800), range(0xE000, 4 * PLANE), range(14 * PLANE, 15 * PLANE), single)


def uniform() -> Iterator[tuple[int, range]]:
    """The first code point of each uniform plane and those that are like it."""
    return ((plane * PLANE, range(plane * PLANE + 1, (plane + 1) * PLANE - 2)) for plane in UNIFORM_PLANES)


def probe(normalize: Callable[[str], str]) -> dict[int, str]:
    """What `normalize` makes of each character alone, for the characters that it changes.

    The characters are handed over many at a time, one by one only where the separator cannot be told from the result.
    """
    changed = {}
    points = list(probed())
    for start in range(0, len(points), CHUNK):
        characters = [chr(point) for point in points[start : start + CHUNK]]
        results = normalize(SEPARATOR.join(characters)).split(SEPARATOR)
        if len(results) != len(characters):
            results = [normalize(character) for character in characters]
        for character, result in zip(characters, results, strict=True):
            if result != character:
                changed[ord(character)] = result
    for first, alike in uniform():
        if first in changed:
            changed |= dict.fromkeys(alike, changed[first])
    return changed


class CodePointTable(tf.Module):
    """A number for each code point, stored as pages of 256, equal pages once."""

    def __init__(self, values: np.ndarray):
        super().__init__()
        pages: dict[bytes, int] = {}
        first = [pages.setdefault(page.tobytes(), PAGE * len(pages)) for page in values.reshape(-1, PAGE)]
        with tf.init_scope():
            self.values = tf.constant(np.frombuffer(b"".join(pages), values.dtype))
            self.first = tf.constant(first, tf.int32)

    def __call__(self, code_points: tf.Tensor) -> tf.Tensor:
        """The numbers of `code_points` `[characters]`."""
        first = tf.gather(self.first, tf.bitwise.right_shift(code_points, 8))
        return tf.gather(self.values, first + tf.bitwise.bitwise_and(code_points, PAGE - 1))


def table(values: dict[int, int], default: int = 0) -> CodePointTable:
    """A table with `default` for the code points that `values` does not name."""
    numbers = np.full(CODE_POINTS, default, np.int32)
    numbers[list(values)] = list(values.values())
    return CodePointTable(numbers)
