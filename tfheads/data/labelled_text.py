"""Labelled text: columns of sentences and labels as rows of token ids with the numbers of their labels."""

from collections.abc import Mapping, Sequence

import datasets
import numpy as np
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from tfheads.data.tokenizing import CACHE_VERSION, tokenizer_fingerprint

DOUBLING_LENGTHS = tuple(16 << power for power in range(20))


def sentence_columns(
    dataset: datasets.Dataset, wanted: Sequence[str] = (), label_column: str = "label"
) -> tuple[str, ...]:
    """The one or two columns with the text of a row.

    Args:
        dataset: the rows.
        wanted: their names; without, `sentence1` and `sentence2` if there are such, else the first two columns of text.
        label_column: is none of them.

    Raises:
        KeyError: a column that does not exist.
        ValueError: no column of text, or rows without text.
    """
    texts = [name for name, feature in dataset.features.items() if _is_text(feature) and name != label_column]
    columns = tuple(wanted) or (("sentence1", "sentence2") if "sentence1" in texts else tuple(texts[:2]))
    columns = tuple(name for name in columns if name in dataset.column_names or wanted)
    for name in columns:
        if name not in dataset.column_names:
            raise KeyError(f"there is no column {name!r}, the columns are {', '.join(dataset.column_names)}")
        if name not in texts:
            raise ValueError(f"column {name!r} must hold text, it holds {dataset.features[name]}")
        missing = dataset.data.column(name).null_count
        if missing:
            raise ValueError(f"column {name!r} must hold text in every row, {missing} rows have none")
    if not columns:
        raise ValueError(f"there is no column of text, the columns are {', '.join(dataset.column_names)}")
    return columns


def label_names(dataset: datasets.Dataset, column: str = "label") -> list[str] | None:
    """The classes that a column of labels holds, in order; None if it holds numbers with fractions: a regression.

    Numbers and words are sorted; a `datasets.ClassLabel` brings its own order.

    Raises:
        KeyError: there is no such column.
        ValueError: it holds something else than one label for each row.
    """
    if column not in dataset.column_names:
        raise KeyError(f"there is no column {column!r} with labels, the columns are {', '.join(dataset.column_names)}")
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    if not isinstance(feature, datasets.Value):
        raise ValueError(f"column {column!r} must hold one label for each row, it holds {feature}")
    if feature.dtype.startswith(("float", "double")):
        return None
    found = dataset.unique(column)
    if None in found:
        raise ValueError(f"column {column!r} must hold a label in every row, some have none")
    return [str(value) for value in sorted(found)]


def with_label_numbers(
    dataset: datasets.Dataset, names: Sequence[str] | None, column: str = "label", split: str = "train"
) -> datasets.Dataset:
    """The rows with a column `labels`: the number of the class, or for a regression (names None) the number itself.

    Args:
        dataset: the rows.
        names: the classes in order.
        column: where the labels are: names, or numbers that are names; of a `datasets.ClassLabel` the names count.
        split: what an error calls the data.

    Raises:
        KeyError: there is no such column.
        ValueError: a label that is none of `names`, or no number.
    """
    if column not in dataset.column_names:
        raise KeyError(f"{split} has no column {column!r} with labels, only {', '.join(dataset.column_names)}")
    values = dataset[column][:]
    if names is None:
        numbers = _as_floats(values, column, split)
    else:
        feature = dataset.features[column]
        given = feature.names if isinstance(feature, datasets.ClassLabel) else None
        place = {name: number for number, name in enumerate(names)}
        as_names = [given[value] if given and value is not None and value >= 0 else str(value) for value in values]
        unknown = next((row for row, name in enumerate(as_names) if name not in place), None)
        if unknown is not None:
            raise ValueError(
                f"row {unknown} of {split} has the label {as_names[unknown]!r}, known are {', '.join(names)}"
            )
        numbers = np.array([place[name] for name in as_names], "int32")
    rest = dataset.remove_columns([name for name in {column, "labels"} if name in dataset.column_names])
    return rest.add_column("labels", numbers)


def tokenize_sentences(
    dataset: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[str],
    max_length: int,
    num_proc: int | None = None,
) -> datasets.Dataset:
    """The rows as `input_ids` and what else the tokenizer makes of a sentence or a pair, with their `labels` if any.

    The result is cached beside the dataset's other files.

    Args:
        dataset: the rows.
        tokenizer: a fast tokenizer.
        columns: one or two columns of text.
        max_length: rows are cut to this many tokens, of a pair the longer text first.
        num_proc: processes.
    """
    columns = tuple(columns)
    identity = (CACHE_VERSION, dataset._fingerprint, tokenizer_fingerprint(tokenizer), columns, max_length)
    kept = [name for name in dataset.column_names if name == "labels"]
    return dataset.map(
        _sentence_tokens,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer, "columns": columns, "max_length": max_length},
        remove_columns=[name for name in dataset.column_names if name not in kept],
        num_proc=num_proc,
        new_fingerprint=Hasher.hash(repr(identity)),
        desc="Tokenizing",
    )


def bucket_lengths(
    longest: int, max_length: int, wanted: Sequence[int] | None = None, fixed: bool = False
) -> list[int]:
    """The lengths that batches are padded to: few, because XLA compiles the model once for each.

    Args:
        longest: tokens of the longest row.
        max_length: tokens that a row may have.
        wanted: lengths to use; None for doubling ones from 16.
        fixed: whether all batches have `max_length`.
    """
    if fixed:
        return [max_length]
    top = min(max_length, -(-longest // 8) * 8)
    if wanted is None:
        wanted = DOUBLING_LENGTHS
    return [*sorted({length for length in wanted if 0 < length < top}), max(top, 1)]


def _sentence_tokens(batch: Mapping, tokenizer, columns: tuple[str, ...], max_length: int) -> dict:
    found = tokenizer(*(batch[name] for name in columns), truncation=True, max_length=max_length)
    return {name: values for name, values in found.items() if name != "attention_mask"}


def _as_floats(values: Sequence, column: str, split: str) -> np.ndarray:
    try:
        numbers = np.array(values, "float32")
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all():
        raise ValueError(f"column {column!r} of {split} must hold a number in every row")
    return numbers


def _is_text(feature) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
