"""From rows of text to rows of token ids, cached on the disk, and from these to blocks of one length.

Nothing here needs TensorFlow: what comes out are `datasets` objects and numpy arrays that are mapped from files.
"""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow.compute
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

DEFAULT_BLOCK_SIZE = 1024
# Part of every fingerprint: raise it when the meaning of a cached file changes.
CACHE_VERSION = 1
COLUMN_TYPES = {"input_ids": np.int32, "word_continuation": np.int8}


def resolve_block_size(
    block_size: int | None, tokenizer: PreTrainedTokenizerBase | None = None, maximum: int | None = None
) -> int:
    """The block size in tokens: the given one if the model takes it, by default the model's limit, at most 1024.

    Args:
        maximum: the most positions the model takes (its position table), if it has a limit.

    Raises:
        ValueError: block_size below 2, or beyond the model's or the tokenizer's limit.
    """
    limits = {"the model's position limit": maximum}
    if tokenizer is not None:
        limits["the tokenizer's model_max_length"] = tokenizer.model_max_length
    known = {name: limit for name, limit in limits.items() if limit is not None and limit < 1e18}
    if block_size is None:
        return min([DEFAULT_BLOCK_SIZE, *known.values()])
    if block_size < 2:
        raise ValueError(f"block_size must be at least 2 tokens, got {block_size}.")
    for name, limit in known.items():
        if block_size > limit:
            raise ValueError(f"block_size={block_size} is beyond {name} of {limit} tokens; give at most {limit}.")
    return block_size


def tokenize_texts(
    dataset: datasets.Dataset | datasets.IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str = "text",
    add_special_tokens: bool = True,
    append_end_of_text: bool = False,
    max_length: int | None = None,
    word_continuation: bool = False,
    num_proc: int | None = None,
    batch_size: int = 1000,
) -> datasets.Dataset | datasets.IterableDataset:
    """The rows of text as rows of token ids: column `input_ids` (int32 lists of any length).

    The result is cached beside the dataset's other files. The name of the cache depends on the text, on what the
    tokenizer does and on the arguments, and on nothing that changes between runs.

    Args:
        add_special_tokens: whether the tokenizer adds its own ([CLS] and [SEP] for BERT, none for GPT-2).
        append_end_of_text: put the tokenizer's eos_token after each row, which marks where a document ends.
        max_length: cut rows to this many tokens, the special ones included; None keeps them whole.
        word_continuation: also a column `word_continuation`, 1 where a token goes on with the word of the one before.
        num_proc: processes. The tokenizer already uses every core, so this rarely helps.

    Raises:
        TypeError: a tokenizer without the fast (rust) backend.
        ValueError: append_end_of_text with a tokenizer that has no eos_token.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError(f"tokenizer must be a fast one (rust backend), got {type(tokenizer).__name__}.")
    if append_end_of_text and tokenizer.eos_token_id is None:
        raise ValueError("append_end_of_text needs a tokenizer with an eos_token, this one has none.")
    options = {
        "text_column": text_column,
        "add_special_tokens": add_special_tokens,
        "append_end_of_text": append_end_of_text,
        "max_length": max_length,
        "word_continuation": word_continuation,
    }
    names = ["input_ids", "word_continuation"] if word_continuation else ["input_ids"]
    types = {name: datasets.List(datasets.Value(np.dtype(COLUMN_TYPES[name]).name)) for name in names}
    arguments: dict[str, Any] = {
        "batched": True,
        "batch_size": batch_size,
        "fn_kwargs": options | {"tokenizer": tokenizer},
        "features": datasets.Features(types),
    }
    if isinstance(dataset, datasets.IterableDataset):
        columns = dataset.column_names or dataset._resolve_features().column_names
        return dataset.map(_token_columns, remove_columns=columns, **arguments)
    identity = (CACHE_VERSION, dataset._fingerprint, tokenizer_fingerprint(tokenizer), sorted(options.items()))
    return dataset.map(
        _token_columns,
        remove_columns=dataset.column_names,
        num_proc=num_proc,
        new_fingerprint=Hasher.hash(repr(identity)),
        desc="Tokenizing",
        **arguments,
    )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what the tokenizer does. Using it does not change it: padding and truncation state are left out."""
    backend = tokenizer.backend_tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    special = sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items())
    return Hasher.hash(repr((type(tokenizer).__name__, backend.to_str(), special)))


