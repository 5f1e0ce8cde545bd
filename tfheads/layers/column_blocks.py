"""Matrices cut into blocks of columns: TensorFlow without XLA multiplies few rows by them as fast as memory is read."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar

import tensorflow as tf

from tfheads.layers.compilation import under_xla
from tfheads.layers.rows import row_product
from tfheads.layers.shapes import sizes

WIDTH = 32  # as wide as is fast for one row and for several, measured in docs/benchmarks.md

_cut: ContextVar[Mapping[int, "ColumnBlocks"]] = ContextVar("cut", default={})  # noqa: B039 - nobody changes it


class ColumnBlocks:
    """A matrix `[inputs, outputs]`, its columns in blocks `[blocks, inputs, 32]` that are each one piece of memory.

    TensorFlow multiplies one row by a matrix on one core, which reads many pieces of memory at once and slowly. A
    product for each block runs on all cores, and each reads its memory from the beginning to the end.

    Args:
        matrix: `[inputs, outputs]`; what is kept is a copy.
    """

    def __init__(self, matrix: tf.Tensor):
        self.inputs, self.outputs = matrix.shape
        matrix = tf.pad(matrix, [[0, 0], [0, -self.outputs % WIDTH]])
        blocks = tf.transpose(tf.reshape(matrix, [self.inputs, -1, WIDTH]), [1, 0, 2])
        self.variable = tf.Variable(blocks, trainable=False)

    def product(self, x: tf.Tensor) -> tf.Tensor:
        """`x` `[..., inputs]` times the matrix, `[..., outputs]`, in the dtype of `x`."""
        blocks = tf.cast(self.variable, x.dtype)
        rows = tf.reshape(x, [1, -1, self.inputs])
        if x.shape[:-1].num_elements() == 1:
            made = row_product(rows, blocks)
        else:
            made = tf.transpose(tf.matmul(rows, blocks), [1, 0, 2])
        made = tf.reshape(made, [*sizes(x)[:-1], blocks.shape[0] * WIDTH])
        return made if made.shape[-1] == self.outputs else made[..., : self.outputs]


@contextlib.contextmanager
def reading(cut: Mapping[int, ColumnBlocks]) -> Iterator[None]:
    """Scope in which what is traced reads these blocks in place of the variables with these ids."""
    token = _cut.set(cut)
    try:
        yield
    finally:
        _cut.reset(token)


def blocks_of(variable) -> ColumnBlocks | None:
    """The blocks that are read in place of a variable; None if there are none, and under XLA, which needs none."""
    return None if under_xla() else _cut.get().get(id(variable))


def table_or_blocks(table) -> "tf.Tensor | ColumnBlocks":
    """A table of tokens `[vocabulary, hidden]` for a head: the blocks of what it is transposed, or a tensor."""
    return blocks_of(table) or tf.convert_to_tensor(table)


def cut(matrices: Collection, tables: Collection) -> dict[int, ColumnBlocks]:
    """Blocks of variables, by the variables' ids: of matrices, and of tables `[outputs, inputs]`."""
    blocks = {id(one): ColumnBlocks(tf.convert_to_tensor(one)) for one in matrices}
    return {**blocks, **{id(one): ColumnBlocks(tf.transpose(tf.convert_to_tensor(one))) for one in tables}}
