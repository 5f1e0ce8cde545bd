"""Reads and writes safetensors files, one tensor in memory at a time.

The numpy reader of the safetensors package has no bfloat16 and reads whole files; the format is small enough to be read
here, strictly: https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory
from tqdm import tqdm

from tfheads.checkpoints.tensor_files import Entry, TensorFiles, parse_json_object

# In the order in which the safetensors library sorts the tensors of a file, smallest first.
DTYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "BOOL": np.bool_,
        "U8": np.uint8,
        "I8": np.int8,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
        "I16": np.int16,
        "U16": np.uint16,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "I32": np.int32,
        "U32": np.uint32,
        "F32": np.float32,
        "C64": np.complex64,
        "F64": np.float64,
        "I64": np.int64,
        "U64": np.uint64,
    }.items()
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
DTYPE_ORDER = {dtype: order for order, dtype in enumerate(DTYPES.values())}
# The limit of the safetensors library itself, so that a header cannot fill the memory.
LONGEST_HEADER = 100_000_000
SIZE_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class SafetensorsFiles(TensorFiles):
    """The tensors of `model.safetensors`, or of `model.safetensors.index.json` and its shards."""

    single_name = "model.safetensors"

    @classmethod
    def read_header(cls, path: Path, file: BinaryIO) -> dict[str, Entry]:
        """The entries of one file; raises ValueError unless each byte belongs to exactly one well-formed tensor."""
        try:
            return _read_header(path, file)
        except ValueError as error:
            raise ValueError(f"{path} is not a valid safetensors file: {error}.") from None


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written: its shape and dtype are known beforehand, its values are made when their turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> "TensorSource":
        """The source of an array that is in memory already."""
        return cls(name, array.shape, array.dtype, lambda: array)

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write_shards(
    tensors: Iterable[TensorSource], directory: str | os.PathLike, max_shard_size: int | str = "5GB"
) -> list[str]:
    """Writes a checkpoint in the layout of transformers: one `model.safetensors`, or shards and their index.

    Shards are cut in the given order. One tensor is in memory at a time, and every file is on the disk (fsync) when
    this returns. The directory should be a staging directory: see `tfheads.checkpoints.atomic`.

    Arguments:
        tensors: what to write.
        directory: an existing directory.
        max_shard_size: bytes, or a string such as "5GB" or "200MB" (decimal units). A larger tensor has its own shard.

    Returns:
        The names of the files that were written.

    Raises:
        ValueError: no tensors, a name twice, a dtype that safetensors lacks, a bad size, or a source whose array
            differs from its announcement.
        OSError: the disk is full.
    """
    sources: dict[str, TensorSource] = {}
    for source in tensors:
        if source.name in sources:
            raise ValueError(f"Two tensors are named {source.name!r}.")
        if np.dtype(source.dtype) not in DTYPE_NAMES:
            raise ValueError(f"Tensor {source.name!r} has dtype {source.dtype}, which safetensors files cannot hold.")
        sources[source.name] = source
    if not sources:
        raise ValueError("There are no tensors to write.")
    split = split_state_dict_into_shards_factory(
        sources,
        get_storage_size=lambda source: source.size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_size_in_bytes(max_shard_size),
    )
    directory = Path(directory)
    total = split.metadata["total_size"]
    with tqdm(total=total, desc="Saving weights", unit="B", unit_scale=True, delay=3, leave=False) as progress:
        for file, names in split.filename_to_tensors.items():
            write_safetensors(directory / file, [sources[name] for name in names], progress.update)
    files = list(split.filename_to_tensors)
    if split.is_sharded:
        parameters = sum(math.prod(source.shape) for source in sources.values())
        metadata = {"total_parameters": parameters, "total_size": total}
        index = {"metadata": metadata, "weight_map": split.tensor_to_filename}
        with open(directory / SafetensorsFiles.index_name(), "w", encoding="utf-8") as file:
            file.write(json.dumps(index, indent=2, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        files.append(SafetensorsFiles.index_name())
    return files


def write_safetensors(
    path: str | os.PathLike,
    tensors: Iterable[TensorSource],
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Writes one file with the bytes that the safetensors library would write, and waits until it is on the disk."""
    # The order of the library: wide dtypes first, which aligns every tensor, then by name.
    ordered = sorted(tensors, key=lambda source: (-DTYPE_ORDER[np.dtype(source.dtype)], source.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for source in ordered:
        begin, end = end, end + source.size
        dtype = DTYPE_NAMES[np.dtype(source.dtype)]
        header[source.name] = {"dtype": dtype, "shape": list(source.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for source in ordered:
            array = np.asarray(source.read())
            if array.shape != tuple(source.shape) or array.dtype != source.dtype:
                raise ValueError(
                    f"Tensor {source.name!r} was announced as {source.dtype} {tuple(source.shape)}, "
                    f"but is {array.dtype} {array.shape}."
                )
            file.write(memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))
            progress(source.size)
        file.flush()
        os.fsync(file.fileno())


def shard_size_in_bytes(size: int | str) -> int:
    """Parses `max_shard_size`: a whole number of bytes, or a string such as "5GB" (decimal units)."""
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)\s*", size, re.IGNORECASE)
        value = int(float(match[1]) * SIZE_UNITS[match[2].upper()]) if match else 0
    else:
        value = size if isinstance(size, int) and not isinstance(size, bool) else 0
    if value <= 0:
        raise ValueError(
            f"max_shard_size must be a positive number of bytes or a string such as '5GB' or '200MB', not {size!r}."
        )
    return value


def _read_header(path: Path, file: BinaryIO) -> dict[str, Entry]:
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise ValueError(f"it has {size} bytes, fewer than the 8 that hold the length of the header")
    length = int.from_bytes(file.read(8), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header would have {length} bytes, more than the {LONGEST_HEADER} that are allowed")
    if 8 + length > size:
        raise ValueError(f"its header should have {length} bytes, but the file ends after {size - 8} of them")
    text = file.read(length)
    if not text.startswith(b"{"):
        raise ValueError("its header is not a JSON object")
    try:
        header = parse_json_object(text)
    except ValueError as error:
        raise ValueError(f"its header is not valid JSON ({error})") from None
    _check_metadata(header.pop("__metadata__", {}))
    start = 8 + length
    entries = {name: _entry(path, start, name, record) for name, record in header.items()}
    _check_layout(entries, start, size)
    return entries


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is not a map from strings to strings")


def _entry(path: Path, start: int, name: str, record: object) -> Entry:
    if not isinstance(record, dict) or set(record) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} needs exactly the keys dtype, shape and data_offsets")
    dtype, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"tensor {name!r} has the unknown dtype {dtype!r} (known: {', '.join(DTYPES)})")
    # Also an empty tensor must have a shape that numpy can hold.
    if not _whole_numbers(shape) or len(shape) > 32 or math.prod(max(size, 1) for size in shape) >= 2**56:
        raise ValueError(f"tensor {name!r} has the impossible shape {shape!r}")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {name!r} has the impossible data_offsets {offsets!r}")
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        raise ValueError(
            f"tensor {name!r} is {dtype} {shape}, which takes {needed} bytes, but has {offsets[1] - offsets[0]}"
        )
    return Entry(path, DTYPES[dtype], tuple(shape), start + offsets[0])


def _whole_numbers(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_layout(entries: dict[str, Entry], start: int, size: int) -> None:
    end = start
    lengths = {name: math.prod(entry.shape) * entry.dtype.itemsize for name, entry in entries.items()}
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, lengths[item[0]])):
        if entry.offset < end:
            raise ValueError(f"tensor {name!r} overlaps the tensor before it")
        if entry.offset > end:
            raise ValueError(f"there are {entry.offset - end} bytes before tensor {name!r} that belong to no tensor")
        end += lengths[name]
    if end > size:
        raise ValueError(f"it is truncated: its tensors need {end} bytes, but it has {size}")
    if end < size:
        raise ValueError(f"{size - end} bytes at its end belong to no tensor")
