"""Where the pieces of a vocabulary stand in many words at once, inside the graph."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfheads.preprocessing import code_points

SHIFT = 21  # bits of a code point
NOWHERE = -1


class Matches(NamedTuple):
    """Pieces in a row of characters."""

    starts: tf.Tensor  # [matches], the number of the first character
    lengths: tf.Tensor  # [matches], in characters
    pieces: tf.Tensor  # [matches]


class PieceTrie(tf.Module):
    """A trie of pieces; all places of a text are followed at once, a character further at every step.

    Args:
        pieces: the pieces, all different, none empty.
    """

    def __init__(self, pieces: list[str]):
        super().__init__()
        first: dict[int, int] = {}
        following: dict[int, int] = {}
        node_pieces: list[int] = [NOWHERE]
        for number, piece in enumerate(pieces):
            node = 0
            for offset, character in enumerate(piece):
                edges, key = (first, ord(character)) if offset == 0 else (following, node << SHIFT | ord(character))
                node = edges.get(key, NOWHERE)
                if node == NOWHERE:
                    node = edges[key] = len(node_pieces)
                    node_pieces.append(NOWHERE)
            node_pieces[node] = number
        self.longest = max(map(len, pieces), default=0)
        self.first = code_points.table(first, NOWHERE)
        self.following = HashTable(following)
        with tf.init_scope():
            self.pieces = tf.constant(node_pieces, tf.int32)

    def __call__(self, text: tf.RaggedTensor) -> Matches:
        """All pieces in words `[words, (characters)]`; the order of the matches is by length, then by place."""
        points = text.values
        size = tf.size(points)
        ends = tf.gather(tf.cast(text.row_splits[1:], tf.int32), code_points.row_numbers(text))
        places, nodes = tf.range(size), self.first(points)
        length, found = tf.constant(1), tf.TensorArray(tf.int32, 0, True, infer_shape=False, element_shape=[None, 3])

        def step(length, places, nodes, found):
            alive = nodes != NOWHERE
            places, nodes = tf.boolean_mask(places, alive), tf.boolean_mask(nodes, alive)
            pieces = tf.gather(self.pieces, nodes)
            matched = tf.stack([places, tf.fill([tf.size(places)], length), pieces], 1)
            found = found.write(length - 1, tf.boolean_mask(matched, pieces != NOWHERE))
            goes_on = places + length < tf.gather(ends, places)
            places, nodes = tf.boolean_mask(places, goes_on), tf.boolean_mask(nodes, goes_on)
            key = tf.bitwise.left_shift(tf.cast(nodes, tf.int64), tf.constant(SHIFT, tf.int64))
            key += tf.cast(tf.gather(points, places + length), tf.int64)
            return length + 1, places, self.following(key), found

        loop = (length, places, nodes, found)
        shapes = (length.shape, tf.TensorShape([None]), tf.TensorShape([None]), None)
        found = tf.while_loop(
            lambda length, places, nodes, found: (tf.size(places) > 0) | (length == 1),
            step,
            loop,
            shape_invariants=(*shapes[:3], tf.TensorShape(None)),
        )[3]
        starts, lengths, pieces = tf.unstack(found.concat(), 3, axis=1)
        return Matches(starts, lengths, pieces)


class HashTable(tf.Module):
    """Numbers by key: open addressing in two arrays, so that a search is a few gathers over all keys at once."""

    def __init__(self, values: dict[int, int]):
        super().__init__()
        bits = max(8, (4 * len(values)).bit_length())
        self.shift = 64 - bits
        keys = np.array(list(values), np.int64)
        table, numbers = np.full((1 << bits) + 64, -1, np.int64), np.full((1 << bits) + 64, NOWHERE, np.int32)
        place = (keys.view(np.uint64) * np.uint64(MULTIPLIER) >> np.uint64(self.shift)).astype(np.int64)
        content = np.array(list(values.values()), np.int32)
        left, self.probes = np.arange(len(keys)), 1
        while True:
            at = place[left]
            free = table[at] == -1
            table[at[free]] = keys[left[free]]  # of keys for one place the last one stays
            settled = table[at] == keys[left]
            numbers[at[settled]] = content[left[settled]]
            left = left[~settled]
            if not len(left):
                break
            place[left] += 1
            self.probes += 1
        with tf.init_scope():
            self.keys, self.numbers = tf.constant(table), tf.constant(numbers)

    def __call__(self, keys: tf.Tensor) -> tf.Tensor:
        """The numbers of `keys` `[keys]`, NOWHERE for other keys."""
        hashed = tf.cast(keys, tf.uint64) * tf.constant(MULTIPLIER, tf.uint64)
        place = tf.cast(tf.bitwise.right_shift(hashed, tf.constant(self.shift, tf.uint64)), tf.int32)
        number = tf.fill(tf.shape(keys), NOWHERE)
        for probe in range(self.probes):
            here = tf.gather(self.keys, place + probe) == keys
            number = tf.where(here, tf.gather(self.numbers, place + probe), number)
        return number


MULTIPLIER = 0x9E3779B97F4A7C15  # 2 ** 64 divided by the golden ratio spreads consecutive keys
