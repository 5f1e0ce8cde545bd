"""Dense layers as parts use them, with the product of a single row spread over the processor's cores."""

import os

import keras
import tensorflow as tf
from keras import ops

from tfheads.layers.column_blocks import blocks_of
from tfheads.layers.compilation import under_xla_on_cpu
from tfheads.layers.part import matrix_initializer


@keras.saving.register_keras_serializable("tfheads")
class Projection(keras.layers.Dense):
    """A `Dense` layer, kernel `[inputs, outputs]`, that decodes one row with all cores of a CPU.

    XLA's product of a vector and a matrix runs on one core, which cannot read memory as fast as several can. Cut along
    the inputs, it is a product for each core and a sum.

    Attributes:
        adapter: a layer whose outputs are added, or None.
        attachments: how often an adapter of any layer has come or gone; graphs that were traced before do not fit.
    """

    adapter: keras.layers.Layer | None = None
    attachments: int = 0

    def attach(self, adapter: keras.layers.Layer | None) -> None:
        """Puts an adapter in place of the one before; None removes it."""
        self._tracker.unlock()  # Keras takes no new layers after the weights exist
        if self.adapter is not None:
            self._tracker.untrack(self.adapter)
        self.adapter = adapter
        self._tracker.lock()
        Projection.attachments += 1

    def call(self, inputs, training=None):
        outputs = self._product(inputs, training)
        return outputs if self.adapter is None else outputs + self.adapter(inputs, training=training)

    def _product(self, inputs, training):
        parts, blocks = row_parts(inputs.shape, self.kernel.shape[0]), blocks_of(self.kernel)
        if self.quantization_mode is not None or (parts == 1 and blocks is None):
            return super().call(inputs, training=training)
        if blocks is not None:
            outputs = blocks.product(ops.cast(inputs, self.compute_dtype))
        else:
            kernel = ops.reshape(ops.cast(self.kernel, self.compute_dtype), (parts, -1, self.units))
            row = ops.reshape(ops.cast(inputs, self.compute_dtype), (parts, 1, -1))
            outputs = ops.reshape(ops.sum(ops.matmul(row, kernel), axis=0), (*inputs.shape[:-1], self.units))
        if self.use_bias:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)


def row_parts(shape: tf.TensorShape, width: int) -> int:
    """Into how many parts the product of inputs of this shape is cut: 1 unless they are one row under XLA on a CPU."""
    if None in tuple(shape) or tf.TensorShape(shape[:-1]).num_elements() != 1 or not under_xla_on_cpu():
        return 1
    parts = 1
    while parts * 2 <= (os.cpu_count() or 1) and width % (parts * 2) == 0 and width // (parts * 2) >= 128:
        parts *= 2
    return parts


def dense(inputs: int, outputs: int, use_bias: bool = True, dtype=None) -> Projection:
    """A built dense layer, kernel `[inputs, outputs]`."""
    layer = Projection(outputs, use_bias=use_bias, kernel_initializer=matrix_initializer(), dtype=dtype)
    layer.build((None, inputs))
    return layer
