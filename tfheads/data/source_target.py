"""Sources and the targets that are written from them, as batches with two lengths."""

from collections.abc import Iterable, Mapping, Sequence

import datasets
import numpy as np
import pyarrow.compute
import tensorflow as tf
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from tfheads.data.batching import PaddedRows
from tfheads.data.labelled_text import bucket_lengths
from tfheads.data.tokenizing import CACHE_VERSION, tokenizer_fingerprint

SOURCE, TARGET = "source", "target"
WITHIN = 0.9  # of the targets of a bucket of sources are not longer than the bucket's own length of targets


def source_target_columns(
    rows: datasets.Dataset,
    source: str | None,
    target: str | None,
    needs_target: bool = True,
    usual: tuple[Sequence[str], Sequence[str]] = ((SOURCE,), (TARGET,)),
) -> tuple[str, str | None]:
    """The columns that are given, else those with a usual name, else the first two columns of text.

    Args:
        rows: the examples.
        source, target: names of columns, or None.
        needs_target: whether there must be a target; without, one that is not there is None.
        usual: names that sources and targets often have, the likeliest first.

    Raises:
        KeyError: a column that does not exist.
        ValueError: too few columns of text.
    """
    names = rows.column_names
    for name in (source, target if needs_target else None):
        if name is not None and name not in names:
            raise KeyError(f"there is no column {name!r}, the columns are {', '.join(names)}")
    texts = [name for name, feature in rows.features.items() if _is_text(feature)]
    source = source or _first_of(usual[0], [name for name in texts if name != target], avoid=usual[1])
    target = target or _first_of(usual[1], [name for name in texts if name != source], avoid=())
    if source is None or (needs_target and target is None):
        raise ValueError(f"there must be columns of text for source and target, the columns are {', '.join(names)}")
    return source, target if target in names else None


def source_target_texts(
    rows: datasets.Dataset, source: str, target: str | None, split: str = "train"
) -> datasets.Dataset:
    """The rows with nothing but the columns `source` and, if there is one, `target`.

    Args:
        rows: the examples.
        source, target: names of the columns; no target for sources alone.
        split: what an error calls the data.

    Raises:
        ValueError: rows without a text.
    """
    wanted = {source: SOURCE} | ({} if target is None else {target: TARGET})
    for column in wanted:
        if not _is_text(rows.features[column]):
            raise ValueError(f"column {column!r} of {split} must hold text, it holds {rows.features[column]}")
        row = next(iter(_without_text(rows, column)), None)
        if row is not None:
            text = rows[int(row)][column]
            raise ValueError(f"row {row} of {split} must have a text in column {column!r}, got {text!r}")
    rows = rows.select_columns(list(wanted))
    # In one step, for a column may have the name that another one gets.
    return rows.rename_columns({old: new for old, new in wanted.items() if old != new})


def rows_with_texts(rows: datasets.Dataset, columns: Iterable[str]) -> datasets.Dataset:
    """The rows that have a text in each of the columns."""
    missing = np.unique(np.concatenate([_without_text(rows, column) for column in columns if column is not None]))
    return rows if not len(missing) else rows.select(np.setdiff1d(np.arange(len(rows)), missing))


