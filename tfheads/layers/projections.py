"""Dense layers as parts use them, with the product of a single row spread over the processor's cores."""

import os

import keras
import tensorflow as tf
from keras import ops

from tfheads.layers.column_blocks import blocks_of
from tfheads.layers.compilation import under_xla_on_cpu
from tfheads.layers.part import Drawn
from tfheads.layers.products import matrix_product


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
            del self.adapter  # TensorFlow's checkpoints would go on holding what None replaces
        if adapter is not None:
            self.adapter = adapter
        self._tracker.lock()
        Projection.attachments += 1

    def call(self, inputs, training=None):
        outputs = self._product(inputs, training)
        return outputs if self.adapter is None else outputs + self.adapter(inputs, training=training)

    def _product(self, inputs, training):
        if self.quantization_mode is not None:
            return super().call(inputs, training=training)
        inputs = ops.cast(inputs, self.compute_dtype)
        bias = ops.cast(self.bias, self.compute_dtype) if self.use_bias else None
        parts, blocks = row_parts(inputs.shape, self.kernel.shape[0]), blocks_of(self.kernel)
        if parts == 1 and blocks is None:
            outputs = matrix_product(inputs, ops.cast(self.kernel, self.compute_dtype), bias)
        else:
            outputs = blocks.product(inputs) if blocks is not None else self._row_product(inputs, parts)
            outputs = outputs if bias is None else outputs + bias
        return outputs if self.activation is None else self.activation(outputs)

    def _row_product(self, row, parts):
        kernel = ops.reshape(ops.cast(self.kernel, self.compute_dtype), (parts, -1, self.units))
        product = ops.sum(ops.matmul(ops.reshape(row, (parts, 1, -1)), kernel), axis=0)
        return ops.reshape(product, (*row.shape[:-1], self.units))


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
    layer = Projection(outputs, use_bias=use_bias, kernel_initializer=Drawn(), dtype=dtype)
    layer.build((None, inputs))
    return layer
