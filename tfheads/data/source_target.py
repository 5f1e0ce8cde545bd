"""Sources and the targets that are written from them, as batches with two lengths."""

from collections.abc import Iterable

import datasets
from transformers import PreTrainedTokenizerBase

from tfheads.data.batching import PaddedRows
from tfheads.data.labelled_text import bucket_lengths


def source_target_columns(
    rows: datasets.Dataset, source: str | None, target: str | None, needs_target: bool = True
) -> tuple[str, str | None]:
    """The columns that are given, else `source` and `target`, else the first two columns of text.

    Raises:
        KeyError: a column that does not exist.
        ValueError: too few columns of text.
    """
    names = rows.column_names
    for name in (source, target if needs_target else None):
        if name is not None and name not in names:
            raise KeyError(f"there is no column {name!r}, the columns are {', '.join(names)}")
    texts = [name for name, feature in rows.features.items() if getattr(feature, "dtype", None) == "string"]
    source = source or next((name for name in sorted(texts, key="source".__ne__) if name != target), None)
    target = target or next((name for name in sorted(texts, key="target".__ne__) if name != source), None)
    if source is None or (needs_target and target is None):
        raise ValueError(f"there must be columns of text for source and target, the columns are {', '.join(names)}")
    return source, target


def source_target_rows(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    target: str | None,
    *,
    prefix: str = "",
    max_source_length: int,
    max_target_length: int,
    split: str = "train",
    input_names: Iterable[str] = ("input_ids", "attention_mask"),
    buckets: list[int] | None = None,
    pad_to_max_length: bool = False,
) -> "SourceTargetRows":
    """Rows of `input_ids` of the source and `labels` of the target.

    Args:
        rows: the examples.
        tokenizer: a fast tokenizer.
        source, target: columns with text; no target for sources alone.
        prefix: put before each source.
        max_source_length, max_target_length: tokens; what is beyond is cut.
        split: what an error calls the data.
        input_names: the inputs that the model takes.
        buckets, pad_to_max_length: of sources; see `tfheads.data.labelled_text.bucket_lengths`.

    Raises:
        ValueError: rows without a text.
    """
    sources = [prefix + text for text in _texts(rows, source, split)]
    tokens = tokenizer(sources, truncation=True, max_length=max_source_length, return_attention_mask=False)
    columns = {"input_ids": tokens["input_ids"]}
    if target is not None:
        targets = tokenizer(text_target=_texts(rows, target, split), truncation=True, max_length=max_target_length)
        columns["labels"] = targets["input_ids"]
    for name, found in columns.items():
        empty = next((index for index, ids in enumerate(found) if not ids), None)
        if empty is not None:
            raise ValueError(
                f"row {empty} of {split} has no token in column {source if name == 'input_ids' else target!r}"
            )
    longest = max(map(len, columns["input_ids"]))
    bounds = bucket_lengths(longest, max_source_length, buckets, pad_to_max_length)
    return SourceTargetRows(datasets.Dataset.from_dict(columns), tokenizer, input_names, buckets=bounds)


class SourceTargetRows(PaddedRows):
    """Rows with sources padded to buckets, and all targets to the longest one, a multiple of 8."""

    def __init__(self, dataset: datasets.Dataset, *arguments, **options):
        super().__init__(dataset, *arguments, **options)
        longest = max(map(len, dataset["labels"])) if "labels" in dataset.column_names else 0
        self.target_length = -(-longest // 8) * 8

    def _length(self, name, spans, bucket):
        return self.target_length if name == "labels" else super()._length(name, spans, bucket)


def _texts(rows: datasets.Dataset, column: str, split: str) -> list[str]:
    texts = rows[column][:]
    wrong = next((index for index, text in enumerate(texts) if not isinstance(text, str) or not text), None)
    if wrong is not None:
        raise ValueError(f"row {wrong} of {split} must have a text in column {column!r}, got {texts[wrong]!r}")
    return texts
