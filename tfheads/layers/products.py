"""Products of values and a matrix, in few operations: graphs of them are made, differentiated and compiled sooner."""

import tensorflow as tf

from tfheads.layers.shapes import sizes


def matrix_product(
    x: tf.Tensor, matrix: tf.Tensor, bias: tf.Tensor | None = None, transpose: bool = False
) -> tf.Tensor:
    """`x` `[..., inputs]` times a matrix, plus a bias.

    Args:
        x: of two axes or more.
        matrix: `[inputs, outputs]`, of the dtype of `x`; `[outputs, inputs]` with `transpose`.
        bias: `[outputs]`, or None.
        transpose: whether the matrix is to be transposed.

    Returns:
        `[..., outputs]`.
    """
    inputs, outputs = matrix.shape[::-1] if transpose else matrix.shape
    rows = x if x.shape.rank == 2 else tf.reshape(x, [-1, inputs])
    rows = tf.matmul(rows, matrix, transpose_b=transpose)
    rows = rows if bias is None else tf.nn.bias_add(rows, bias)
    return rows if x.shape.rank == 2 else tf.reshape(rows, [*sizes(x)[:-1], outputs])
