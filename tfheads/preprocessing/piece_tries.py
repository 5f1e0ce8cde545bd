"""Where the pieces of a vocabulary stand in many words at once, inside the graph."""

import itertools
from collections import Counter
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfheads.preprocessing import code_points
from tfheads.tries import trie

SHIFT = 21  # bits of a code point
NOWHERE = -1
WINDOW, TRIES = 512, 4  # places that are looked at together for a node of a double array, and how often


class Matches(NamedTuple):
    """Pieces in a row of characters."""

    starts: tf.Tensor  # [matches], the number of the first character
    lengths: tf.Tensor  # [matches], in characters
    pieces: tf.Tensor  # [matches]


class PieceTrie(tf.Module):
    """A trie of pieces; all places of a text are followed at once, a character further at every step.

    It is a double array: the child of a node for a character has the number `bases[node] + character`, if the node is
    the `parents` of that number.

    Args:
        pieces: the pieces, all different, none empty.
    """

    def __init__(self, pieces: list[str]):
        super().__init__()
        frequent = Counter("".join(pieces)).most_common()  # small numbers for these need the least room
        alphabet = {character: number for number, (character, _) in enumerate(frequent, 1)}
        bases, parents, numbers = double_array([[alphabet[character] for character in piece] for piece in pieces])
        self.characters = code_points.table({ord(character): number for character, number in alphabet.items()})
        with tf.init_scope():
            self.bases, self.parents = tf.constant(bases), tf.constant(parents)
            self.numbers = tf.constant(numbers)

    def _children(self, nodes: tf.Tensor, characters: tf.Tensor) -> tf.Tensor:
        """The children of nodes for characters, NOWHERE where there is none."""
        children = tf.gather(self.bases, nodes) + characters
        return tf.where(tf.gather(self.parents, children) == nodes, children, NOWHERE)

    def __call__(self, text: tf.RaggedTensor) -> Matches:
        """All pieces in words `[words, (characters)]`; the order of the matches is by length, then by place."""
        characters = self.characters(text.values)
        size = tf.size(characters)
        ends = tf.gather(tf.cast(text.row_splits[1:], tf.int32), code_points.row_numbers(text))
        places, nodes = tf.range(size), self._children(tf.zeros([size], tf.int32), characters)
        length, found = tf.constant(1), tf.TensorArray(tf.int32, 0, True, infer_shape=False, element_shape=[None, 3])

        def step(length, places, nodes, found):
            alive = nodes != NOWHERE
            places, nodes = tf.boolean_mask(places, alive), tf.boolean_mask(nodes, alive)
            pieces = tf.gather(self.numbers, nodes)
            matched = tf.stack([places, tf.fill([tf.size(places)], length), pieces], 1)
            found = found.write(length - 1, tf.boolean_mask(matched, pieces != NOWHERE))
            goes_on = places + length < tf.gather(ends, places)
            places, nodes = tf.boolean_mask(places, goes_on), tf.boolean_mask(nodes, goes_on)
            return length + 1, places, self._children(nodes, tf.gather(characters, places + length)), found

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


def double_array(keys: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A double array of sequences of numbers from 1.

    Returns:
        The base of each node (the root is 0), its parent, and the number of the key that ends there, otherwise NOWHERE.
    """
    children, ends = trie(keys)
    highest = max((max(key) for key in keys), default=1)
    used = np.zeros(2 * len(children) + 2 * highest + WINDOW, bool)
    used[: highest + 1] = True  # so that no base is negative
    places, bases = np.zeros(len(children), np.int64), np.zeros(len(children), np.int64)
    inner = sorted((node for node in range(len(children)) if children[node]), key=lambda node: -len(children[node]))
    start, top = 0, highest + 1
    for node in inner:
        wanted = np.array(sorted(children[node]))
        base, start, used = _free_base(wanted, start, max(start, top - highest), used)
        used[base + wanted] = True
        top = max(top, base + int(wanted[-1]) + 1)
        bases[node] = base
        for character, child in children[node].items():
            places[child] = base + character
    size = int(np.flatnonzero(used)[-1]) + highest + 2
    at = np.zeros((3, size), np.int32)
    at[1:] = NOWHERE
    at[0, places], at[2, places] = bases, ends
    for node in inner:
        at[1, bases[node] + np.array(list(children[node]))] = places[node]
    return at[0], at[1], at[2]


def _free_base(wanted: np.ndarray, start: int, end: int, used: np.ndarray) -> tuple[int, int, np.ndarray]:
    """A base for which all wanted places are free, where to search next, and the places, more if they were too few.

    A few windows from `start` on are searched, then those from `end` on, where there is room.
    """
    crowded = np.count_nonzero(used[start : start + WINDOW]) > WINDOW - WINDOW // 16
    following = start + WINDOW // 2 if crowded else start
    for at in itertools.chain(range(start, end, WINDOW)[:TRIES], itertools.count(end, WINDOW)):
        if at + WINDOW + int(wanted[-1]) >= len(used):
            used = np.concatenate([used, np.zeros(len(used), bool)])
        bases = at + np.flatnonzero(~used[at : at + WINDOW]) - wanted[0]
        found = np.flatnonzero(~used[bases[:, None] + wanted[1:]].any(1))
        if len(found):
            return int(bases[found[0]]), following, used
    raise AssertionError  # there is always room behind everything else


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
