"""Which of several workers writes files, uploads and tracks."""

from tfheads.distribute.agreement import is_chief

__all__ = ["is_chief"]
