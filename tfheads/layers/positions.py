"""Positions of tokens in their rows."""

from keras import ops


def counted(real, padding: int = 0):
    """Positions `[batch, time]` counted over the real tokens of each row, from 0; padding gets `padding`.

    Args:
        real: 1 or True for real tokens, `[batch, time]`.
    """
    real = ops.cast(real, "int32")
    return ops.where(real == 1, ops.cumsum(real, axis=1) - 1, padding)
