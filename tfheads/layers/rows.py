"""Small operations on the single rows of decoding, outside XLA on a CPU.

TensorFlow gives products and softmax to oneDNN, which lets all threads wait for each other: longer than a row takes.
"""

import tensorflow as tf

from tfheads.layers.compilation import only_cpus, under_xla


def is_row(shape: tf.TensorShape) -> bool:
    """Whether values `[..., time, width]` of this shape are rows that are decoded one by one by a CPU without XLA."""
    return shape[-2] == 1 and not under_xla() and only_cpus()


def row_product(x: tf.Tensor, y: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """`tf.matmul` of rows `[..., 1, inputs]` and matrices; `BatchMatMulV3` is never oneDNN's if it is float32."""
    if x.dtype != tf.float32 or not is_row(x.shape):
        return tf.matmul(x, y, transpose_b=transpose_b)
    return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=tf.float32, adj_y=transpose_b)


def row_softmax(x: tf.Tensor) -> tf.Tensor:
    """`tf.nn.softmax` over the last axis."""
    return tf.exp(tf.nn.log_softmax(x)) if is_row(x.shape) else tf.nn.softmax(x)
