"""Pipelines whose examples are one or more rows to the model: texts, pairs, windows, a row for each choice."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfheads.pipelines.base import Pipeline, once_traced, padded, text_of

# Options of the tokenizer that a call may give by name.
TOKENIZER_OPTIONS = ("truncation", "max_length", "padding", "add_special_tokens")


class Pair(NamedTuple):
    """A text, and a second one or None."""

    text: str
    text_pair: str | None = None


class RowsPipeline(Pipeline):
    """A pipeline that says which rows an example is, and what the model's outputs for them mean.

    Rows of all examples of a batch go through the model together, at most `batch_size` at once. A class writes
    `rows` and `finish`; `example` makes a `Pair` of an input unless a class says otherwise.

    Attributes:
        outputs: the names of what is needed of the model's outputs.
    """

    outputs: tuple[str, ...] = ("logits",)

    def __init__(self, model, tokenizer, batch_size: int = 8, **options):
        super().__init__(model, tokenizer, batch_size, **options)
        self._forward = once_traced(self.forward)

    def rows(self, example, settings) -> list[dict[str, list[int]]]:
        """The rows of an example, each as inputs by name; see `encode_row`."""
        raise NotImplementedError

    def finish(self, example, rows: list[dict], outputs: list[dict[str, np.ndarray]], settings):
        """The answer, from the rows and what the model gave for each: `outputs[row][name]`, with its padding."""
        raise NotImplementedError

    def example(self, value, place: str = "") -> Pair:
        if not isinstance(value, Mapping):
            return Pair(text_of(value, f"inputs must be {self.wanted()}, got {type(value).__name__}{place}"))
        if len(self.fields) == 1:
            raise TypeError(f"inputs must be {self.wanted()}, got {type(value).__name__}{place}")
        if self.fields[0] not in value or set(value) - set(self.fields):
            named = ", ".join(map(repr, value)) or "nothing"
            raise ValueError(f"inputs must be {self.wanted()}, got a dictionary of {named}{place}")
        given = {name: text for name, text in value.items() if text is not None or name == self.fields[0]}
        for name, text in given.items():
            text_of(text, f"{name!r} must be a string, got {type(text).__name__}{place}")
        return Pair(*(given.get(name) for name in self.fields))

    def wanted(self) -> str:
        """What inputs must be, for errors."""
        if len(self.fields) == 1:
            return "a string or strings"
        return f"a string, a dictionary of {' and '.join(map(repr, self.fields))}, or a list of them"

    def size_of(self, example: Pair) -> int:
        return sum(len(text) for text in example if text is not None)

    def answers(self, examples: list, settings, size: int) -> list:
        rows = [self.rows(example, settings) for example in examples]
        found = iter(self.run([row for own in rows for row in own], size))
        return [
            self.finish(example, own, [next(found) for _ in own], settings)
            for example, own in zip(examples, rows, strict=True)
        ]

    def encode_row(self, text: str, text_pair: str | None = None, **tokenizer_kwargs) -> dict[str, list[int]]:
        """A row: what the model takes of the tokens of a text or a pair.

        Raises:
            ValueError: it has more tokens than the model has positions, none at all, or one that the model has not.
        """
        if tokenizer_kwargs.get("padding") != "max_length":  # rows are padded by `run`
            tokenizer_kwargs.pop("padding", None)
        # In lists, because for a single text the tokenizer takes an empty second one for none.
        pairs = ([text],) if text_pair is None else ([text], [text_pair])
        options = self._within_positions(tokenizer_kwargs)
        encoded = self.tokenizer(*pairs, return_attention_mask=True, verbose=False, **options)
        encoded = {name: values[0] for name, values in encoded.items()}
        self._check_length(text, encoded["input_ids"])
        return {name: values for name, values in encoded.items() if name in self.model.backbone.input_names}

    def run(self, rows: list[dict[str, list[int]]], size: int) -> list[dict[str, np.ndarray]]:
        """The model's outputs for each row, as float32; at most `size` rows at once, the longest first.

        Raises:
            ValueError: the model cannot take them.
        """
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))
        found: list = [None] * len(rows)
        fill = self.fill_values()
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            inputs = {
                name: self.shaped(padded([rows[index][name] for index in batch], "right", fill.get(name, 0)))
                for name in rows[batch[0]]
            }
            self.model.check_inputs(inputs)
            outputs = {name: value.numpy() for name, value in self._forward(inputs).items()}
            for place, index in enumerate(batch):
                found[index] = {name: value[place] for name, value in outputs.items()}
        return found

    def shaped(self, values: tf.Tensor) -> tf.Tensor:
        """An input `[batch, time]` in the shape that the model takes."""
        return values

    def forward(self, inputs: Mapping) -> dict[str, tf.Tensor]:
        """The outputs that are needed, from tensors."""
        return self.model.inferred(inputs, *self.outputs)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """A probability for each logit."""
    return 1.0 / (1.0 + np.exp(-logits))


def tokenizer_options(options: dict) -> dict:
    """Those of the options that the tokenizer takes."""
    return {name: value for name, value in options.items() if name in TOKENIZER_OPTIONS and value is not None}
