"""Tables of sines and cosines."""

import numpy as np


def interleaved_sinusoids(rows: int, width: int) -> np.ndarray:
    """For each position sines and cosines of falling frequency in turn, `[rows, width]` (Vaswani et al. 2017)."""
    angles = np.arange(rows)[:, None] / 10000 ** (np.arange(width) // 2 * 2 / width)
    return np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles)).astype("float32")


def halved_sinusoids(rows: int, width: int) -> np.ndarray:
    """The same values with all sines before all cosines, `[rows, width]` (Marian)."""
    table = interleaved_sinusoids(rows, width)
    return np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)
