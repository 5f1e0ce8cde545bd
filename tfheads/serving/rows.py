"""Rows of tokens of any length through a model, inside the graph: those of like length together."""

from collections.abc import Callable, Collection, Mapping, Sequence

import tensorflow as tf

BUCKETS = tuple(2**power for power in range(5, 21))
TOKENS_AT_ONCE = 2**14
NO_LIMIT = 2**30


class BucketedRows:
    """A function of padded rows `[rows, time]`, applied to rows of mixed lengths.

    Rows are sorted by length and go through in a loop, those of up to 32, 64, 128, ... tokens together, padded to the
    longest of them, and no more than 16,384 tokens at once: a long row costs the others nothing, and memory is bounded.
    What comes out has the order of what went in. A row without tokens is left out; its results are 0.

    Args:
        function: from inputs by name, `attention_mask` among them, to tensors by name `[rows, ...]`, or
            `[rows, time, ...]` for the names in `per_token`; all but these axes known.
        fills: what rows are filled up with, by name of the input; it names all inputs but `attention_mask`.
        per_token: names of the results that have a value for each token.
    """

    def __init__(
        self,
        function: Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]],
        fills: Mapping[str, int],
        per_token: Collection[str] = (),
    ):
        self.fills, self.per_token = dict(fills), per_token
        inputs = {name: tf.TensorSpec([None, None], tf.int32) for name in (*fills, "attention_mask")}
        # One function: signatures that share it hold the model's graph once.
        self._function = tf.function(function, input_signature=[inputs], autograph=False)

    def __call__(self, inputs: Mapping[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        """The results of ragged inputs `[rows, (time)]`, all of the same lengths.

        Returns:
            Tensors `[rows, ...]` by name; those that are `per_token` `[all tokens, ...]`, row after row.
        """
        ids = inputs["input_ids"]
        lengths, starts = tf.cast(ids.row_lengths(), tf.int32), tf.cast(ids.row_starts(), tf.int32)
        order = tf.argsort(lengths, stable=True)
        ordered = tf.gather(lengths, order)
        values = {name: tf.cast(inputs[name].values, tf.int32) for name in self.fills}

        def advance(begin, found):
            end, longest = group(ordered, begin)
            rows, columns = order[begin:end], tf.range(longest)[None, :]
            real = columns < tf.gather(lengths, rows)[:, None]
            places = tf.where(real, tf.gather(starts, rows)[:, None] + columns, 0)
            batch = {name: tf.where(real, tf.gather(values[name], places), fill) for name, fill in self.fills.items()}
            new = self._function({**batch, "attention_mask": tf.cast(real, tf.int32)})
            return end, {name: self._put(old, new[name], name, rows, places, real) for name, old in found.items()}

        begin = tf.reduce_sum(tf.cast(ordered == 0, tf.int32))
        nothing = self._nothing(tf.size(lengths), tf.size(values["input_ids"]))
        rows = tf.size(order)
        return tf.while_loop(lambda begin, _: begin < rows, advance, (begin, nothing), parallel_iterations=1)[1]

    def _nothing(self, rows: tf.Tensor, tokens: tf.Tensor) -> dict[str, tf.Tensor]:
        """Room for the results."""
        outlines = self._function.get_concrete_function().structured_outputs
        room = {}
        for name, outline in outlines.items():
            of_tokens = name in self.per_token
            shape = outline.shape[1 + of_tokens :]
            room[name] = tf.zeros([tokens if of_tokens else rows, *shape], outline.dtype)
            room[name] = tf.ensure_shape(room[name], [None, *shape])
        return room

    def _put(self, old, new, name, rows, places, real):
        if name not in self.per_token:
            return tf.tensor_scatter_nd_update(old, rows[:, None], new)
        updates, where = tf.boolean_mask(new, real), tf.boolean_mask(places, real)
        return tf.tensor_scatter_nd_update(old, where[:, None], updates)


def group(
    ordered: tf.Tensor, begin: tf.Tensor, buckets: Sequence[int] = BUCKETS, tokens_at_once: int = TOKENS_AT_ONCE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the group of rows of like length ends that begins at `begin`, and how long its longest row is.

    Args:
        ordered: lengths of rows `[rows]`, sorted.
        begin: a scalar.
        buckets: rows up to the first of these lengths that fits are one group, sorted; longer rows are one group too.
        tokens_at_once: a group is padded to no more tokens than this, unless it is a single row.
    """
    buckets = tf.constant([*buckets, tf.int32.max])
    width = tf.gather(buckets, tf.searchsorted(buckets, ordered[begin, None])[0])
    within = tf.searchsorted(ordered, width[None], side="right")[0]
    end = tf.minimum(within, begin + tf.maximum(1, tokens_at_once // width))
    return end, ordered[end - 1]


def last_tokens(ids: tf.RaggedTensor, most) -> tuple[tf.Tensor, tf.Tensor]:
    """The last tokens of each row, at most `most`: `[batch, longest]` padded on the right with 0, and their numbers."""
    lengths = tf.minimum(tf.cast(ids.row_lengths(), tf.int32), most)
    starts = tf.cast(ids.row_limits(), tf.int32) - lengths
    return _dense(ids, starts, lengths, 0), lengths


def first_tokens(ids: tf.RaggedTensor, most, fill: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """As `last_tokens`, but the first ones; padded with `fill`."""
    lengths = tf.minimum(tf.cast(ids.row_lengths(), tf.int32), most)
    return _dense(ids, tf.cast(ids.row_starts(), tf.int32), lengths, fill), lengths


def _dense(ids: tf.RaggedTensor, starts: tf.Tensor, lengths: tf.Tensor, fill: int) -> tf.Tensor:
    """Values from `starts` on `[batch, longest]`, `fill` behind `lengths`."""
    columns = tf.range(tf.reduce_max(tf.concat([[0], lengths], 0)))[None, :]
    values = tf.concat([tf.cast(ids.values, tf.int32), [fill]], 0)
    where = tf.where(columns < lengths[:, None], starts[:, None] + columns, tf.size(values) - 1)
    return tf.gather(values, where)
