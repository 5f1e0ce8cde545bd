"""Changes of layout between a checkpoint's tensors and a layer's variables, each with its inverse."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np


class Operation(Protocol):
    """Turns the tensors of a checkpoint into values of variables and back, exactly.

    Attributes:
        outputs_first: whether a matrix of the checkpoint is `[outputs, inputs]`; a variable is `[inputs, outputs]`.
    """

    outputs_first: ClassVar[bool]

    def to_variables(self, tensors: list[np.ndarray]) -> list[np.ndarray]: ...

    def to_tensors(self, values: list[np.ndarray]) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class Same:
    """One tensor, one variable, the same layout."""

    outputs_first: ClassVar[bool] = False

    def to_variables(self, tensors):
        return tensors

    def to_tensors(self, values):
        return values


@dataclass(frozen=True)
class Row:
    """The tensor has a first axis of 1, which the variable lacks."""

    outputs_first: ClassVar[bool] = False

    def to_variables(self, tensors):
        return [tensor[0] for tensor in tensors]

    def to_tensors(self, values):
        return [value[None] for value in values]


@dataclass(frozen=True)
class Transposed:
    """PyTorch's linear layers keep `[out, in]`, Keras' `[in, out]`."""

    outputs_first: ClassVar[bool] = True

    def to_variables(self, tensors):
        return [np.swapaxes(tensor, 0, 1) for tensor in tensors]

    def to_tensors(self, values):
        return [np.swapaxes(value, 0, 1) for value in values]


@dataclass(frozen=True)
class TransposedPairs:
    """As `Transposed`, and the first `width` outputs of each head are pairs of coordinates.

    The tensor has the two of a pair side by side (rotary positions as in Su et al. 2021), the variable has all first
    ones before all second ones, as `tfheads.layers.rotary.rotated` wants them. Scores do not change by an order that
    queries and keys share.
    """

    outputs_first: ClassVar[bool] = True

    heads: int
    width: int

    def to_variables(self, tensors):
        return [tensor[self._order(len(tensor))].T for tensor in tensors]

    def to_tensors(self, values):
        return [value.T[np.argsort(self._order(value.shape[-1]))] for value in values]

    def _order(self, outputs: int) -> np.ndarray:
        """Which output of the tensor each output of the variable is."""
        one = np.arange(outputs // self.heads)
        pairs, rest = one[: self.width], one[self.width :]
        head = np.concatenate([pairs[::2], pairs[1::2], rest])
        return (np.arange(0, outputs, len(one))[:, None] + head).ravel()


@dataclass(frozen=True)
class Fused:
    """One tensor holds several variables side by side on its last axis, `widths` wide."""

    outputs_first: ClassVar[bool] = False

    widths: tuple[int, ...]

    def to_variables(self, tensors):
        return np.split(tensors[0], np.cumsum(self.widths)[:-1], axis=-1)

    def to_tensors(self, values):
        return [np.concatenate(values, axis=-1)]


@dataclass(frozen=True)
class FusedByHead:
    """One tensor holds several variables, those of a head together: `[heads * parts * width, ...]`."""

    outputs_first: ClassVar[bool] = True

    heads: int
    parts: int

    def to_variables(self, tensors):
        grouped = tensors[0].reshape(self.heads, self.parts, -1, *tensors[0].shape[1:])
        return [grouped[:, index].reshape(-1, *grouped.shape[3:]).T for index in range(self.parts)]

    def to_tensors(self, values):
        rows = [value.T.reshape(self.heads, -1, *value.shape[:-1]) for value in values]
        stacked = np.stack(rows, axis=1)
        return [stacked.reshape(-1, *stacked.shape[3:])]
