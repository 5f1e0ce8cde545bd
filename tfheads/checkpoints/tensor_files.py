"""The tensors of a checkpoint on disk, whatever the format: names, shapes, and one tensor at a time."""

import json
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfheads.checkpoints.names_within import is_name_within


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies in its file.

    `offset` is counted in bytes from the start of the file, `strides` in elements; `strides=None` is row-major order.
    """

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None


class TensorFiles:
    """The tensors of one file or of a directory with shards; a subclass reads one format.

    Headers are read and checked when the object is made, tensors when they are asked for, with file reads into arrays
    of their own (mapped pages would count as memory). The files stay open until `close`, so a save that replaces them
    meanwhile does not mix two checkpoints. Reading is safe from several threads. Works as a context manager.

    Arguments:
        path: a directory that holds a single file or an index with its shards, or one such file or index.

    Raises:
        FileNotFoundError: the directory has no weights of this format, or a shard is missing.
        ValueError: a file is truncated or malformed, or the index and its shards disagree.
    """

    single_name: str
    """File name of an unsharded checkpoint."""

    def __init__(self, path: str | os.PathLike):
        self._files: dict[Path, BinaryIO] = {}
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        try:
            self._open(Path(path))
        except BaseException:
            self.close()
            raise

    @classmethod
    def read_header(cls, path: Path, file: BinaryIO) -> dict[str, Entry]:
        """The checked entries of one open file."""
        raise NotImplementedError

    @classmethod
    def exists_in(cls, directory: str | os.PathLike) -> bool:
        """Whether a directory holds a checkpoint of this format."""
        return any(Path(directory, name).is_file() for name in (cls.single_name, cls.index_name()))

    @classmethod
    def index_name(cls) -> str:
        """File name of the index of a sharded checkpoint."""
        return f"{cls.single_name}.index.json"

    def names(self) -> list[str]:
        """All tensor names, in the order of the files."""
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype:
        """The dtype of one tensor as stored; bfloat16 and float8 are those of `ml_dtypes`."""
        return self._entry(name).dtype

    def file(self, name: str) -> Path:
        """The file that holds one tensor."""
        return self._entry(name).path

    def total_bytes(self) -> int:
        """The size of all tensors in bytes."""
        return sum(math.prod(entry.shape) * entry.dtype.itemsize for entry in self._entries.values())

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor into a new array."""
        return self._read(name, self._entry(name))

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Reads the rows `start` to `stop` (not included) of the first axis, so that a large table loads in pieces."""
        entry = self._entry(name)
        if not entry.shape:
            raise ValueError(f"read_rows needs a tensor with at least one axis, but {name!r} is a scalar.")
        if not 0 <= start <= stop <= entry.shape[0]:
            raise ValueError(f"Rows {start} to {stop} of {name!r} do not exist: it has {entry.shape[0]} rows.")
        row = math.prod(entry.shape[1:]) if entry.strides is None else entry.strides[0]
        offset = entry.offset + start * row * entry.dtype.itemsize
        shape = (stop - start, *entry.shape[1:])
        return self._read(name, Entry(entry.path, entry.dtype, shape, offset, entry.strides))

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> "TensorFiles":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __del__(self) -> None:
        self.close()

    def _entry(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise KeyError(f"The checkpoint has no tensor named {name!r}.") from None

    def _open(self, path: Path) -> None:
        if path.is_dir():
            single, index = path / self.single_name, path / self.index_name()
            # The single file first, as transformers does.
            if single.is_file():
                path = single
            elif index.is_file():
                path = index
            else:
                raise FileNotFoundError(f"{path} holds neither {single.name} nor {index.name}.")
        if path.name.endswith(".index.json"):
            self._open_shards(path)
        else:
            self._entries = self._open_file(path)

    def _open_file(self, path: Path) -> dict[str, Entry]:
        # Unbuffered: each read goes straight into the array that is returned.
        file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._files[path] = file
        return self.read_header(path, file)

    def _open_shards(self, index: Path) -> None:
        weight_map = read_index(index)
        for shard in dict.fromkeys(weight_map.values()):
            path = index.parent / shard
            if not path.is_file():
                raise FileNotFoundError(f"{index} names the shard {shard!r}, which is not in {index.parent}.")
            entries = self._open_file(path)
            expected = {name for name, file in weight_map.items() if file == shard}
            for name in entries:
                if name in self._entries:
                    raise ValueError(f"Tensor {name!r} is in two shards: {self._entries[name].path.name} and {shard}.")
                if name not in expected:
                    raise ValueError(f"Tensor {name!r} is in the shard {path}, but {index.name} does not say so.")
            for name in sorted(expected - set(entries)):
                raise ValueError(f"{index} says that tensor {name!r} is in {shard}, which does not hold it.")
            self._entries.update(entries)

    def _read(self, name: str, entry: Entry) -> np.ndarray:
        if entry.strides is None:
            array = np.empty(entry.shape, entry.dtype)
            self._read_into(name, entry, array.reshape(-1).view(np.uint8))
        else:
            length = elements_spanned(entry.shape, entry.strides)
            if len(entry.shape) > 1 and length > 2 * math.prod(entry.shape):
                return self._read_apart(name, entry)
            flat = np.empty(length, entry.dtype)
            self._read_into(name, entry, flat.view(np.uint8))
            strides = [stride * entry.dtype.itemsize for stride in entry.strides]
            array = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, entry.shape, strides))
            array = array.reshape(entry.shape)
        if entry.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise ValueError(f"{entry.path} holds bytes other than 0 and 1 in the boolean tensor {name!r}.")
        return array

    def _read_apart(self, name: str, entry: Entry) -> np.ndarray:
        """Reads a tensor whose parts lie far apart, such as rows of a transposed one, without what is between them."""
        axis = int(np.argmax(entry.strides))
        shape, strides = (values[:axis] + values[axis + 1 :] for values in (entry.shape, entry.strides))
        array = np.empty(entry.shape, entry.dtype)
        for index, part in enumerate(np.moveaxis(array, axis, 0)):
            offset = entry.offset + index * entry.strides[axis] * entry.dtype.itemsize
            part[...] = self._read(name, Entry(entry.path, entry.dtype, shape, offset, strides))
        return array

    def _read_into(self, name: str, entry: Entry, buffer: np.ndarray) -> None:
        file = self._files[entry.path]
        done = 0
        with self._lock:
            file.seek(entry.offset)
            while done < buffer.size:
                count = file.readinto(memoryview(buffer)[done:])
                if not count:
                    raise ValueError(f"{entry.path} ended inside tensor {name!r}: it was truncated while being read.")
                done += count


def open_tensors(path: str | os.PathLike) -> TensorFiles:
    """Opens the weights of a checkpoint: safetensors if there are any, otherwise the older `pytorch_model.bin`.

    Arguments:
        path: a directory, a weights file, or the index of a sharded checkpoint.

    Raises:
        FileNotFoundError: there are no weights at that place.
        ValueError: a file is truncated or malformed, or the index and its shards disagree.
    """
    from tfheads.checkpoints.safetensors_files import SafetensorsFiles
    from tfheads.checkpoints.torch_files import TorchFiles

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    if not path.is_dir():
        name = path.name.removesuffix(".index.json")
        return TorchFiles(path) if name.endswith((".bin", ".pt", ".pth")) else SafetensorsFiles(path)
    for files in (SafetensorsFiles, TorchFiles):
        if files.exists_in(path):
            return files(path)
    raise FileNotFoundError(
        f"{path} has no weights: expected {SafetensorsFiles.single_name}, {SafetensorsFiles.index_name()}, "
        f"{TorchFiles.single_name} or {TorchFiles.index_name()}."
    )


def elements_spanned(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many consecutive elements of a storage hold a strided tensor."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def parse_json_object(text: bytes) -> dict:
    """Parses a JSON object strictly; raises ValueError for anything else, also for a key that occurs twice."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        result = {}
        for key, value in pairs:
            if key in result:
                raise ValueError(f"the key {key!r} occurs twice")
            result[key] = value
        return result

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is a {type(value).__name__} where an object is expected")
    return value


def read_index(path: Path) -> dict[str, str]:
    """Reads which shard holds which tensor; raises ValueError if the index is malformed or a shard lies elsewhere."""
    try:
        index = parse_json_object(path.read_bytes())
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError("it has no 'weight_map' with tensor names and shard files")
        for name, shard in weight_map.items():
            if not is_name_within(shard) or "/" in shard:
                raise ValueError(f"tensor {name!r} is said to be in {shard!r}, which is not a plain file name")
    except ValueError as error:
        raise ValueError(f"{path} is not a valid index of shards: {error}.") from None
    return weight_map
