"""Search for a regular expression inside the graph, from all places of all texts at once.

A backtracking search tries at each place one way after the other, and takes the first that leads to the end of the
expression. Here the expression is read from its end: when it is known for each place where the match of all that
follows a part ends, if it begins there, then the same can be said of that part and what follows. A choice is the first
option that is not without a match, a repetition of single characters goes to the last place of their run from where the
rest has one. So there is an operation or two over all characters for each part of the expression, and no look-ahead is
too much for it.
"""

from functools import singledispatchmethod
from typing import NamedTuple

import tensorflow as tf

from tfheads.preprocessing import code_points, patterns
from tfheads.preprocessing.aligned_text import Text, segment_starts
from tfheads.preprocessing.chains import reached

NONE = -1


class Matches(NamedTuple):
    """What a search found.

    Attributes:
        starts: True for the first character of each match, and of each stretch between matches `[characters]`.
        matched: True for the characters of matches `[characters]`.
    """

    starts: tf.Tensor
    matched: tf.Tensor


class PatternSearch(tf.Module):
    """Finds the matches of a regular expression from left to right, as the rust library does.

    Args:
        pattern: the expression.
        component: what it belongs to, for the error.

    Raises:
        ValueError: the expression cannot be searched for in the graph.
    """

    def __init__(self, pattern: str, component: str):
        super().__init__()
        tree, classes = patterns.parsed(pattern, component)
        self._tree = lambda: tree  # as an attribute it would be tracked
        self.classes = code_points.CodePointTable(classes)

    def __call__(self, text: Text) -> Matches:
        """The matches in each segment."""
        points = text.points
        size, segments = tf.size(points.values), tf.cast(points.nrows(), tf.int32)
        # One more place behind each segment, where no character is.
        places = tf.range(size) + code_points.row_numbers(points)
        classes = tf.scatter_nd(places[:, None], self.classes(points.values), [size + segments])
        begins = tf.cast(points.row_splits, tf.int32) + tf.range(segments + 1)
        ends = tf.scatter_nd(begins[1:, None] - 1, tf.ones([segments], tf.int32), [size + segments]) > 0
        found = Search(classes).ends(self._tree())
        place = tf.range(size + segments)
        following = tf.where(found != NONE, found, tf.where(ends, place, place + 1))
        first = tf.scatter_nd(begins[:-1, None], tf.ones([segments], tf.int32), [size + segments]) > 0
        longest = tf.reduce_max(tf.concat([tf.cast(points.row_lengths(), tf.int32), [0]], 0))
        visited = reached(following, first, longest)
        begins_match = tf.gather(visited & (found != NONE), places)
        between = tf.gather(visited & (found == NONE), places)
        begins_stretch = between & (segment_starts(text) | ~tf.roll(between, 1, 0))
        return Matches(begins_match | begins_stretch, ~between)


class Search:
    """Where matches end that begin at each place.

    Args:
        classes: of the character at each place a bit for each class that it is in, 0 behind segments `[places]`.
    """

    def __init__(self, classes: tf.Tensor):
        self.classes, self.places, self._run_ends = classes, tf.range(tf.size(classes)), {}

    def ends(self, node: patterns.Node) -> tf.Tensor:
        """The place behind the match that begins at each place `[places]`, NONE where there is none."""
        return self.before(node, self.places)

    def here(self, single: patterns.Single) -> tf.Tensor:
        """True where a character is of the class."""
        return tf.bitwise.bitwise_and(self.classes, 1 << single.number) != 0

    @singledispatchmethod
    def before(self, node, rest: tf.Tensor) -> tf.Tensor:
        """Where the match of a node and of what follows it ends.

        Args:
            node: of the expression.
            rest: where the match of what follows ends, if that begins at each place `[places]`.
        """
        raise NotImplementedError

    @before.register
    def _(self, node: patterns.Single, rest: tf.Tensor) -> tf.Tensor:
        return tf.where(self.here(node), self._next(rest), NONE)

    @before.register
    def _(self, node: patterns.Sequence, rest: tf.Tensor) -> tf.Tensor:
        for part in reversed(node.parts):
            rest = self.before(part, rest)
        return rest

    @before.register
    def _(self, node: patterns.Choice, rest: tf.Tensor) -> tf.Tensor:
        found = self.before(node.options[-1], rest)
        for option in reversed(node.options[:-1]):
            found = _first(self.before(option, rest), found)
        return found

    @before.register
    def _(self, node: patterns.Repeated, rest: tf.Tensor) -> tf.Tensor:
        if node.most is None:
            found = self._any_number(node, rest)
        else:
            found = rest
            for _ in range(node.most - node.least):
                again = self.before(node.part, found)
                found = _first(rest, again) if node.lazy else _first(again, rest)
        for _ in range(node.least):
            found = self.before(node.part, found)
        return found

    @before.register
    def _(self, node: patterns.Atomic, rest: tf.Tensor) -> tf.Tensor:
        ends = self.ends(node.part)
        return tf.where(ends == NONE, NONE, tf.gather(rest, tf.maximum(ends, 0)))

    @before.register
    def _(self, node: patterns.Look, rest: tf.Tensor) -> tf.Tensor:
        found = tf.roll(self.here(node.part), 1, 0) if node.behind else self.ends(node.part) != NONE
        return tf.where(found != node.negated, rest, NONE)

    def _any_number(self, node: patterns.Repeated, rest: tf.Tensor) -> tf.Tensor:
        """Single characters up to the last place of their run, or the first, from where the rest has a match."""
        run_ends = self._ends_of_runs(node.part)
        if rest is self.places and not node.lazy:
            return run_ends
        has_match = rest != NONE
        count = tf.cumsum(tf.cast(has_match, tf.int32))
        before, until = count - tf.cast(has_match, tf.int32), tf.gather(count, run_ends)
        ends = tf.concat([tf.boolean_mask(rest, has_match), [NONE]], 0)
        chosen = before if node.lazy else until - 1
        return tf.where(until > before, tf.gather(ends, tf.maximum(chosen, 0)), NONE)

    def _ends_of_runs(self, single: patterns.Single) -> tf.Tensor:
        """The first place from each on where no character of the class is `[places]`."""
        if single.number not in self._run_ends:
            other = ~self.here(single)
            number = tf.cumsum(tf.cast(other, tf.int32), exclusive=True)
            self._run_ends[single.number] = tf.gather(tf.where(other)[:, 0], number)
            self._run_ends[single.number] = tf.cast(self._run_ends[single.number], tf.int32)
        return self._run_ends[single.number]

    def _next(self, values: tf.Tensor) -> tf.Tensor:
        """The values of the next places; that of the last place is of none."""
        return tf.roll(values, -1, 0)


def _first(found: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
    return tf.where(found != NONE, found, otherwise)
