"""Overlapping windows over rows that are longer than a model's positions, and encoding them a few at a time."""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from tfheads.layers.shapes import sizes
from tfheads.tasks.packing import lengths, packed


def count(length, window: int, stride: int):
    """How many windows cover `length` tokens: a number for a number, a tensor for a tensor."""
    if tf.is_tensor(length):
        return 1 + tf.maximum(0, -((window - length) // stride))
    return 1 + max(0, -((window - length) // stride))


def cut(
    inputs: Mapping[str, tf.Tensor], real: tf.Tensor, window: int, stride: int, fill: int
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Overlapping windows of each row's real tokens, which are moved to the left before.

    Args:
        inputs: whole numbers `[batch, time]` by name.
        real: which tokens are no padding, booleans `[batch, time]`.
        window: tokens in a window.
        stride: tokens from the start of a window to the start of the next.
        fill: token id that fills windows up.

    Returns:
        Inputs `[batch * windows, window]` with an `attention_mask`, and which windows have a token of their row that
        no window before them has, booleans `[batch, windows]`; the first one always counts.
    """
    time = sizes(real)[1]
    windows = count(time, window, stride)
    places = tf.range(windows)[:, None] * stride + tf.range(window)[None]
    used = lengths(real)
    found = {"attention_mask": tf.cast(places < used[:, None, None], tf.int32)}
    for name, value in inputs.items():
        value = packed(value, real, fill if name == "input_ids" else 0)
        last = (windows - 1) * stride + window
        value = tf.pad(value, [[0, 0], [0, last - time]], constant_values=fill if name == "input_ids" else 0)
        found[name] = tf.gather(value, places, axis=1)
    found = {name: tf.reshape(value, [-1, window]) for name, value in found.items()}
    first = tf.range(windows)
    return found, (first == 0) | ((first - 1) * stride + window < used[:, None])


class Bounded:
    """Encodes rows at most `budget` at a time, forward and backward.

    The backward pass encodes each part again, so that the activations of one part are all that there is at any time;
    the gradients of the weights are added up from part to part. Dropout repeats its masks: each part has its own state
    of the random numbers.

    Args:
        encode: from inputs `[rows, time]` by name to vectors `[rows, width]`.
        variables: the weights that it uses.
        random_states: the states of the random numbers that it draws; two numbers each, the second one counts.
        width: of the vectors.
        dtype: of the vectors.
        budget: how many rows go through `encode` at a time.
    """

    def __init__(
        self,
        encode: Callable[[Mapping[str, tf.Tensor]], tf.Tensor],
        variables: Sequence[keras.Variable],
        random_states: Sequence[keras.Variable],
        width: int,
        dtype: str,
        budget: int,
    ):
        self.encode, self.variables, self.random_states = encode, list(variables), list(random_states)
        self.width, self.dtype, self.budget = width, dtype, budget

    def __call__(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Vectors `[rows, width]` of inputs `[rows, time]`."""
        rows = inputs["input_ids"].shape[0]
        if rows is not None and rows <= self.budget:
            return self.encode(inputs)
        rows = tf.shape(inputs["input_ids"])[0] if rows is None else rows
        parts = -(-rows // self.budget)
        size = -(-rows // parts) if isinstance(rows, int) else tf.maximum(1, -(-rows // tf.maximum(1, parts)))

        def divided(value):
            value = tf.pad(value, [[0, parts * size - rows], [0, 0]])
            return tf.reshape(value, [parts, size, value.shape[1]])

        vectors = self._of_parts({name: divided(value) for name, value in inputs.items()}, parts, size)
        return tf.reshape(vectors, [-1, self.width])[:rows]

    def _of_parts(self, inputs, parts, size) -> tf.Tensor:
        """Vectors `[parts, size, width]`."""
        states = [tf.identity(state.value) for state in self.random_states]
        trained = [index for index, variable in enumerate(self.variables) if variable.trainable]

        def encoded(index, values):
            part = {name: value[index] for name, value in inputs.items()}
            moved = [state + tf.stack([0, tf.cast(index, state.dtype)]) for state in states]
            known = [*zip(self.variables, values, strict=True), *zip(self.random_states, moved, strict=True)]
            with keras.StatelessScope(state_mapping=known):
                return tf.reshape(self.encode(part), [size, self.width])

        @tf.custom_gradient
        def vectors(*values):
            made = tf.map_fn(
                lambda index: encoded(index, values),
                tf.range(parts),
                fn_output_signature=tf.TensorSpec([None, self.width], self.dtype),
            )

            def gradients(upstream):
                def add(index, *sums):
                    wanted = [values[place] for place in trained]
                    with tf.GradientTape() as tape:
                        tape.watch(wanted)
                        made = encoded(index, values)
                    found = tape.gradient(
                        made, wanted, upstream[index], unconnected_gradients=tf.UnconnectedGradients.ZERO
                    )
                    return index + 1, *(a + tf.convert_to_tensor(b) for a, b in zip(sums, found, strict=True))

                start = (0, *(tf.zeros_like(values[place]) for place in trained))
                _, *sums = tf.while_loop(lambda index, *_: index < parts, add, start)
                sums = dict(zip(trained, sums, strict=True))
                return [sums.get(place) for place in range(len(values))]

            return made, gradients

        made = vectors(*(tf.convert_to_tensor(variable.value) for variable in self.variables))
        for variable, state in zip(self.random_states, states, strict=True):
            variable.assign(state + tf.stack([0, tf.cast(parts, state.dtype)]))
        return made
