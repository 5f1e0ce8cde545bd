"""Rows of mixed lengths go through a model with others of like length, and come back in their order."""

import numpy as np
import tensorflow as tf

from tfheads.generation.plan import Prompt
from tfheads.serving.generation import in_groups
from tfheads.serving.rows import BucketedRows, first_tokens, last_tokens
from tfheads.serving.runs import padded_by_row, runs_from


def seen(inputs: dict) -> dict[str, tf.Tensor]:
    """How many rows and columns a row was together with, and twice its ids."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    shape = tf.ones_like(ids[:, :1]) * tf.shape(ids)[None, :]
    padding = tf.reduce_all((ids == 9) == (mask == 0), axis=1)
    return {"shape": shape, "padding": padding, "twice": 2 * ids[:, :, None]}


def test_a_long_row_costs_the_others_nothing():
    lengths = [5, 700, 0, 31, 33, 1, 64, 40, 0]
    flat = np.concatenate([np.full(length, 10 + row, "int32") for row, length in enumerate(lengths)])
    ids = tf.RaggedTensor.from_row_lengths(flat, lengths)
    found = BucketedRows(seen, {"input_ids": 9}, ["twice"])({"input_ids": ids})
    short, middle = [3, 31], [3, 64]
    expected = [short, [1, 700], [0, 0], short, middle, short, middle, middle, [0, 0]]
    assert found["shape"].numpy().tolist() == expected
    assert found["padding"].numpy().tolist() == [length > 0 for length in lengths]
    np.testing.assert_array_equal(found["twice"][:, 0], 2 * flat)


def test_memory_is_bounded():
    ids = tf.RaggedTensor.from_row_lengths(tf.zeros([4096 * 7], tf.int32), [4096] * 7)
    found = BucketedRows(seen, {"input_ids": 9}, ["twice"])({"input_ids": ids})
    assert found["shape"].numpy().tolist() == [[4, 4096]] * 4 + [[3, 4096]] * 3


def test_no_rows():
    ids = tf.RaggedTensor.from_row_lengths(tf.zeros([0], tf.int32), tf.zeros([0], tf.int64))
    found = BucketedRows(seen, {"input_ids": 9}, ["twice"])({"input_ids": ids})
    assert found["shape"].shape == (0, 2) and found["twice"].shape == (0, 1)


def test_prompts_of_like_length_go_on_together():
    lengths = np.array([3, 200, 64, 1])
    prompt = Prompt(tf.zeros([4, 200], tf.int32), tf.constant(lengths, tf.int32), {})

    def tokens(part, rows):
        width = tf.shape(part.input_ids)[1]
        return tf.fill([tf.size(rows), 2], width), part.lengths

    new, made = in_groups(prompt, tokens, tf.constant(2))
    assert new.numpy().tolist() == [[64, 64], [200, 200], [64, 64], [64, 64]] and made.numpy().tolist() == [
        3,
        200,
        64,
        1,
    ]
    mask = tf.cast(tf.sequence_mask(lengths, 200), tf.int32)
    source = {"input_ids": tf.zeros([4, 200], tf.int32), "attention_mask": mask}

    def widths(part, rows):
        return tf.ones_like(part.input_ids) * tf.shape(part.source["input_ids"])[1], part.lengths

    new, _ = in_groups(Prompt(tf.ones([4, 1], tf.int32), tf.ones([4], tf.int32), source), widths, tf.constant(1))
    assert new.numpy().tolist() == [[64], [200], [64], [64]]


def test_first_and_last_tokens():
    ids = tf.ragged.constant([[1, 2, 3, 4], [], [5]])
    for cut, expected in ((last_tokens, [2, 3, 4]), (first_tokens, [1, 2, 3])):
        dense, lengths = cut(ids, 3)
        assert dense.numpy().tolist() == [expected, [0, 0, 0], [5, 0, 0]] and lengths.numpy().tolist() == [3, 0, 1]
        dense, lengths = cut(ids[:0], 3)
        assert dense.shape == (0, 0) and lengths.shape == (0,)
    assert first_tokens(ids, 3, 7)[0].numpy().tolist() == [[1, 2, 3], [7, 7, 7], [5, 7, 7]]


def test_runs():
    runs = runs_from(tf.constant([False, False, True, True, False]))
    assert [values.numpy().tolist() for values in runs] == [[0, 0, 1, 2, 2], [0, 2, 3], [1, 2, 4]]
    assert [values.shape for values in runs_from(tf.zeros([0], tf.bool))] == [(0,)] * 3
    padded = padded_by_row({"value": tf.constant([1, 2, 3])}, tf.constant([0, 0, 2]), tf.constant(3))
    assert padded["value"].numpy().tolist() == [[1, 2], [0, 0], [3, 0]] and padded["count"].numpy().tolist() == [
        2,
        0,
        1,
    ]
