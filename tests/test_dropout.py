"""Dropout: its rate, its scale, and masks that look like chance."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfheads.layers.dropout import Dropout, uniform_bits


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_scale(rate):
    dropped = Dropout(rate, seed=1)(tf.ones((50, 40, 100)), training=True).numpy()
    kept = dropped != 0
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / kept.size)
    np.testing.assert_allclose(dropped[kept], 1 / (1 - rate), rtol=1e-6)


def test_nothing_is_dropped_outside_training():
    values = tf.random.stateless_normal((3, 4), [1, 2])
    assert Dropout(0.5)(values) is values
    assert Dropout(0.0)(values, training=True) is values


def test_masks_differ_from_call_to_call_and_repeat_with_the_seed():
    def masks():
        keras.utils.set_random_seed(3)
        layer = Dropout(0.5)
        return [layer(tf.ones((8, 64)), training=True).numpy() for _ in range(2)]

    (first, second), again = masks(), masks()
    assert 0.3 < (first != second).mean() < 0.7
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(second, again[1])


def test_xla_draws_the_same_mask():
    eager, compiled = Dropout(0.3, seed=5), Dropout(0.3, seed=5)
    run = tf.function(lambda x: compiled(x, training=True), jit_compile=True)
    np.testing.assert_allclose(eager(tf.ones((8, 64)), training=True), run(tf.ones((8, 64))), rtol=1e-6)


def test_bits_are_uniform_and_independent():
    rows = [uniform_bits(tf.constant([1 << 16]), tf.constant([7, step], tf.uint32)).numpy() for step in range(4)]
    for row in rows:
        counts = np.bincount(row >> 24, minlength=256)
        chi_square = ((counts - 256) ** 2 / 256).sum()
        assert 170 < chi_square < 350  # 255 degrees of freedom: far beyond one in a million on either side
        neighbours = np.corrcoef(row[:-1].astype(float), row[1:].astype(float))[0, 1]
        assert abs(neighbours) < 0.02
    for one, other in zip(rows[:-1], rows[1:], strict=True):
        assert abs(np.corrcoef(one.astype(float), other.astype(float))[0, 1]) < 0.02
        assert len(set(one.tolist()) & set(other.tolist())) < 10


def test_gradient_flows_through_kept_values_only():
    values = tf.Variable(tf.ones((4, 100)))
    with tf.GradientTape() as tape:
        dropped = Dropout(0.5, seed=2)(values, training=True)
    gradient = tape.gradient(dropped, values).numpy()
    np.testing.assert_allclose(gradient, dropped.numpy())