def source_target_rows(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prefix: str = "",
    max_source_length: int,
    max_target_length: int,
    split: str = "train",
    end_token_id: int | None = None,
    input_names: Iterable[str] = ("input_ids", "attention_mask"),
    buckets: Sequence[int] | None = None,
    pad_to_max_length: bool = False,
    ignore_padding: bool = True,
    num_proc: int | None = None,
) -> "SourceTargetRows":
    """Rows of `input_ids` of the source and `labels` of the target.

    Args:
        rows: as `source_target_texts` makes them.
        tokenizer: of the model.
        prefix: put before each source.
        max_source_length, max_target_length: tokens; what is beyond is cut.
        split: what an error calls the data.
        end_token_id: stands behind targets that the tokenizer leaves without an end.
        input_names: the inputs that the model takes.
        buckets: lengths of sources; see `tfheads.data.labelled_text.bucket_lengths`.
        pad_to_max_length: whether all batches have `max_source_length` and `max_target_length`.
        ignore_padding: whether labels are filled up with -100, else with the tokenizer's padding, which is learned.
        num_proc: processes that tokenise.

    Raises:
        ValueError: rows of which no token is left.
    """
    options = {"prefix": prefix, "max_source_length": max_source_length, "max_target_length": max_target_length}
    options["end_token_id"] = end_token_id if _leaves_ends_open(tokenizer) else None
    tokens = rows.map(
        _tokens,
        batched=True,
        fn_kwargs={"tokenizer": tokenizer, **options},
        remove_columns=rows.column_names,
        num_proc=num_proc,
        new_fingerprint=_fingerprint(rows, tokenizer, options),
        desc="Tokenizing",
    )
    lengths = {name: _lengths(tokens, name) for name in tokens.column_names}
    for name, column in (("input_ids", SOURCE), ("labels", TARGET)):
        if name in lengths and not lengths[name].all():
            raise ValueError(f"row {int(lengths[name].argmin())} of {split} has no token in its {column}")
    fixed = pad_to_max_length
    bounds = bucket_lengths(int(lengths["input_ids"].max()), max_source_length, buckets, fixed)
    longest = int(lengths["labels"].max()) if "labels" in lengths else 0
    target_bounds = bucket_lengths(longest, max_target_length, None, fixed)
    padding = None if ignore_padding else tokenizer.pad_token_id
    return SourceTargetRows(tokens, tokenizer, input_names, bounds, target_bounds, label_padding=padding)


