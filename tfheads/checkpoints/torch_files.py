"""Reads the older `pytorch_model.bin` files without running anything that is in them.

`torch.save` writes a zip archive: `data.pkl` describes the tensors, `data/<key>` holds the bytes of each storage.
Before version 1.6 of PyTorch the same description and storages followed each other in one plain file. The description
is a pickle, and a pickle is a program that may call any function, so it is not unpickled here: the instructions that
describe tensors are followed by an interpreter of its own, and any other instruction or class is an error. PyTorch is
not needed.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from tfheads.checkpoints.tensor_files import Entry, TensorFiles, elements_spanned

STORAGE_DTYPES: dict[str, np.dtype] = {
    f"torch {name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Float": np.float32,
        "Double": np.float64,
        "Half": np.float16,
        "BFloat16": ml_dtypes.bfloat16,
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
        "ComplexFloat": np.complex64,
    }.items()
}
# A description of tensors takes some hundred bytes for each; this is room for half a million of them.
LONGEST_DESCRIPTION = 100_000_000
# The older format does not say how long the description is.
LONGEST_OLD_DESCRIPTION = 16_000_000
OLD_FORMAT = 0x1950A86A20F9469CFC6C
DICTIONARY = "collections OrderedDict"
REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
ADMITTED = {DICTIONARY, REBUILD_TENSOR, REBUILD_PARAMETER, *STORAGE_DTYPES}


class TorchFiles(TensorFiles):
    """The tensors of `pytorch_model.bin`, or of `pytorch_model.bin.index.json` and its shards."""

    single_name = "pytorch_model.bin"

    @classmethod
    def read_header(cls, path: Path, file: BinaryIO) -> dict[str, Entry]:
        """The entries of one file; raises ValueError for anything in it that is not a named tensor."""
        try:
            start = file.read(2)
            file.seek(0)
            if start == b"PK":
                return _read_archive(path, file)
            if start == b"\x80\x02":
                return _read_sequence(path, file)
            raise ValueError("it is not a zip archive")
        except (ValueError, zipfile.BadZipFile, NotImplementedError, struct.error) as error:
            raise ValueError(f"{path} is not a readable PyTorch checkpoint: {str(error).rstrip('.')}.") from None


@dataclass(frozen=True)
class Class:
    """The name of a class or function; naming it is all that happens to it."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A block of numbers in the archive."""

    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _read_archive(path: Path, file: BinaryIO) -> dict[str, Entry]:
    archive = zipfile.ZipFile(file)
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise ValueError("a member of the archive occurs twice")
    for member in members.values():
        # torch.save stores without compression; anything else could unpack to more than the file's size.
        if (
            member.compress_type != zipfile.ZIP_STORED
            or member.flag_bits & 1
            or member.file_size != member.compress_size
        ):
            raise ValueError(f"the member {member.filename!r} is compressed or encrypted")
    descriptions = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(descriptions) != 1:
        raise ValueError("it does not hold exactly one data.pkl")
    folder = descriptions[0].removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    if order is not None and order.file_size < 100 and archive.read(order) != b"little":
        raise ValueError("its numbers are stored in big-endian order")
    if members[descriptions[0]].file_size > LONGEST_DESCRIPTION:
        raise ValueError("its data.pkl is too long to be a description of tensors")
    tensors = _named_tensors(io.BytesIO(archive.read(descriptions[0])))
    blocks = {}
    for name, tensor in tensors.items():
        key = tensor.storage.key
        member = members.get(f"{folder}data/{key}")
        if member is None:
            raise ValueError(f"the numbers of tensor {name!r} are missing")
        if key not in blocks:
            blocks[key] = _start_of_member(file, member), member.file_size
    return {name: _entry(path, name, tensor, *blocks[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_sequence(path: Path, file: BinaryIO) -> dict[str, Entry]:
    """The format before PyTorch 1.6: pickles of a number, a version, the machine, the tensors, and their storages."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    description = io.BytesIO(file.read(min(size, LONGEST_OLD_DESCRIPTION)))
    if _Interpreter().run(description) != OLD_FORMAT:
        raise ValueError("it is a pickle, but not one of torch.save")
    _Interpreter().run(description)
    machine = _Interpreter().run(description)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are stored in big-endian order")
    tensors = _named_tensors(description)
    keys = _Interpreter().run(description)
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("its storages are not those of its tensors")
    blocks, end = {}, description.tell()
    for key in keys:
        file.seek(end)
        # Each storage begins with its length.
        length = int.from_bytes(file.read(8), "little") * storages[key].dtype.itemsize
        blocks[key] = end + 8, length
        end += 8 + length
    if end > size:
        raise ValueError(f"it is truncated: its tensors need {end} bytes, but it has {size}")
    return {name: _entry(path, name, tensor, *blocks[tensor.storage.key]) for name, tensor in tensors.items()}


def _named_tensors(description: BinaryIO) -> dict[str, Tensor]:
    result = _Interpreter().run(description)
    if not isinstance(result, dict) or not result:
        raise ValueError("it does not hold a dictionary of tensors")
    for name, value in result.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"the entry {name!r} is not a tensor but a {type(value).__name__}")
    return result


def _entry(path: Path, name: str, tensor: Tensor, start: int, length: int) -> Entry:
    storage = tensor.storage
    itemsize = storage.dtype.itemsize
    if length != storage.length * itemsize:
        raise ValueError(
            f"the storage of tensor {name!r} should have {storage.length * itemsize} bytes, but has {length}"
        )
    # A stride of 0 would turn one number into any amount of memory.
    spanned = elements_spanned(tensor.shape, tensor.strides)
    if tensor.offset + spanned > storage.length or math.prod(tensor.shape) > storage.length:
        raise ValueError(f"tensor {name!r} reaches beyond its storage")
    contiguous = tensor.strides == _row_major(tensor.shape) or math.prod(tensor.shape) <= 1
    offset = start + tensor.offset * itemsize
    return Entry(path, storage.dtype, tensor.shape, offset, None if contiguous else tensor.strides)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _start_of_member(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    file.seek(member.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise ValueError(f"the archive is damaged at its member {member.filename!r}")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = member.header_offset + 30 + name_length + extra_length
    if start + member.file_size > file.seek(0, io.SEEK_END):
        raise ValueError(f"the archive is truncated inside its member {member.filename!r}")
    return start


class _Interpreter:
    """Follows the pickle instructions that torch.save writes for a dictionary of tensors."""

    def __init__(self) -> None:
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self, description: BinaryIO) -> object:
        """The described object; raises ValueError for any other instruction, class or call."""
        try:
            for instruction, argument, _ in pickletools.genops(description):
                if instruction.name == "STOP":
                    return self.stack.pop()
                self._follow(instruction.name, argument)
        except ValueError:
            raise
        except (IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error):
            pass
        raise ValueError("its data.pkl is malformed")

    def _follow(self, instruction: str, argument: object) -> None:
        if instruction in _CONSTANTS:
            self.stack.append(_CONSTANTS[instruction]())
        elif instruction in _LITERALS:
            self.stack.append(argument)
        elif instruction in _TUPLES:
            count = _TUPLES[instruction]
            if len(self.stack) < count:
                raise IndexError(count)
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif instruction in _ACTIONS:
            _ACTIONS[instruction](self, argument)
        else:
            raise ValueError(f"its data.pkl uses {instruction}, which a dictionary of tensors does not need")

    def _mark(self, argument: object) -> None:
        self.marks.append(len(self.stack))

    def _since_mark(self) -> list:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _tuple(self, argument: object) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _put(self, argument: int) -> None:
        self.memo[argument] = self.stack[-1]

    def _memoize(self, argument: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    def _global(self, argument: str) -> None:
        self.stack.append(_admitted(argument))

    def _stack_global(self, argument: object) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        self.stack.append(_admitted(f"{module} {name}"))

    def _append(self, argument: object) -> None:
        value = self.stack.pop()
        _expect(self.stack[-1], list).append(value)

    def _appends(self, argument: object) -> None:
        values = self._since_mark()
        _expect(self.stack[-1], list).extend(values)

    def _set_item(self, argument: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_items(self.stack[-1], [key, value])

    def _set_items(self, argument: object) -> None:
        items = self._since_mark()
        _set_items(self.stack[-1], items)

    def _build(self, argument: object) -> None:
        # The attributes of a state dictionary (`_metadata`: versions of modules) say nothing about the tensors.
        self.stack.pop()
        _expect(self.stack[-1], dict)

    def _persistent(self, argument: object) -> None:
        kind, storage, key, _, length, *view = _expect(self.stack.pop(), tuple)
        if view not in ([], [None]):
            raise ValueError("its storages are parts of other storages")
        dtype = STORAGE_DTYPES[_expect(storage, Class).name]
        if kind != "storage" or not isinstance(key, str) or type(length) is not int or length < 0:
            raise TypeError(key)
        self.stack.append(Storage(key, dtype, length))

    def _reduce(self, argument: object) -> None:
        arguments = _expect(self.stack.pop(), tuple)
        name = _expect(self.stack.pop(), Class).name
        if name == DICTIONARY and arguments == ():
            self.stack.append({})
        elif name == REBUILD_PARAMETER:
            self.stack.append(_expect(arguments[0], Tensor))
        elif name == REBUILD_TENSOR:
            storage, offset, shape, strides = arguments[:4]
            if type(offset) is not int or offset < 0 or len(shape) != len(strides) or len(shape) > 32:
                raise TypeError(shape)
            if not all(type(size) is int and 0 <= size < 2**48 for size in (*shape, *strides)):
                raise TypeError(shape)
            self.stack.append(Tensor(_expect(storage, Storage), offset, tuple(shape), tuple(strides)))
        else:
            raise TypeError(name)


def _admitted(name: str) -> Class:
    if name not in ADMITTED:
        raise ValueError(f"it asks for {name.replace(' ', '.')}, and only tensors and dictionaries are admitted")
    return Class(name)


def _expect(value: object, kind: type) -> object:
    if not isinstance(value, kind):
        raise TypeError(value)
    return value


def _set_items(target: object, items: list) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Names only: hashing or printing a tuple that holds itself many times over may never end.
        _expect(target, dict)[_expect(key, str)] = value


_CONSTANTS: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_LITERALS = {"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ACTIONS: dict[str, Callable] = {
    "PROTO": lambda interpreter, argument: None,
    "FRAME": lambda interpreter, argument: None,
    "MARK": _Interpreter._mark,
    "TUPLE": _Interpreter._tuple,
    "BINPUT": _Interpreter._put,
    "LONG_BINPUT": _Interpreter._put,
    "MEMOIZE": _Interpreter._memoize,
    "BINGET": _Interpreter._get,
    "LONG_BINGET": _Interpreter._get,
    "GLOBAL": _Interpreter._global,
    "STACK_GLOBAL": _Interpreter._stack_global,
    "APPEND": _Interpreter._append,
    "APPENDS": _Interpreter._appends,
    "SETITEM": _Interpreter._set_item,
    "SETITEMS": _Interpreter._set_items,
    "BUILD": _Interpreter._build,
    "BINPERSID": _Interpreter._persistent,
    "REDUCE": _Interpreter._reduce,
}
