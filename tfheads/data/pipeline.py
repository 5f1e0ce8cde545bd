"""From arrays of tokens to batches: tf.data without Python in the loop, and a position in the data that is a number.

What a batch holds is a function of (seed, epoch, step). A run that is resumed at a step asks for the batches from that
step on and gets those that an unbroken run would have got, without reading the ones before. The order of an epoch is an
exact shuffle of all rows, computed in the graph when the epoch starts: 8 bytes a row.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import tensorflow as tf

from tfheads.data.masking import IGNORED, TokenMasking
from tfheads.data.tokenizing import flatten_tokens
from tfheads.vocabulary import check_data

# Orders of rows, orders of batches: two streams of numbers that must not repeat each other.
ROW_ORDER, BATCH_ORDER = 1, 2
NO_ROW = -1


class BatchSource:
    """Rows in memory or in mapped files that become batches. Subclasses say how rows are gathered.

    Attributes:
        rows: how many rows the whole data has, all shards together.
        block_size: the most tokens of a row.
        buckets: (length that batches are padded to, numbers of the rows in it); None stands for all rows.
        pads_left: whether what fills a row up stands before it.
    """

    pads_left = False
    rows: int
    block_size: int
    buckets: list[tuple[int, np.ndarray | None]]

    def __len__(self) -> int:
        index, count = self._shard
        return len(range(index, self.rows, count))

    def shard(self, index: int, count: int) -> "BatchSource":
        """The part of worker `index` of `count`. The parts are disjoint and together complete.

        Step for step the workers' batches together are the batch that one worker with `count` times the batch size
        would get.

        Raises:
            ValueError: index not below count, or a shard of a shard.
        """
        if not 0 <= index < count:
            raise ValueError(f"shard index must be from 0 to count - 1, got index={index}, count={count}.")
        if self._shard != (0, 1):
            raise ValueError(
                f"this is already shard {self._shard[0]} of {self._shard[1]}; shard the whole data instead."
            )
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__, _shard=(index, count))
        return part

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raises ValueError when a token id is not below the model's `vocab_size`, before anything is trained."""
        ids = self._token_ids()
        if ids is not None and tf.size(ids) > 0:
            check_data(ids, vocab_size)

    def steps_per_epoch(self, batch_size: int, drop_remainder: bool = True) -> int:
        """How many batches of `batch_size` rows (of this shard) an epoch has."""
        index, count = self._shard
        full, rest = divmod(self.rows, batch_size * count)
        return full + int(not drop_remainder and rest > index)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        epoch: int = 0,
        epochs: int | None = 1,
        start_step: int = 0,
        drop_remainder: bool | None = None,
        masking: TokenMasking | None = None,
        prefetch: int = 2,
        deterministic: bool = True,
    ) -> tf.data.Dataset:
        """Batches of `input_ids`, `attention_mask` and `labels`, int32 `[batch, time]`.

        Without `masking` the labels are the ids themselves (the model shifts them), -100 where the attention mask is 0.

        Args:
            batch_size: rows of a batch (of this shard).
            shuffle: whether every epoch has an order of its own, drawn from seed and epoch.
            epoch: the first epoch; another one has another order and other masks. A fixed one repeats exactly.
            epochs: how many epochs follow each other; None never ends.
            start_step: how many batches to leave out from the start of `epoch` on; may reach into later epochs.
            drop_remainder: whether to leave out what does not fill a batch; None for "as shuffle".
            masking: for masked language modelling.
            prefetch: batches to prepare ahead.
            deterministic: False lets batches overtake each other; then a resumed run is not exact.

        Raises:
            ValueError: not one batch in an epoch, or numbers out of range.
        """
        drop_remainder = shuffle if drop_remainder is None else drop_remainder
        steps = self._checked_steps(batch_size, drop_remainder, epochs, start_step)
        first = epoch + start_step // steps
        last = np.iinfo(np.int64).max if epochs is None else epoch + epochs
        left_out = start_step % steps

        def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
            rows, lengths = self._plan(batch_size, number if shuffle else None, seed, drop_remainder)
            start = tf.where(number == first, tf.constant(left_out, tf.int64), 0)
            plan = tf.data.Dataset.from_tensor_slices((rows[start:], lengths[start:]))
            return plan.map(lambda row_numbers, length: (row_numbers, length, number))

        def one_batch(rows: tf.Tensor, length: tf.Tensor, number: tf.Tensor) -> dict[str, tf.Tensor]:
            rows = tf.ensure_shape(rows, [batch_size]) if drop_remainder else rows[rows != NO_ROW]
            batch = self._gather(rows, length)
            if masking is not None:
                return masking(batch, rows, number)
            return self._with_labels(batch)

        if masking is not None and masking.whole_word and "word_continuation" not in self.columns:
            raise ValueError(
                "whole_word masking needs the column word_continuation: tokenise with word_continuation=True."
            )
        with tf.device("CPU:0"):
            result = tf.data.Dataset.range(first, last).flat_map(one_epoch)
            result = result.map(one_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=deterministic)
            total = tf.data.INFINITE_CARDINALITY if epochs is None else max(epochs * steps - start_step, 0)
            return result.apply(tf.data.experimental.assert_cardinality(total)).prefetch(prefetch)

    def _checked_steps(self, batch_size: int, drop_remainder: bool, epochs: int | None, start_step: int) -> int:
        for name, value, least in (("batch_size", batch_size, 1), ("start_step", start_step, 0), ("epochs", epochs, 1)):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        steps = self.steps_per_epoch(batch_size, drop_remainder)
        if steps == 0:
            of_shard = "" if self._shard == (0, 1) else f" for each of {self._shard[1]} shards"
            raise ValueError(
                f"batch_size={batch_size}{of_shard} is more than the data holds: {self.rows} rows of at most "
                f"{self.block_size} tokens do not fill one batch; lower batch_size or set drop_remainder=False."
            )
        return steps

    def _plan(
        self, batch_size: int, epoch: tf.Tensor | None, seed: int, drop_remainder: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Which rows each batch of an epoch holds: (row numbers [batches, batch], lengths [batches]).

        NO_ROW fills what a last batch lacks. `epoch` is None for the order of the data.
        """
        index, count = self._shard
        wide, plans, lengths = batch_size * count, [], []
        left, size = tf.zeros([0], tf.int64), 0  # rows that did not fill a batch of their bucket, and how many
        for place, (length, numbers) in enumerate(self.buckets):
            own = tf.range(self.rows, dtype=tf.int64) if numbers is None else tf.constant(numbers, tf.int64)
            order, size = tf.concat([left, own], axis=0), size + (self.rows if numbers is None else len(numbers))
            if epoch is not None:
                order = tf.random.experimental.stateless_shuffle(order, _epoch_seed(seed, epoch, ROW_ORDER, length))
            if place == len(self.buckets) - 1 and not drop_remainder:
                order, size = tf.pad(order, [[0, -size % wide]], constant_values=NO_ROW), size + -size % wide
            full = size // wide * wide
            plan, left, size = tf.reshape(order[:full], [-1, wide])[:, index::count], order[full:], size - full
            plans.append(plan)
            lengths.append(tf.fill([full // wide], tf.constant(length, tf.int64)))
        rows, lengths = tf.concat(plans, axis=0), tf.concat(lengths, axis=0)
        if len(self.buckets) > 1 and epoch is not None:
            # The same for every shard, so that workers meet batches of one length at the same step.
            seeds = _epoch_seed(seed, epoch, BATCH_ORDER, 0)
            order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(rows)[0]), seeds)
            rows, lengths = tf.gather(rows, order), tf.gather(lengths, order)
        if not drop_remainder:
            kept = rows[:, 0] != NO_ROW
            rows, lengths = rows[kept], lengths[kept]
        return rows, lengths

    def row_order(self, batch_size: int) -> np.ndarray:
        """The number of the row that each row of `batches(batch_size, shuffle=False)` is, one batch after another."""
        rows, _ = self._plan(batch_size, None, 0, drop_remainder=False)
        return rows[rows != NO_ROW].numpy()

    def _token_ids(self) -> tf.Tensor | None:
        """All ids, in any shape."""
        return self.columns["input_ids"]

    def _gather(self, rows: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        raise NotImplementedError

    def _with_labels(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A batch that nothing masks: its labels are the ids themselves."""
        batch = {name: value for name, value in batch.items() if name != "word_continuation"}
        ignored = tf.constant(IGNORED, tf.int32)
        return batch | {"labels": tf.where(batch["attention_mask"] == 1, batch["input_ids"], ignored)}


class TokenBlocks(BatchSource):
    """Blocks of one length: packed text. `batches` gives them shuffled, exactly resumable and without padding.

    Args:
        blocks: `{"input_ids": [blocks, block_size]}` and perhaps `word_continuation` of the same shape, or a
            `datasets.Dataset` whose rows all have one length. A mapped file stays on the disk.

    Raises:
        ValueError: no blocks, or rows of several lengths.
    """

    def __init__(self, blocks: Mapping[str, np.ndarray] | datasets.Dataset):
        if isinstance(blocks, datasets.Dataset):
            blocks = _equal_rows(blocks)
        if np.ndim(blocks["input_ids"]) != 2 or not len(blocks["input_ids"]):
            raise ValueError(
                f"input_ids must be [blocks, block_size] with blocks, got {np.shape(blocks['input_ids'])}."
            )
        self.rows, self.block_size = blocks["input_ids"].shape
        self.buckets = [(self.block_size, None)]
        self.columns = {name: as_tensor(array) for name, array in blocks.items()}
        self._shard = (0, 1)

    def to_dataset(self) -> datasets.Dataset:
        """The blocks as a `datasets.Dataset` in memory."""
        return datasets.Dataset.from_dict({name: tensor.numpy() for name, tensor in self.columns.items()})

    def _gather(self, rows: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = {name: tf.cast(tf.gather(tensor, rows), tf.int32) for name, tensor in self.columns.items()}
        return batch | {"attention_mask": tf.ones_like(batch["input_ids"])}


class TokenRows(BatchSource):
    """Rows of different lengths that are padded on the right: pieces of documents, or lines.

    A batch holds rows of one bucket and is padded to the bucket's length, so XLA compiles one graph a bucket. Rows that
    do not fill a batch of their bucket go to the next longer one.

    Args:
        columns: flat columns as `tokenizing.flatten_tokens` gives them.
        spans: `[rows, 2]`, where each row starts and ends in them.
        block_size: the longest row; longer ones are an error. None for the longest there is.
        pad_token_id: what `input_ids` are padded with.
        bucket_lengths: the lengths that batches are padded to; `block_size` is always one of them. Default: only it.

    Raises:
        ValueError: no rows, or a row longer than block_size.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        spans: np.ndarray,
        *,
        block_size: int | None = None,
        pad_token_id: int = 0,
        bucket_lengths: Sequence[int] = (),
    ):
        spans = np.asarray(spans, np.int64)
        lengths = spans[:, 1] - spans[:, 0]
        if not len(spans):
            raise ValueError("spans holds no rows.")
        self.rows, self.block_size = len(spans), int(lengths.max()) if block_size is None else block_size
        if lengths.max() > self.block_size:
            raise ValueError(f"block_size={self.block_size} is below the longest row of {lengths.max()} tokens.")
        self.buckets = group_by_length(lengths, [*bucket_lengths, self.block_size])
        self.columns = {name: as_tensor(array) for name, array in columns.items()}
        self.pad_token_id = pad_token_id
        self._spans = tf.constant(spans)
        self._shard = (0, 1)

    def _gather(self, rows: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        spans = tf.gather(self._spans, rows)
        fixed = self.block_size if len(self.buckets) == 1 else None
        batch = {}
        for name, flat in self.columns.items():
            padding = self.pad_token_id if name == "input_ids" else 0
            values, mask = padded_rows(flat, spans, length, padding)
            batch[name] = tf.ensure_shape(tf.cast(values, tf.int32), [None, fixed])
        return batch | {"attention_mask": tf.ensure_shape(tf.cast(mask, tf.int32), [None, fixed])}


class StreamedBlocks:
    """Blocks of one length from a stream that is tokenised while it is read.

    Args:
        tokenized: what `tokenizing.tokenize_texts` makes of an `IterableDataset`.
        block_size: tokens of a block. The rows are put one after the other and cut; only the very end is lost.

    Raises:
        ValueError: the stream ends before one block is full.
    """

    def __init__(self, tokenized: datasets.IterableDataset, block_size: int):
        self.tokenized, self.block_size = tokenized, block_size
        first = next(self._blocks(0), None)
        if first is None:
            raise ValueError(f"the corpus is too short: it has fewer tokens than one block of block_size={block_size}.")
        self._names = sorted(first)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        epoch: int = 0,
        epochs: int | None = 1,
        start_step: int = 0,
        drop_remainder: bool = True,
        masking: TokenMasking | None = None,
        prefetch: int = 2,
        shuffle_buffer: int = 10_000,
    ) -> tf.data.Dataset:
        """Batches as `BatchSource.batches` gives them, in the order of the stream or shuffled within a buffer.

        `start_step` gives the batches of an unbroken run too, but has to read what it leaves out.

        Args:
            shuffle_buffer: blocks to choose from when shuffling; they are held in memory.
        """
        whole_word = masking is not None and masking.whole_word
        if whole_word and "word_continuation" not in self._names:
            raise ValueError(
                "whole_word masking needs the column word_continuation: tokenise with word_continuation=True."
            )
        signature = {name: tf.TensorSpec([None, self.block_size], tf.int32) for name in self._names}

        def one_epoch(number: tf.Tensor) -> tf.data.Dataset:
            found = tf.data.Dataset.from_generator(self._blocks, output_signature=signature, args=(number,)).unbatch()
            found = found.enumerate().map(lambda row, block: (row, number, block))
            if not shuffle:
                return found
            order = _epoch_seed(seed, number, ROW_ORDER, 0)
            order = tf.random.stateless_uniform([], order, 0, np.iinfo(np.int64).max, tf.int64)
            # The seed of this graph alone: a script's own, which `shuffle` would mix in, leaves the order as it is.
            tf.random.set_seed(1)
            return found.shuffle(shuffle_buffer, seed=order, reshuffle_each_iteration=False)

        def one_batch(rows: tf.Tensor, number: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            batch = batch | {"attention_mask": tf.ones_like(batch["input_ids"])}
            if masking is not None:
                return masking(batch, rows, number[0])
            batch.pop("word_continuation", None)
            return batch | {"labels": batch["input_ids"]}

        last = np.iinfo(np.int64).max if epochs is None else epoch + epochs
        with tf.device("CPU:0"):
            numbers = tf.data.Dataset.range(epoch, last)
            # Batched inside the epoch: no batch holds rows of two epochs, which would have two sets of masks.
            result = numbers.flat_map(lambda number: one_epoch(number).batch(batch_size, drop_remainder=drop_remainder))
            result = result.skip(start_step).map(one_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            return result.prefetch(prefetch)

    def _blocks(self, epoch: int) -> Iterator[dict[str, np.ndarray]]:
        """Blocks in groups `[blocks, block_size]`, as they get full."""
        self.tokenized.set_epoch(int(epoch))
        rest: dict[str, np.ndarray] = {}
        for rows in self.tokenized.iter(batch_size=1000):
            joined = {}
            for name, lists in rows.items():
                values = np.fromiter(itertools.chain.from_iterable(lists), np.int32)
                joined[name] = np.concatenate([rest[name], values]) if rest else values
            used = len(joined["input_ids"]) // self.block_size * self.block_size
            rest = {name: values[used:] for name, values in joined.items()}
            if used:
                yield {name: values[:used].reshape(-1, self.block_size) for name, values in joined.items()}


def _epoch_seed(seed: int, epoch: tf.Tensor, purpose: int, part: int) -> tf.Tensor:
    """A seed pair for one purpose in one epoch. Hashed, so that neighbouring epochs and seeds share nothing."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64) * 4 + purpose])
    pair = tf.random.stateless_uniform([2], key, None, None, tf.int64)
    return tf.random.experimental.stateless_fold_in(pair, part)


def group_by_length(lengths: np.ndarray, bucket_lengths: Sequence[int]) -> list[tuple[int, np.ndarray | None]]:
    """Buckets of rows: each row goes into the shortest length it fits in. The last of the lengths fits all."""
    bounds = sorted({int(length) for length in bucket_lengths if 0 < length <= bucket_lengths[-1]})
    chosen = np.searchsorted(bounds, lengths)
    buckets = [(bound, np.flatnonzero(chosen == i)) for i, bound in enumerate(bounds)]
    buckets = [(bound, numbers) for bound, numbers in buckets if len(numbers)]
    return [(buckets[0][0], None)] if len(buckets) == 1 else buckets


def padded_rows(
    flat: tf.Tensor, spans: tf.Tensor, length: tf.Tensor, padding: Any, on_the_left: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rows of a flat column as (values [batch, length], which are real [batch, length])."""
    steps = tf.range(tf.cast(length, tf.int64))[None]
    starts, ends = spans[:, :1], spans[:, 1:]
    places = ends - length + steps if on_the_left else starts + steps
    real = (places >= starts) & (places < ends)
    values = tf.gather(flat, tf.where(real, places, 0))
    return tf.where(real, values, tf.cast(padding, flat.dtype)), real


def as_tensor(array: np.ndarray) -> tf.Tensor:
    """The array as a tensor in main memory: without a copy where TensorFlow can take it, so a mapped file stays one."""
    array = np.asarray(array)
    if array.flags.writeable and array.flags.c_contiguous and array.ctypes.data % 64 == 0 and array.size:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    with tf.device("CPU:0"):
        return tf.constant(array)


def _equal_rows(dataset: datasets.Dataset) -> dict[str, np.ndarray]:
    values, splits = flatten_tokens(dataset)
    lengths = np.unique(np.diff(splits))
    if len(lengths) != 1:
        raise ValueError(
            f"the rows of a dataset of blocks must have one length, got {len(lengths)} lengths from {lengths.min()} to "
            f"{lengths.max()}; use TokenRows, or group_into_blocks first."
        )
    return {name: array.reshape(len(dataset), lengths[0]) for name, array in values.items()}
