"""Adafactor, which keeps little of each matrix, as Hugging Face's Trainer sets it up."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfheads")
class Adafactor(keras.optimizers.Optimizer):
    """Adafactor (Shazeer and Stern 2018) with the learning rate as it is given and without momentum.

    Of the squared gradients of a matrix the means of its rows and of its columns are kept, so that the optimizer has a
    thousandth of the weights' memory. Keras' own keeps a number for each weight, and its rate grows with the weights.
    Matrices decay; norms and biases do not.

    Args:
        learning_rate: a number or a `LearningRateSchedule`.
        weight_decay: the part of a weight that is taken away by each update, times the learning rate.
        decay_rate: the weight of the newest square at step s is `s ** decay_rate`.
        epsilon: added to the squares.
        clip_threshold: an update is scaled down to this root of its mean square.
        kwargs: as in Keras' optimizers.
    """

    def __init__(
        self,
        learning_rate=5e-5,
        weight_decay: float = 0.0,
        decay_rate: float = -0.8,
        epsilon: float = 1e-30,
        clip_threshold: float = 1.0,
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.decay_rate, self.epsilon, self.clip_threshold = decay_rate, epsilon, clip_threshold

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._squares = []
        for variable in variables:
            shape = tuple(variable.shape)
            shapes = {"square": shape} if len(shape) < 2 else {"rows": shape[:-1], "columns": (*shape[:-2], shape[-1])}
            path = variable.path.replace("/", "_")
            self._squares.append(
                [
                    self.add_variable(shape=shape, dtype="float32", name=f"{path}_{name}")
                    for name, shape in shapes.items()
                ]
            )

    def _apply_weight_decay(self, variables):
        """Nothing: `update_step` does it."""

    def update_step(self, gradient, variable, learning_rate):
        """Decays and updates one variable."""
        gradient = tf.cast(tf.convert_to_tensor(gradient), "float32")
        update = gradient * self._scale(tf.square(gradient) + self.epsilon, self._get_variable_index(variable))
        size = tf.sqrt(tf.reduce_mean(tf.square(update)))
        update /= tf.maximum(1.0, size / self.clip_threshold)
        rate, weights = tf.cast(learning_rate, "float32"), tf.cast(tf.convert_to_tensor(variable), "float32")
        if self.weight_decay and len(variable.shape) >= 2 and self._use_weight_decay(variable):
            weights *= 1.0 - rate * self.weight_decay
        variable.assign(tf.cast(weights - rate * update, variable.dtype))

    def _scale(self, squares: tf.Tensor, index: int) -> tf.Tensor:
        """What a gradient is multiplied by, after its squares have joined the means."""
        newest = tf.cast(self.iterations + 1, "float32") ** self.decay_rate
        kept = [mean.value for mean in self._squares[index]]
        seen = [squares] if len(kept) == 1 else [tf.reduce_mean(squares, -1), tf.reduce_mean(squares, -2)]
        means = []
        for mean, new in zip(kept, seen, strict=True):
            means.append(mean + newest * (new - mean))
            mean.assign(means[-1])
        if len(means) == 1:
            return tf.math.rsqrt(means[0])
        rows, columns = means
        rows /= tf.reduce_mean(rows, -1, keepdims=True)
        return tf.math.rsqrt(rows)[..., None] * tf.math.rsqrt(columns)[..., None, :]

    def get_config(self) -> dict:
        names = ("decay_rate", "epsilon", "clip_threshold")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