class SourceTargetRows(PaddedRows):
    """Rows with a length for sources and one for targets in each batch: one pair for each bucket of sources.

    A bucket's targets have the length that fits most of them. A row with a longer one goes to the next bucket that it
    fits in, so that there are no more pairs of lengths than buckets, however the lengths are distributed.

    Args:
        dataset: `input_ids`, and `labels` unless there are sources alone.
        tokenizer, columns: see `PaddedRows`.
        buckets, target_buckets: the lengths that there may be, rising; the last ones fit all rows.
        label_padding: what labels are filled up with; None for -100.

    Attributes:
        target_lengths: of each of `buckets`.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        tokenizer: PreTrainedTokenizerBase,
        columns: Iterable[str],
        buckets: Sequence[int],
        target_buckets: Sequence[int],
        *,
        label_padding: int | None = None,
    ):
        super().__init__(dataset, tokenizer, columns, buckets=buckets)
        if label_padding is not None and "labels" in self._paddings:
            self._paddings["labels"] = label_padding
        self.target_lengths = [0] * len(self.buckets)
        if "labels" in dataset.column_names:
            lengths = _lengths(dataset, "input_ids"), _lengths(dataset, "labels")
            pairs = length_pairs(*lengths, buckets, target_buckets)
            self.buckets = [(source, numbers) for source, _, numbers in pairs]
            self.target_lengths = [target for _, target, _ in pairs]
            if len(pairs) == 1:
                self.buckets = [(pairs[0][0], None)]

    def _length(self, name, spans, bucket):
        if name != "labels":
            return super()._length(name, spans, bucket)
        if len(self.buckets) == 1:
            return self.target_lengths[0]
        sources = tf.constant([length for length, _ in self.buckets], tf.int64)
        return tf.gather(tf.constant(self.target_lengths, tf.int64), tf.searchsorted(sources, bucket[None])[0])


def length_pairs(
    sources: np.ndarray, targets: np.ndarray, source_bounds: Sequence[int], target_bounds: Sequence[int]
) -> list[tuple[int, int, np.ndarray]]:
    """Pairs of lengths, both rising, and the numbers of the rows for which each is the first that they fit in.

    Args:
        sources, targets: tokens of each row.
        source_bounds, target_bounds: the lengths that there may be, rising; the last ones fit all rows.
    """
    bounds, longest, tops = np.asarray(target_bounds), 0, []
    chosen = np.searchsorted(source_bounds, sources)
    for place in range(len(source_bounds)):
        own = targets[chosen == place]
        if len(own):
            longest = max(longest, bounds[np.searchsorted(bounds, np.quantile(own, WITHIN, method="higher"))])
        tops.append(longest)
    tops[-1] = bounds[-1]
    chosen = np.maximum(chosen, np.searchsorted(tops, targets))
    pairs = [(source_bounds[place], int(tops[place]), np.flatnonzero(chosen == place)) for place in range(len(tops))]
    return [pair for pair in pairs if len(pair[2])]


def set_languages(tokenizer: PreTrainedTokenizerBase, source: str | None, target: str | None) -> None:
    """Tells a tokenizer of several languages which ones it reads and writes; others have no such setting.

    Raises:
        ValueError: it needs languages that are not given, or does not know one.
    """
    for name, language in (("src_lang", source), ("tgt_lang", target)):
        if not hasattr(tokenizer, name):
            continue
        if language is None:
            raise ValueError(f"{type(tokenizer).__name__} needs to know the language: give source_lang and target_lang")
        codes = getattr(tokenizer, "lang_code_to_id", None) or {language: tokenizer.convert_tokens_to_ids(language)}
        if codes.get(language) in (None, tokenizer.unk_token_id):
            raise ValueError(f"language {language!r} is not known to {type(tokenizer).__name__}")
        setattr(tokenizer, name, language)


def _tokens(
    batch: Mapping,
    tokenizer: PreTrainedTokenizerBase,
    prefix: str,
    max_source_length: int,
    max_target_length: int,
    end_token_id: int | None,
) -> dict[str, list]:
    options = {"truncation": True, "return_attention_mask": False, "verbose": False}
    sources = tokenizer([prefix + text for text in batch[SOURCE]], max_length=max_source_length, **options)
    columns = {"input_ids": sources["input_ids"]}
    if TARGET in batch:
        room = max_target_length - (end_token_id is not None)
        ids = tokenizer(text_target=list(batch[TARGET]), max_length=room, **options)["input_ids"]
        columns["labels"] = ids if end_token_id is None else [[*row, end_token_id] for row in ids]
    return columns


def _leaves_ends_open(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts no special token behind a target."""
    ids = tokenizer(text_target="a")["input_ids"]
    return not ids or ids[-1] not in tokenizer.all_special_ids


def _fingerprint(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, options: Mapping) -> str | None:
    """What the cached tokens depend on; None leaves it to `datasets`, for tokenizers that are written in Python."""
    if not tokenizer.is_fast:
        return None
    languages = [getattr(tokenizer, name, None) for name in ("src_lang", "tgt_lang")]
    identity = (CACHE_VERSION, rows._fingerprint, tokenizer_fingerprint(tokenizer), languages, sorted(options.items()))
    return Hasher.hash(repr(("source_target", identity)))


def _lengths(rows: datasets.Dataset, column: str) -> np.ndarray:
    """How many values the lists of a column have."""
    tables = rows.select_columns(column).with_format("arrow").iter(batch_size=10_000)
    return np.concatenate([pyarrow.compute.list_value_length(table[column]).to_numpy() for table in tables])


def _without_text(rows: datasets.Dataset, column: str) -> np.ndarray:
    """The numbers of the rows whose column is empty."""
    tables = rows.select_columns(column).with_format("arrow").iter(batch_size=10_000)
    lengths = (pyarrow.compute.utf8_length(table[column]).fill_null(0).to_numpy() for table in tables)
    return np.flatnonzero(np.concatenate([*lengths, np.zeros(0, "int32")]) == 0)


def _first_of(usual: Sequence[str], names: Sequence[str], avoid: Sequence[str]) -> str | None:
    """The likeliest of the names; those to avoid only if there is no other."""
    found = [name for name in usual if name in names]
    return next(iter([*found, *(name for name in names if name not in avoid), *names]), None)


def _is_text(feature) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
