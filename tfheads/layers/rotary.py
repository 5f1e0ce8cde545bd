"""Rotary position embeddings: queries and keys are turned by angles that grow with their positions."""

import math
from collections.abc import Mapping

import numpy as np
from keras import ops

from tfheads.layers.part import Part, part


def rotated(x, rotation: tuple):
    """`x` `[batch, heads, time, width]` turned by a `rotation`; the values behind the rotation's width stay.

    A value of the first half of that width and its partner in the second half are the coordinates of a point.
    """
    cosine, sine = rotation
    half = cosine.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return ops.concatenate(turned if x.shape[-1] == 2 * half else [*turned, rest], axis=-1)


@part
class RotaryPositions(Part):
    """The rotation of each position: cosines and sines of its angles (Su et al. 2021).

    Args:
        width: how many values of a head are rotated; of an odd number one more, as in transformers.
        base: the slowest of the wavelengths is nearly 2 pi times this.
    """

    attention_factor = 1.0  # what cosines and sines are multiplied by, and scores by its square

    def __init__(self, width: int, base: float = 10000.0, **kwargs):
        super().__init__(**kwargs)
        self.width, self.base = width, base

    def call(self, positions):
        """Cosines and sines `[batch or 1, 1, time, width / 2]` of positions `[batch or 1, time]`."""
        angles = ops.cast(positions, "float32")[..., None] * self.frequencies(positions)
        return tuple(
            ops.cast(function(angles)[:, None] * self.attention_factor, self.compute_dtype)
            for function in (ops.cos, ops.sin)
        )

    def frequencies(self, positions):
        """Radians per position `[width / 2]`, or `[batch or 1, 1, width / 2]` if they depend on a row's length."""
        return self._unscaled()

    def _exponents(self) -> np.ndarray:
        return np.arange(0, self.width, 2, dtype="float32") / np.float32(self.width)

    def _unscaled(self) -> np.ndarray:
        return np.float32(1) / np.float32(self.base) ** self._exponents()


@part
class LinearRotaryPositions(RotaryPositions):
    """Rotary positions divided by `factor` (Chen et al. 2023)."""

    def __init__(self, width: int, base: float, factor: float, **kwargs):
        super().__init__(width, base, **kwargs)
        self.factor = factor

    def frequencies(self, positions):
        return self._unscaled() / np.float32(self.factor)


@part
class DynamicRotaryPositions(RotaryPositions):
    """Rotary positions whose base grows with rows that are longer than `longest` (dynamic NTK scaling).

    Each row has its own length, so that it gives the same alone and beside longer ones.
    """

    def __init__(self, width: int, base: float, factor: float, longest: int, **kwargs):
        super().__init__(width, base, **kwargs)
        self.factor, self.longest = factor, longest

    def frequencies(self, positions):
        length = ops.cast(ops.maximum(row_lengths(positions), self.longest), "float32")
        growth = self.factor * length / self.longest - (self.factor - 1)
        base = self.base * growth ** (self.width / (self.width - 2))
        return 1.0 / base ** self._exponents()


@part
class Llama3RotaryPositions(RotaryPositions):
    """Rotary positions of which only slow angles are divided by `factor` (Llama 3.1).

    Args:
        width, base: see `RotaryPositions`.
        factor: what angles are divided by that turn fewer than `slow` times within `longest` positions.
        slow, fast: turns within `longest` positions; above `fast` angles stay, between the two they are blended.
        longest: the length of the texts that the model was first trained on.
    """

    def __init__(self, width: int, base: float, factor: float, slow: float, fast: float, longest: int, **kwargs):
        super().__init__(width, base, **kwargs)
        self.factor, self.slow, self.fast, self.longest = factor, slow, fast, longest

    def frequencies(self, positions):
        unscaled = self._unscaled()
        turns = np.float32(self.longest / (2 * math.pi)) * unscaled
        kept = np.clip((turns - self.slow) / (self.fast - self.slow), 0, 1).astype("float32")
        return (1 - kept) * unscaled / np.float32(self.factor) + kept * unscaled


