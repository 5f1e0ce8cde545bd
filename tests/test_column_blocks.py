"""Matrices in blocks of columns, and the operations on single rows: the numbers of the plain ones."""

import numpy as np
import pytest
import tensorflow as tf

from tfheads.layers.column_blocks import ColumnBlocks, blocks_of, cut, reading, table_or_blocks
from tfheads.layers.projections import dense
from tfheads.layers.rows import row_product, row_softmax


@pytest.mark.parametrize("outputs", [5, 32, 70])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (2, 2, 3), (0, 1)])
def test_products_are_those_of_the_matrix(outputs, shape):
    random = np.random.RandomState(0)
    matrix, x = (random.randn(*one).astype("float32") for one in ((24, outputs), (*shape, 24)))
    product = tf.function(ColumnBlocks(tf.constant(matrix)).product)
    for given in (tf.constant(x), tf.TensorSpec([None] * len(shape) + [24])):
        concrete = product.get_concrete_function(given)
        assert concrete.structured_outputs.shape[-1] == outputs
        np.testing.assert_allclose(concrete(tf.constant(x)), x @ matrix, atol=1e-5)


def test_a_layer_reads_blocks_within_the_scope_alone_and_not_under_xla():
    layer, table = dense(8, 40), tf.Variable(tf.random.normal([6, 8]))
    x, plain = tf.ones([1, 8]), layer(tf.ones([1, 8]))
    blocks = cut([layer.kernel], [table])
    layer.kernel.assign(tf.zeros([8, 40]))
    with reading(blocks):
        np.testing.assert_allclose(layer(x), plain, atol=1e-5)
        np.testing.assert_allclose(table_or_blocks(table).product(x), tf.matmul(x, table, transpose_b=True), atol=1e-5)
        compiled = tf.function(lambda x: layer(x) + (0.0 if blocks_of(layer.kernel) is None else 1.0), jit_compile=True)
        np.testing.assert_array_equal(compiled(x), tf.broadcast_to(layer.bias, [1, 40]))
    np.testing.assert_array_equal(layer(x), tf.broadcast_to(layer.bias, [1, 40]))
    assert table_or_blocks(table).shape == [6, 8]


def test_operations_on_single_rows():
    x, y = tf.random.normal([2, 3, 1, 8]), tf.random.normal([2, 3, 5, 8])
    scores = tf.matmul(x, y, transpose_b=True)
    np.testing.assert_allclose(row_product(x, y, transpose_b=True), scores, atol=1e-5)
    np.testing.assert_allclose(row_softmax(scores), tf.nn.softmax(scores), atol=1e-6)
    np.testing.assert_allclose(row_product(tf.cast(x, "bfloat16"), tf.cast(y, "bfloat16"), True), scores, atol=0.2)
