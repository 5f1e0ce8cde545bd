"""Changes of layout between a checkpoint's tensors and a layer's variables, each with its inverse."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


class Operation(ABC):
    """Turns the tensors of a checkpoint into values of variables and back, exactly.

    Attributes:
        outputs_first: whether a matrix of the checkpoint is `[outputs, inputs]`; a variable is `[inputs, outputs]`.
    """

    outputs_first: ClassVar[bool] = False

    @abstractmethod
    def to_variables(self, tensors: list[np.ndarray]) -> list[np.ndarray]:
        """The values of the variables; of some rows of the tensors, the part of the values that they become.

        Rows become rows of the variables, columns if `outputs_first`, in the same order.
        """

    @abstractmethod
    def to_tensors(self, values: list[np.ndarray]) -> list[np.ndarray]:
        """The inverse, of whole values."""

    def rows_together(self, shape: tuple[int, ...]) -> int:
        """The rows of a tensor of this shape of which `to_variables` needs a multiple."""
        return 1


@dataclass(frozen=True)
class Same(Operation):
    """One tensor, one variable, the same layout."""

    def to_variables(self, tensors):
        return tensors

    def to_tensors(self, values):
        return values


@dataclass(frozen=True)
class Row(Operation):
    """The tensor has a first axis of 1, which the variable lacks."""

    def to_variables(self, tensors):
        return [tensor[0] for tensor in tensors]

    def to_tensors(self, values):
        return [value[None] for value in values]


@dataclass(frozen=True)
class Transposed(Operation):
    """PyTorch's linear layers keep `[out, in]`, Keras' `[in, out]`."""

    outputs_first: ClassVar[bool] = True

    def to_variables(self, tensors):
        return [np.swapaxes(tensor, 0, 1) for tensor in tensors]

    def to_tensors(self, values):
        return [np.swapaxes(value, 0, 1) for value in values]


@dataclass(frozen=True)
class TransposedPairs(Operation):
    """As `Transposed`, and the first `rotated` of each head's `width` outputs are pairs of coordinates.

    The tensor has the two of a pair side by side (rotary positions as in Su et al. 2021), the variable has all first
    ones before all second ones, as `tfheads.layers.rotary.rotated` wants them. Scores do not change by an order that
    queries and keys share.
    """

    outputs_first: ClassVar[bool] = True

    width: int
    rotated: int

    def to_variables(self, tensors):
        return [tensor[self._order(len(tensor))].T for tensor in tensors]

    def to_tensors(self, values):
        return [value.T[np.argsort(self._order(value.shape[-1]))] for value in values]

    def _order(self, outputs: int) -> np.ndarray:
        """Which output of the tensor each output of the variable is."""
        one = np.arange(self.width)
        pairs, rest = one[: self.rotated], one[self.rotated :]
        head = np.concatenate([pairs[::2], pairs[1::2], rest])
        return (np.arange(0, outputs, self.width)[:, None] + head).ravel()

    def rows_together(self, shape):
        return self.width


@dataclass(frozen=True)
class Fused(Operation):
    """One tensor holds several variables side by side on its last axis, `widths` wide."""

    widths: tuple[int, ...]

    def to_variables(self, tensors):
        return np.split(tensors[0], np.cumsum(self.widths)[:-1], axis=-1)

    def to_tensors(self, values):
        return [np.concatenate(values, axis=-1)]

    def rows_together(self, shape):
        return 1 if len(shape) > 1 else shape[0]


@dataclass(frozen=True)
class FusedByHead(Operation):
    """One tensor holds several variables, those of a head, `width` wide, together: `[heads * parts * width, ...]`."""

    outputs_first: ClassVar[bool] = True

    width: int
    parts: int

    def to_variables(self, tensors):
        grouped = tensors[0].reshape(-1, self.parts, self.width, *tensors[0].shape[1:])
        return [grouped[:, index].reshape(-1, *grouped.shape[3:]).T for index in range(self.parts)]

    def to_tensors(self, values):
        rows = [value.T.reshape(-1, self.width, *value.shape[:-1]) for value in values]
        stacked = np.stack(rows, axis=1)
        return [stacked.reshape(-1, *stacked.shape[3:])]

    def rows_together(self, shape):
        return self.parts * self.width