def flatten_tokens(tokenized: datasets.Dataset) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All rows of a tokenised dataset one after the other: ({column: values [tokens]}, row starts and end [rows + 1]).

    The values are mapped from files next to the dataset's cache, which are written once; a dataset that lives in
    memory gives arrays in memory.
    """
    names = [name for name in COLUMN_TYPES if name in tokenized.column_names]
    folder = os.path.dirname(tokenized.cache_files[0]["filename"]) if tokenized.cache_files else None
    splits = _cached_array(folder, tokenized._fingerprint, "row_splits", lambda path: _write_splits(tokenized, path))
    values = {
        name: _cached_array(
            folder,
            tokenized._fingerprint,
            name,
            lambda path, name=name: _write_values(tokenized, name, int(splits[-1]), path),
        )
        for name in names
    }
    return values, splits


def group_into_blocks(tokenized: datasets.Dataset, block_size: int) -> dict[str, np.ndarray]:
    """Blocks of one length by the rule of Hugging Face's group_texts: {column: [blocks, block_size]}.

    All rows are put one after the other and cut every `block_size` tokens; the remainder below one block is dropped,
    so there are `tokens // block_size` blocks. (run_clm does this for every 1000 rows and drops a remainder each
    time; here there is one remainder in all. A corpus of at most 1000 rows gives the same blocks.)

    Raises:
        ValueError: fewer tokens than one block.
    """
    values, splits = flatten_tokens(tokenized)
    tokens = int(splits[-1])
    blocks = tokens // block_size
    if blocks == 0:
        raise ValueError(
            f"the corpus is too short: its {len(tokenized)} rows hold {tokens} tokens, fewer than one block of "
            f"block_size={block_size}."
        )
    return {name: array[: blocks * block_size].reshape(blocks, block_size) for name, array in values.items()}


def split_documents(tokenized: datasets.Dataset, block_size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Pieces of at most `block_size` tokens that never cross a document (a row): (flat columns, spans).

    `spans` `[pieces, 2]` holds where each piece starts and ends in the columns. A document of n tokens gives
    ceil(n / block_size) pieces, all full but its last. A last piece of one single token is left out, as there is
    nothing to predict in it. Nothing is copied.

    Raises:
        ValueError: no document has two tokens.
    """
    values, splits = flatten_tokens(tokenized)
    lengths = np.diff(splits)
    pieces = -(-lengths // block_size)
    document = np.repeat(np.arange(len(lengths)), pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = splits[:-1][document] + number * block_size
    ends = np.minimum(starts + block_size, splits[1:][document])
    spans = np.stack([starts, ends], axis=1)
    spans = spans[ends - starts > 1]
    if not len(spans):
        raise ValueError(f"the corpus is too short: none of its {len(tokenized)} rows holds two tokens.")
    return values, spans


def _token_columns(batch: Mapping[str, list], tokenizer: PreTrainedTokenizerBase, **options: Any) -> dict[str, list]:
    ending = [tokenizer.eos_token_id] if options["append_end_of_text"] else []
    max_length = options["max_length"]
    encoded = tokenizer(
        [text or "" for text in batch[options["text_column"]]],
        add_special_tokens=options["add_special_tokens"],
        truncation=max_length is not None,
        max_length=None if max_length is None else max_length - len(ending),
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # long rows are cut into blocks later: no warning about the model's limit
    )
    columns = {"input_ids": [ids + ending for ids in encoded["input_ids"]]}
    if options["word_continuation"]:
        rows = range(len(columns["input_ids"]))
        columns["word_continuation"] = [_continuations(encoded.word_ids(row)) + [0] * len(ending) for row in rows]
    return columns


def _continuations(words: list[int | None]) -> list[int]:
    return [int(word is not None and word == before) for before, word in zip([None, *words], words, strict=False)]


def _cached_array(folder: str | None, fingerprint: str, name: str, write: Any) -> np.ndarray:
    if folder is None:
        return write(None)
    path = os.path.join(folder, f"flat-{fingerprint}-{name}.npy")
    if not os.path.exists(path):
        # Written aside and renamed: a run that is killed here leaves nothing that looks complete.
        handle, part = tempfile.mkstemp(prefix=f"flat-{fingerprint}-", suffix=".part", dir=folder)
        os.close(handle)
        try:
            write(part)
            os.replace(part, path)
        finally:
            if os.path.exists(part):
                os.remove(part)
    # Mode "c" never writes to the file, and yet TensorFlow can take the memory without a copy (read-only it cannot).
    return np.load(path, mmap_mode="c", allow_pickle=False)


def _new_array(path: str | None, dtype: Any, size: int) -> np.ndarray:
    # A file cannot be mapped when it holds no bytes, hence the array in memory for an empty one.
    if path is None or size == 0:
        array = np.zeros(size, dtype)
        if path is not None:
            with open(path, "wb") as file:
                np.save(file, array)
        return array
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(size,))
    if hasattr(os, "posix_fallocate"):
        # Without room on the disk this raises OSError; writing to the mapped pages would end the process instead.
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
    return array


def _write_splits(tokenized: datasets.Dataset, path: str | None) -> np.ndarray:
    splits = _new_array(path, np.int64, len(tokenized) + 1)
    position = 1
    for column in _arrow_columns(tokenized, "input_ids"):
        lengths = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
        splits[position : position + len(lengths)] = lengths
        position += len(lengths)
    np.cumsum(splits, out=splits)
    return splits


def _write_values(tokenized: datasets.Dataset, name: str, size: int, path: str | None) -> np.ndarray:
    values = _new_array(path, COLUMN_TYPES[name], size)
    position = 0
    for column in _arrow_columns(tokenized, name):
        flat = pyarrow.compute.list_flatten(column).to_numpy(zero_copy_only=False)
        values[position : position + len(flat)] = flat
        position += len(flat)
    return values


def _arrow_columns(tokenized: datasets.Dataset, name: str) -> Any:
    for table in tokenized.select_columns(name).with_format("arrow").iter(batch_size=10_000):
        yield table.column(name).combine_chunks()
