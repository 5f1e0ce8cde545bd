"""A low-rank change of a dense layer."""

import keras
import numpy as np
from keras import ops

from tfheads.layers.dropout import Dropout
from tfheads.layers.part import Part, part

HALF_PRECISION = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


@part
class LowRank(Part):
    """What LoRA adds to a dense layer: two narrow products, times a scale (Hu et al. 2021).

    The scale is a variable, 0 while the change is part of the kernel: so a graph that was traced before stays right.

    Args:
        down: a `Dense` layer from the inputs to the rank, which layers that are one module elsewhere share.
        outputs: width of the dense layer's outputs.
        scale: what the change is multiplied by.
        dropout: rate on the inputs while training.
    """

    def __init__(self, down: keras.layers.Dense, outputs: int, scale: float = 1.0, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.down, self.outputs, self.scale, self.dropout = down, outputs, scale, dropout
        self.drop = Dropout(dropout, dtype=self.dtype_policy)
        self.up = narrow_dense(down.units, outputs, self.dtype_policy)
        self.factor = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(scale), dtype="float32", trainable=False, name="factor"
        )

    def call(self, inputs, training=None):
        change = self.up(self.down(self.drop(inputs, training=training)))
        return change * ops.cast(self.factor, change.dtype)

    def change(self) -> np.ndarray:
        """What is to be added to the kernel `[inputs, outputs]` in place of this layer, float32."""
        down, up = (np.asarray(layer.kernel.numpy(), "float32") for layer in (self.down, self.up))
        return down @ up * np.float32(self.factor.numpy())


def narrow_dense(inputs: int, outputs: int, dtype: keras.DTypePolicy) -> keras.layers.Dense:
    """A built dense layer of zeros without a bias, its kernel in float32 even where the model's are not."""
    policy = HALF_PRECISION.get(dtype.name, dtype)
    layer = keras.layers.Dense(outputs, use_bias=False, kernel_initializer="zeros", dtype=policy)
    layer.build((None, inputs))
    return layer
