"""Tokenised `datasets` rows of any task as padded batches, as the TensorFlow models of old prepared them."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.compute
import tensorflow as tf
from transformers import DataCollatorWithPadding, DefaultDataCollator, PreTrainedTokenizerBase

from tfheads.data.masking import IGNORED
from tfheads.data.pipeline import BatchSource, as_tensor, group_by_length, padded_rows

LABEL_COLUMNS = ("labels", "label", "label_ids", "start_positions", "end_positions")
LABEL_NAMES = {"label": "labels", "label_ids": "labels"}
# Columns that say something about every token, so that a row of another length than input_ids is a mistake.
PER_TOKEN_COLUMNS = ("attention_mask", "token_type_ids", "special_tokens_mask", "position_ids")


def prepare_tf_dataset(
    dataset: datasets.Dataset,
    batch_size: int = 8,
    shuffle: bool = True,
    tokenizer: PreTrainedTokenizerBase | None = None,
    collate_fn: Callable | None = None,
    collate_fn_args: dict[str, Any] | None = None,
    drop_remainder: bool | None = None,
    prefetch: bool = True,
    *,
    columns: Iterable[str] | None = None,
    label_columns: Sequence[str] = LABEL_COLUMNS,
    pad_to_multiple_of: int | None = None,
    bucket_lengths: Sequence[int] | None = None,
    seed: int | None = None,
    vocab_size: int | None = None,
) -> tf.data.Dataset:
    """Batches of a tokenised dataset, as dicts of tensors: `(features, labels)`, or only features without labels.

    Rows of numbers and of lists of numbers are batched and padded in the graph, without Python. Nested columns (images,
    choices) and a `collate_fn` need a call of Python for every batch.

    Args:
        shuffle: a new order every time the dataset is iterated.
        tokenizer: pads `input_ids`, `token_type_ids`, `attention_mask` (made if absent) on its side with its token;
            labels of tokens are padded with -100. Without it all rows must have one length.
        collate_fn, collate_fn_args: instead of all that: from a list of rows to a dict of numpy arrays.
        drop_remainder: leave out what does not fill a batch; None for "as shuffle".
        prefetch: prepare batches ahead.
        columns: the columns to keep beside the labels, if the dataset has them (a model's inputs). None for all that
            hold numbers.
        label_columns: which columns are labels. `label` and `label_ids` become `labels`; one column is given as a
            tensor, several as a dict.
        pad_to_multiple_of: round the length of a batch up to a multiple, which bounds how often XLA compiles.
        bucket_lengths: pad to the first of these lengths that fits and put rows of one bucket into a batch.
        seed: for the order; None follows `tf.random.set_seed`.
        vocab_size: of the model; None if `input_ids` are not to be checked.

    Raises:
        TypeError: not a `datasets.Dataset`.
        ValueError: rows that do not fit together, no usable column, a batch that cannot be filled, or a token id that
            is not below `vocab_size` (not looked for in what Python collates).
    """
    if not isinstance(dataset, datasets.Dataset):
        raise TypeError(f"dataset must be a datasets.Dataset, got {type(dataset).__name__}.")
    drop_remainder = shuffle if drop_remainder is None else drop_remainder
    names = _kept_columns(dataset, columns, label_columns)
    dataset = dataset.select_columns(names)
    if collate_fn is not None or any(_depth(dataset.features[name]) > 1 for name in names):
        if collate_fn is None:
            dataset = dataset.with_format("numpy")
            collate_fn = DefaultDataCollator(return_tensors="np")
            if tokenizer is not None and "input_ids" in names:
                collate_fn = DataCollatorWithPadding(
                    tokenizer, pad_to_multiple_of=pad_to_multiple_of, return_tensors="np"
                )
        collate = functools.partial(collate_fn, **(collate_fn_args or {}))
        return _collated_batches(dataset, collate, batch_size, shuffle, drop_remainder, prefetch, seed, label_columns)
    rows = PaddedRows(dataset, tokenizer, columns, pad_to_multiple_of=pad_to_multiple_of, buckets=bucket_lengths)
    if vocab_size is not None:
        rows.check_vocabulary(vocab_size)
    return rows.reshuffled_batches(batch_size, shuffle, drop_remainder, prefetch, seed, label_columns)


class PaddedRows(BatchSource):
    """Rows of numbers and lists of numbers in memory, padded to their batch or to a bucket.

    Args:
        dataset: only columns of numbers and of lists of numbers.
        tokenizer: says how to pad; see `prepare_tf_dataset`.
        columns: names that are wanted; decides whether an absent attention_mask is made.
        pad_to_multiple_of, buckets: see `prepare_tf_dataset`.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        tokenizer: PreTrainedTokenizerBase | None = None,
        columns: Iterable[str] | None = None,
        *,
        pad_to_multiple_of: int | None = None,
        buckets: Sequence[int] | None = None,
    ):
        self.rows = len(dataset)
        self._multiple, self._shard = pad_to_multiple_of or 1, (0, 1)
        self.pads_left = tokenizer is not None and tokenizer.padding_side == "left"
        self._numbers, self._lists, self._fixed, lengths = {}, {}, {}, {}
        for name in dataset.column_names:
            values, splits = _column_arrays(dataset, name)
            if splits is None:
                self._numbers[name] = as_tensor(values)
                continue
            spans = np.stack([splits[:-1], splits[1:]], axis=1)
            lengths[name] = spans[:, 1] - spans[:, 0]
            self._lists[name] = (as_tensor(values), tf.constant(spans))
            shortest, longest = (lengths[name].min(), lengths[name].max()) if self.rows else (0, 0)
            self._fixed[name] = int(longest) if shortest == longest else None
        self._paddings = _paddings(self._fixed, tokenizer)
        _check_lengths(lengths)
        wanted = columns is None or "attention_mask" in set(columns)
        made = tokenizer is not None and wanted and "attention_mask" in tokenizer.model_input_names
        self._makes_mask = made and "input_ids" in self._lists and "attention_mask" not in self._lists
        self._bucketed = bool(buckets) and "input_ids" in self._lists
        self.block_size = int(max((found.max() for found in lengths.values() if self.rows), default=1))
        self.buckets = [(self.block_size, None)]
        if self._bucketed:
            bounds = sorted(set(buckets))
            if bounds[-1] < lengths["input_ids"].max():
                raise ValueError(
                    f"bucket_lengths end at {bounds[-1]}, but the longest row has {lengths['input_ids'].max()} tokens."
                )
            self.buckets = group_by_length(lengths["input_ids"], bounds)

    def reshuffled_batches(
        self,
        batch_size: int,
        shuffle: bool,
        drop_remainder: bool,
        prefetch: bool = True,
        seed: int | None = None,
        labels: Sequence[str] = (),
    ) -> tf.data.Dataset:
        """The batches, in another order at every iteration if `shuffle`. See `prepare_tf_dataset`."""
        steps = self._checked_steps(batch_size, drop_remainder, 1, 0)

        def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
            plan = self._plan(batch_size, number if shuffle else None, seed or 0, drop_remainder)
            return tf.data.Dataset.from_tensor_slices(plan)

        def one_batch(rows: tf.Tensor, length: tf.Tensor) -> Any:
            rows = tf.ensure_shape(rows, [batch_size]) if drop_remainder else rows[rows != -1]
            return _split_labels(self._gather(rows, length), labels)

        with tf.device("CPU:0"):
            numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
            result = numbers.flat_map(one_epoch).map(one_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            result = result.apply(tf.data.experimental.assert_cardinality(steps))
            return result.prefetch(tf.data.AUTOTUNE) if prefetch else result

    def _gather(self, rows: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = {name: tf.gather(values, rows) for name, values in self._numbers.items()}
        for name, (flat, spans) in self._lists.items():
            spans = tf.gather(spans, rows)
            size = self._length(name, spans, length)
            values, real = padded_rows(flat, spans, size, self._paddings.get(name, 0), self.pads_left)
            static = size if isinstance(size, int) else None
            batch[name] = tf.ensure_shape(values, [None, static])
            if name == "input_ids" and self._makes_mask:
                batch["attention_mask"] = tf.ensure_shape(tf.cast(real, tf.int32), [None, static])
        return batch

    def _token_ids(self) -> tf.Tensor | None:
        ids, _ = self._lists.get("input_ids", (None, None))
        return ids

    def _with_labels(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The rows bring their labels."""
        return {LABEL_NAMES.get(name, name): value for name, value in batch.items()}

    def _length(self, name: str, spans: tf.Tensor, bucket: tf.Tensor) -> tf.Tensor | int:
        """How long this column is in this batch: a Python number where it is always the same."""
        with_tokens = name == "input_ids" or name in PER_TOKEN_COLUMNS or name == "labels"
        longest = tf.reduce_max(spans[:, 1] - spans[:, 0])
        if self._bucketed and with_tokens:
            return self.buckets[0][0] if len(self.buckets) == 1 else tf.maximum(bucket, longest)
        if self._fixed[name] is not None and (self._fixed[name] % self._multiple == 0 or name not in self._paddings):
            return self._fixed[name]
        return -(-longest // self._multiple) * self._multiple


def _collated_batches(
    dataset: datasets.Dataset,
    collate: Callable,
    batch_size: int,
    shuffle: bool,
    drop_remainder: bool,
    prefetch: bool,
    seed: int | None,
    labels: Sequence[str],
) -> tf.data.Dataset:
    """Batches that Python puts together, one call a batch."""
    rows = len(dataset)
    if not rows or (drop_remainder and rows < batch_size):
        raise ValueError(f"batch_size={batch_size} is more than the data holds: {rows} rows; lower batch_size.")

    def arrays(numbers: Sequence[int]) -> dict[str, np.ndarray]:
        batch = collate([dataset[int(number)] for number in numbers])
        found = {name: np.asarray(value) for name, value in batch.items()}
        return {
            name: value.astype(np.float32 if np.issubdtype(value.dtype, np.floating) else np.int32)
            for name, value in found.items()
        }

    sample = arrays(range(min(2, rows)))
    names, types = list(sample), [tf.as_dtype(value.dtype) for value in sample.values()]

    def one_batch(numbers: tf.Tensor) -> Any:
        found = tf.numpy_function(lambda batch: list(arrays(batch).values()), [numbers], types)
        batch = dict(zip(names, found, strict=True))
        for name, value in sample.items():
            batch[name] = tf.ensure_shape(batch[name], [None] * value.ndim)
        return _split_labels(batch, labels)

    numbers = tf.data.Dataset.range(rows)
    if shuffle:
        numbers = numbers.shuffle(rows, seed=seed, reshuffle_each_iteration=True)
    result = numbers.batch(batch_size, drop_remainder=drop_remainder).map(one_batch)
    return result.prefetch(tf.data.AUTOTUNE) if prefetch else result


def _kept_columns(dataset: datasets.Dataset, columns: Iterable[str] | None, labels: Sequence[str]) -> list[str]:
    names = [name for name in dataset.column_names if _depth(dataset.features[name]) >= 0]
    if columns is not None:
        wanted = {*columns, *labels}
        unusable = [name for name in dataset.column_names if name in wanted and name not in names]
        if unusable:
            raise ValueError(f"column {unusable[0]!r} holds no numbers, but {dataset.features[unusable[0]]}.")
        names = [name for name in names if name in wanted]
    if not [name for name in names if name not in labels]:
        wanted = "numbers" if columns is None else f"the names {', '.join(columns)}"
        raise ValueError(
            f"no input column is left: the dataset has {', '.join(dataset.column_names)}, wanted {wanted}."
        )
    return names


def _depth(feature: Any) -> int:
    """How many lists are around the numbers of a feature; -1 when it holds something else than numbers."""
    if isinstance(feature, datasets.ClassLabel):
        return 0
    if isinstance(feature, datasets.Value):
        kind = feature.pa_type
        known = pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)
        return 0 if known else -1
    if hasattr(feature, "shape") and hasattr(feature, "dtype"):  # Array2D and its relatives
        return len(feature.shape)
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    below = -1 if inner is None else _depth(inner)
    return below + 1 if below >= 0 else -1


def _column_arrays(dataset: datasets.Dataset, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A column as (numbers, None), or for lists as (numbers of all rows, row starts and end)."""
    tables = dataset.select_columns(name).with_format("arrow").iter(batch_size=10_000)
    chunks = [table.column(name).combine_chunks() for table in tables]
    if any(chunk.null_count for chunk in chunks):
        raise ValueError(f"column {name!r} has rows without a value; remove or fill them.")
    if _depth(dataset.features[name]) == 0:
        return _narrowed(name, [chunk.to_numpy(zero_copy_only=False) for chunk in chunks]), None
    lengths = [pyarrow.compute.list_value_length(chunk).to_numpy(zero_copy_only=False) for chunk in chunks]
    splits = np.concatenate([[0], *lengths]).astype(np.int64).cumsum()
    flat = [pyarrow.compute.list_flatten(chunk) for chunk in chunks]
    if any(chunk.null_count for chunk in flat):
        raise ValueError(f"column {name!r} has lists with missing numbers; remove or fill them.")
    return _narrowed(name, [chunk.to_numpy(zero_copy_only=False) for chunk in flat]), splits


def _narrowed(name: str, chunks: list[np.ndarray]) -> np.ndarray:
    """One array, int32 or float32: the types models take."""
    array = np.concatenate(chunks) if chunks else np.zeros(0, np.int32)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    limits = np.iinfo(np.int32)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise ValueError(f"column {name!r} holds {array.min()} .. {array.max()}, which does not fit into int32.")
    return array.astype(np.int32)


def _paddings(fixed: dict[str, int | None], tokenizer: PreTrainedTokenizerBase | None) -> dict[str, int]:
    """What each column is padded with. Raises ValueError for one that varies and that nobody knows how to pad."""
    varying = [name for name, length in fixed.items() if length is None]
    if tokenizer is None:
        if varying:
            raise ValueError(
                f"the rows of column {varying[0]!r} have several lengths; give a tokenizer that pads them."
            )
        return {}
    paddings = {
        "token_type_ids": tokenizer.pad_token_type_id,
        "attention_mask": 0,
        "special_tokens_mask": 1,
        "labels": IGNORED,
    }
    if tokenizer.pad_token_id is not None:
        paddings["input_ids"] = tokenizer.pad_token_id
    elif varying:
        raise ValueError("the rows have several lengths, but the tokenizer has no pad_token; set tokenizer.pad_token.")
    unknown = [name for name in varying if name not in paddings]
    if unknown:
        raise ValueError(
            f"the rows of column {unknown[0]!r} have several lengths, and only {', '.join(paddings)} can be padded; "
            "remove the column or give a collate_fn."
        )
    return {name: paddings[name] for name in fixed if name in paddings}


def _check_lengths(lengths: dict[str, np.ndarray]) -> None:
    """Raises ValueError when a column that goes with the tokens has another length than they."""
    for name in PER_TOKEN_COLUMNS:
        if name in lengths and "input_ids" in lengths:
            wrong = np.flatnonzero(lengths[name] != lengths["input_ids"])
            if len(wrong):
                row = wrong[0]
                raise ValueError(
                    f"row {row} has {lengths['input_ids'][row]} input_ids, but {lengths[name][row]} values in {name!r}."
                )


def _split_labels(batch: dict[str, tf.Tensor], labels: Sequence[str]) -> Any:
    found = {name: batch.pop(name) for name in labels if name in batch}
    found = {LABEL_NAMES.get(name, name): value for name, value in found.items()}
    if not found:
        return batch
    return batch, (next(iter(found.values())) if len(found) == 1 else found)
