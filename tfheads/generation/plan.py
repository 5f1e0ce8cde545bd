"""What a generation consists of: what is fixed when its loop is compiled, and what are tensors that may change."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import tensorflow as tf


class Search(Protocol):
    """A way to find tokens: what it knows between two steps is a structure of tensors, its carry.

    Attributes:
        copies: how many rows it has for each row of the prompt.
        sample: whether it draws.
        options: names of the options that it reads.
        revises: whether tokens that were chosen may be given up later, so that there is nothing to stream.
    """

    copies: int
    sample: bool
    options: tuple[str, ...]
    revises: bool

    def start(self, run) -> Any:
        """The carry after the prompts were read."""

    def goes_on(self, carry, options: "Options") -> tf.Tensor:
        """Whether another step is needed."""

    def advance(self, run, carry) -> Any:
        """The carry after one more step."""

    def result(self, run, carry) -> "Generated":
        """What was found."""


@dataclass(frozen=True)
class Plan:
    """What the compiled loop was made for; another plan is another function.

    Attributes:
        search: the search, such as `TokenByToken`.
        processors: names of the processors of `processors.PROCESSORS` that are on.
        stop_strings: whether rows may end by stop strings.
        outputs: which of "scores" and "logits" are kept for each step.
    """

    search: Search
    processors: frozenset[str] = frozenset()
    stop_strings: bool = False
    outputs: frozenset[str] = frozenset()


class Prompt(NamedTuple):
    """What generation goes on from.

    Attributes:
        input_ids: `[batch, time]`, padded on the right; for encoder-decoders what the target begins with.
        lengths: real tokens of each row `[batch]`, at least 1.
        source: what an encoder reads, `input_ids` and `attention_mask` `[batch, source]`; empty for decoders.
    """

    input_ids: tf.Tensor
    lengths: tf.Tensor
    source: dict


class Options(NamedTuple):
    """The options of a compiled loop, as tensors; changing a value needs no new trace.

    Attributes:
        max_new_tokens: int32, scalar; where tokens are taken one by one also `[batch]`.
        eos_token_ids: int32 `[ends]`; -1 fills unused places.
        pad_token_id: int32 scalar.
        seed: int32 `[2]`; `[batch, 2]` where each row has its own.
        values: what the search and the processors that are on read, by the option's name.
    """

    max_new_tokens: tf.Tensor
    eos_token_ids: tf.Tensor
    pad_token_id: tf.Tensor
    seed: tf.Tensor
    values: dict


class Generated(NamedTuple):
    """What a search found.

    Attributes:
        tokens: new tokens `[batch * returned, capacity]`, padded behind each row's end.
        lengths: how many of them there are in each row, the end included `[batch * returned]`.
        steps: how many steps were made, scalar.
        kept: the "scores" or "logits" of each step `[capacity, rows, vocabulary]` that the plan asks for.
        found: what the search says of its rows: "sequences_scores" `[rows]`, "beam_indices" `[rows, capacity]`.
    """

    tokens: tf.Tensor
    lengths: tf.Tensor
    steps: tf.Tensor
    kept: dict
    found: dict