@part
class YarnRotaryPositions(RotaryPositions):
    """Rotary positions of which slow angles are divided by `factor`, by a ramp over the angles (Peng et al. 2023).

    Args:
        width, base: see `RotaryPositions`.
        factor: what slow angles are divided by.
        slow, fast: turns within `longest` positions between which the ramp lies.
        longest: the length of the texts that the model was first trained on.
        whole: whether the ramp begins and ends at whole angles.
        attention_factor: what cosines and sines are multiplied by.
    """

    def __init__(
        self,
        width: int,
        base: float,
        factor: float,
        slow: float,
        fast: float,
        longest: int,
        whole: bool,
        attention_factor: float,
        **kwargs,
    ):
        super().__init__(width, base, **kwargs)
        self.factor, self.slow, self.fast, self.longest = factor, slow, fast, longest
        self.whole, self.attention_factor = whole, attention_factor

    def frequencies(self, positions):
        low, high = self._angle(self.fast), self._angle(self.slow)
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.width - 1)
        ramp = (np.arange(self.width // 2, dtype="float32") - low) / ((high - low) or 0.001)
        kept = 1 - np.clip(ramp, 0, 1).astype("float32")
        unscaled = self._unscaled()
        return (1 - kept) * unscaled / np.float32(self.factor) + kept * unscaled

    def _angle(self, turns: float) -> float:
        """Which angle turns so often within `longest` positions."""
        return self.width * math.log(self.longest / (turns * 2 * math.pi)) / (2 * math.log(self.base))


@part
class LongRotaryPositions(RotaryPositions):
    """Rotary positions with a divisor for each angle, others for rows longer than `longest` (Ding et al. 2024).

    Args:
        width, base: see `RotaryPositions`.
        short_factors, long_factors: the divisors, `width / 2` numbers each.
        longest: the longest row that is short.
        attention_factor: what cosines and sines are multiplied by.
    """

    def __init__(
        self,
        width: int,
        base: float,
        short_factors: list,
        long_factors: list,
        longest: int,
        attention_factor: float,
        **kwargs,
    ):
        super().__init__(width, base, **kwargs)
        for name, factors in (("short_factor", short_factors), ("long_factor", long_factors)):
            if len(factors) != width // 2:
                raise ValueError(f"{name} must hold {width // 2} numbers, got {len(factors)}")
        self.short_factors, self.long_factors = list(short_factors), list(long_factors)
        self.longest, self.attention_factor = longest, attention_factor

    def frequencies(self, positions):
        short, long = (
            self._unscaled() / np.asarray(factors, "float32") for factors in (self.short_factors, self.long_factors)
        )
        return ops.where(row_lengths(positions) > self.longest, long, short)


def row_lengths(positions):
    """How long rows are whose positions `[batch or 1, time]` are given: `[batch or 1, 1, 1]`."""
    return ops.max(positions, axis=-1, keepdims=True)[..., None] + 1


def rotary_positions(parameters: Mapping, width: int, longest: int) -> RotaryPositions:
    """The part that a config's `rope_parameters` describe.

    Args:
        parameters: `rope_type` ("default"), `rope_theta` (10000) and what the type needs beside them, in
            transformers' names.
        width: how many values of a head are rotated.
        longest: the config's `max_position_embeddings`, for types whose parameters leave it open.

    Raises:
        ValueError: the type is not known, or a parameter that it needs is missing.
    """
    kind, base = parameters.get("rope_type", "default"), parameters.get("rope_theta") or 10000.0
    if kind not in ROPE_TYPES:
        raise ValueError(f"rope_type of rope_parameters must be one of {', '.join(ROPE_TYPES)}, got {kind!r}")
    first = parameters.get("original_max_position_embeddings") or longest
    try:
        return ROPE_TYPES[kind](parameters, width, base, longest, first)
    except KeyError as missing:
        raise ValueError(f"rope_parameters of rope_type {kind!r} must have {missing.args[0]!r}, got none") from None


def _yarn(parameters, width, base, longest, first):
    factor = parameters["factor"] or longest / first
    scales = [parameters.get("mscale"), parameters.get("mscale_all_dim")]

    def growth(scale):
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    attention = parameters.get("attention_factor")
    if attention is None:
        attention = growth(scales[0]) / growth(scales[1]) if all(scales) else growth(1.0)
    slow, fast = parameters.get("beta_slow") or 1, parameters.get("beta_fast") or 32
    return YarnRotaryPositions(
        width, base, factor, slow, fast, first, parameters.get("truncate", True), attention_factor=attention
    )


def _long(parameters, width, base, longest, first):
    factor = parameters.get("factor") or longest / first
    attention = parameters.get("attention_factor")
    if attention is None:
        attention = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(first))
    return LongRotaryPositions(
        width, base, parameters["short_factor"], parameters["long_factor"], first, attention_factor=attention
    )


ROPE_TYPES = {
    "default": lambda parameters, width, base, longest, first: RotaryPositions(width, base),
    "linear": lambda parameters, width, base, longest, first: LinearRotaryPositions(width, base, parameters["factor"]),
    "dynamic": lambda parameters, width, base, longest, first: DynamicRotaryPositions(
        width, base, parameters["factor"], longest
    ),
    "llama3": lambda parameters, width, base, longest, first: Llama3RotaryPositions(
        width, base, parameters["factor"], parameters["low_freq_factor"], parameters["high_freq_factor"], first
    ),
    "yarn": _yarn,
    "longrope": _long,
}
