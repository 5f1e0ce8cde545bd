"""Examples with several texts of which one is right, as batches `[batch, choices, time]`."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import datasets
import numpy as np
import tensorflow as tf
from transformers import PreTrainedTokenizerBase

from tfheads.data.batching import PaddedRows
from tfheads.data.labelled_text import bucket_lengths
from tfheads.data.pipeline import BatchSource, group_by_length


class ChoiceColumns(NamedTuple):
    """Where an example's texts stand.

    Attributes:
        context: column with the text that comes first, or None.
        question: column with what comes before each choice, or None.
        choices: columns with one choice each, or the one column with lists of them.
    """

    context: str | None
    question: str | None
    choices: tuple[str, ...]


def choice_columns(
    names: Sequence[str], context: str | None = None, question: str | None = None, choices: str | None = None
) -> ChoiceColumns:
    """The columns that are given, else those of SWAG (sent1, sent2, ending0, ...) or context, question, choices.

    Args:
        names: of all columns.
        context, question, choices: given ones; `choices` holds lists.

    Raises:
        KeyError: a column that does not exist.
        ValueError: no choices, or neither a context nor a question.
    """
    for name in (context, question, choices):
        if name is not None and name not in names:
            raise KeyError(f"there is no column {name!r}, the columns are {', '.join(names)}")
    endings = sorted((name for name in names if re.fullmatch(r"ending\d+", name)), key=lambda name: int(name[6:]))
    found = (choices,) if choices else tuple(endings) or tuple(name for name in ("choices",) if name in names)
    if not found:
        raise ValueError(f"there is no column with choices (ending0, ... or choices), only {', '.join(names)}")
    context = context or next((name for name in ("sent1", "context") if name in names), None)
    question = question or next((name for name in ("sent2", "question") if name in names), None)
    if context is None and question is None:
        raise ValueError(f"there is no column sent1, context, sent2 or question, only {', '.join(names)}")
    return ChoiceColumns(context, question, found)


def choice_rows(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    columns: ChoiceColumns,
    max_length: int,
    *,
    label_column: str | None = "label",
    split: str = "train",
    input_names: Sequence[str] = ("input_ids", "attention_mask", "token_type_ids"),
    buckets: Sequence[int] | None = None,
    pad_to_max_length: bool = False,
) -> "ChoiceRows":
    """Examples as batches, each choice a row of its own: the context, then the question with the choice.

    Args:
        rows: the examples.
        tokenizer: a fast tokenizer.
        columns: see `choice_columns`.
        max_length: rows are cut to this many tokens, the longer text first.
        label_column: the number of the right choice from 0, or its text; None for data without labels.
        split: what an error calls the data.
        input_names: the inputs that the model takes.
        buckets, pad_to_max_length: see `tfheads.data.labelled_text.bucket_lengths`.

    Raises:
        ValueError: examples with different numbers of choices, no text, or a label that is none of the choices.
        KeyError: there is no column with labels.
    """
    choices = _choices(rows, columns, split)
    number = len(choices[0])
    labels = None if label_column is None else _labels(rows, choices, label_column, split)
    first, second = _pairs(rows, tokenizer, columns, choices, split)
    tokens = tokenizer(first, second, truncation=True, max_length=max_length, return_attention_mask=False)
    flat = datasets.Dataset.from_dict({name: tokens[name] for name in tokens if name in input_names})
    lengths = np.array([len(row) for row in tokens["input_ids"]])
    bounds = bucket_lengths(int(lengths.max()), max_length, buckets, pad_to_max_length)
    return ChoiceRows(PaddedRows(flat, tokenizer, input_names, buckets=bounds), number, labels, lengths, bounds)


class ChoiceRows(BatchSource):
    """Batches `[batch, choices, time]` of rows that follow each other.

    Args:
        flat: the rows, all choices of an example one after another.
        choices: how many an example has.
        labels: the right choice of each example, or None.
        lengths: tokens of each row.
        buckets: the lengths that batches are padded to.
    """

    def __init__(
        self, flat: PaddedRows, choices: int, labels: np.ndarray | None, lengths: np.ndarray, buckets: Sequence[int]
    ):
        self.flat, self.choices, self.pads_left, self._shard = flat, choices, flat.pads_left, (0, 1)
        self.labels = None if labels is None else tf.constant(labels, tf.int32)
        self.rows, self.block_size = flat.rows // choices, flat.block_size
        self.buckets = group_by_length(np.reshape(lengths, (-1, choices)).max(axis=1), buckets)

    def _token_ids(self) -> tf.Tensor | None:
        return self.flat._token_ids()

    def _gather(self, rows: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        each = tf.reshape(rows[:, None] * self.choices + tf.range(self.choices, dtype=rows.dtype), [-1])
        batch = {}
        for name, value in self.flat._gather(each, length).items():
            width = value.shape[1] if value.shape[1] is not None else tf.shape(value)[1]
            batch[name] = tf.reshape(value, [-1, self.choices, width])
        return batch if self.labels is None else {**batch, "labels": tf.gather(self.labels, rows)}

    def _with_labels(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The examples bring their labels."""
        return batch


def _choices(rows: datasets.Dataset, columns: ChoiceColumns, split: str) -> list[list[str]]:
    single = len(columns.choices) == 1
    found = (
        rows[columns.choices[0]][:] if single else list(zip(*(rows[name][:] for name in columns.choices), strict=True))
    )
    for index, choices in enumerate(found):
        if not isinstance(choices, (list, tuple)) or not all(isinstance(one, str) for one in choices):
            raise ValueError(f"row {index} of {split} must have texts as choices, got {choices!r}")
        if len(choices) != len(found[0]) or len(choices) < 2:
            raise ValueError(
                f"row {index} of {split} has {len(choices)} choices, row 0 has {len(found[0])}: "
                "all rows must have as many, at least 2"
            )
    return [list(choices) for choices in found]


def _labels(rows: datasets.Dataset, choices: list[list[str]], column: str, split: str) -> np.ndarray:
    if column not in rows.column_names:
        raise KeyError(f"{split} has no column {column!r} with labels, only {', '.join(rows.column_names)}")
    numbers = []
    for index, (label, texts) in enumerate(zip(rows[column][:], choices, strict=True)):
        if isinstance(label, str) and label in texts:
            label = texts.index(label)
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(texts):
            raise ValueError(
                f"row {index} of {split} has the label {label!r}, "
                f"it must be a choice or a number between 0 and {len(texts) - 1}"
            )
        numbers.append(label)
    return np.array(numbers, "int32")


def _pairs(rows, tokenizer, columns: ChoiceColumns, choices, split: str) -> tuple[list[str], list[str]]:
    """First and second texts of all rows."""
    texts: Mapping[str, list] = {name: rows[name][:] for name in columns[:2] if name is not None}
    for name, values in texts.items():
        wrong = next((index for index, value in enumerate(values) if not isinstance(value, str)), None)
        if wrong is not None:
            raise ValueError(f"row {wrong} of {split} must have a text in column {name!r}, got {values[wrong]!r}")
    marked = tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(pair=False)
    space = "" if marked else " "  # nothing stands between the two texts
    first, second = [], []
    for index, each in enumerate(choices):
        before = [texts[name][index] for name in columns[:2] if name is not None]
        head, *question = before
        first += [head] * len(each)
        second += [space + " ".join([*question, choice]) for choice in each]
    return first, second
