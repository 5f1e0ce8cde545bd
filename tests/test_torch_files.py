"""Reading pytorch_model.bin without PyTorch: tensors come back, everything else is refused by name."""

import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tfheads.checkpoints.tensor_files import open_tensors
from tfheads.checkpoints.torch_files import TorchFiles


class Stored:
    """Stands for a tensor in the files that the tests write."""

    def __init__(self, array, storage=None, offset=0, strides=None, length=None):
        self.array = array
        self.storage = array if storage is None else storage
        self.offset = offset
        self.strides = [stride // array.itemsize for stride in array.strides] if strides is None else strides
        self.length = self.storage.size if length is None else length


STORAGES = {"float32": "FloatStorage", "bfloat16": "BFloat16Storage", "int64": "LongStorage", "bool": "BoolStorage"}


def named(module, name):
    """A function that pickles as `module.name`."""
    value = types.FunctionType((lambda *arguments: None).__code__, {}, name)
    value.__module__, value.__qualname__ = module, name
    return value


REBUILD = named("torch._utils", "_rebuild_tensor_v2")


@pytest.fixture
def torch_names(monkeypatch):
    """Lets the pickler find the names of PyTorch, which is not installed."""
    torch, inner = types.ModuleType("torch"), types.ModuleType("torch._utils")
    inner._rebuild_tensor_v2 = REBUILD
    for storage in STORAGES.values():
        setattr(torch, storage, named("torch", storage))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", inner)


def describe(tensors, *, protocol=2, old=False):
    """The pickle of a dictionary of tensors, and their storages."""
    storages = []

    class TensorPickler(pickle.Pickler):
        def reducer_override(self, value):
            if not isinstance(value, Stored):
                return NotImplemented
            shape, strides = tuple(value.array.shape), tuple(value.strides)
            return REBUILD, (StorageMark(value), value.offset, shape, strides, False, collections.OrderedDict())

        def persistent_id(self, value):
            if not isinstance(value, StorageMark):
                return None
            stored = value.stored
            keys = [key for key, storage in enumerate(storages) if storage is stored.storage]
            if not keys:
                storages.append(stored.storage)
            key = keys[0] if keys else len(storages) - 1
            kind = getattr(sys.modules["torch"], STORAGES[stored.storage.dtype.name])
            return ("storage", kind, str(key), "cpu", stored.length, *([None] if old else []))

    buffer = io.BytesIO()
    TensorPickler(buffer, protocol).dump(tensors)
    return buffer.getvalue(), storages


def write(path, tensors, *, protocol=2, folder="archive", compression=zipfile.ZIP_STORED, extra=(), drop=()):
    description, storages = describe(tensors, protocol=protocol)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", description)
        archive.writestr(f"{folder}/byteorder", "little")
        for key, storage in enumerate(storages):
            if key not in drop:
                archive.writestr(f"{folder}/data/{key}", storage.tobytes())
        for name, content in extra:
            archive.writestr(name, content)
    return path


def write_old(path, tensors, *, little_endian=True, keys=None):
    """The format before PyTorch 1.6."""
    description, storages = describe(tensors, old=True)
    keys = [str(key) for key in range(len(storages))] if keys is None else keys
    with open(path, "wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": little_endian}):
            file.write(pickle.dumps(value, 2))
        file.write(description + pickle.dumps(keys, 2))
        for storage in storages:
            file.write(struct.pack("<q", storage.size) + storage.tobytes())
    return path


class StorageMark:
    def __init__(self, stored):
        self.stored = stored


def write_description(path, description):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", description)
    return path


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_come_back(tmp_path, torch_names, protocol):
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    numbers = np.arange(10)
    brain = np.array([1.5, -2], ml_dtypes.bfloat16)
    tensors = collections.OrderedDict(
        matrix=Stored(matrix),
        tied=Stored(matrix),
        transposed=Stored(matrix.T, storage=matrix),
        slice=Stored(numbers[2:9:3], storage=numbers, offset=2),
        brain=Stored(brain),
        scalar=Stored(np.array(3, np.int64)),
        empty=Stored(np.zeros((0, 2), np.float32)),
        mask=Stored(np.array([True, False])),
    )
    tensors._metadata = collections.OrderedDict({"": {"version": 1}})
    write(tmp_path / "pytorch_model.bin", tensors, protocol=protocol)
    with open_tensors(tmp_path) as files:
        assert files.names() == list(tensors)
        for name, stored in tensors.items():
            read = files.read(name)
            assert read.dtype == stored.array.dtype == files.dtype(name)
            assert read.shape == files.shape(name)
            assert np.array_equal(read, stored.array)
        assert np.array_equal(files.read_rows("transposed", 1, 3), matrix.T[1:3])
        assert np.array_equal(files.read_rows("matrix", 1, 3), matrix[1:3])
        assert np.array_equal(files.read_rows("slice", 1, 3), [5, 8])


def test_rows_of_a_transposed_tensor_are_read_without_what_lies_between(tmp_path, torch_names, monkeypatch):
    matrix = np.arange(600, dtype=np.float32).reshape(6, 100)
    write(tmp_path / "pytorch_model.bin", collections.OrderedDict(kernel=Stored(matrix.T, storage=matrix)))
    sizes = []
    into = TorchFiles._read_into
    monkeypatch.setattr(TorchFiles, "_read_into", lambda *given: sizes.append(given[-1].size) or into(*given))
    with open_tensors(tmp_path) as files:
        assert np.array_equal(files.read_rows("kernel", 20, 30), matrix.T[20:30])
    assert sum(sizes) == 4 * 6 * 10


def test_the_format_before_version_1_6(tmp_path, torch_names):
    matrix, numbers = np.arange(12, dtype=np.float32).reshape(4, 3), np.arange(10)
    tensors = collections.OrderedDict(
        matrix=Stored(matrix),
        transposed=Stored(matrix.T, storage=matrix),
        slice=Stored(numbers[2:9:3], storage=numbers, offset=2),
    )
    path = write_old(tmp_path / "pytorch_model.bin", tensors)
    with open_tensors(tmp_path) as files:
        for name, stored in tensors.items():
            assert np.array_equal(files.read(name), stored.array)
    content = path.read_bytes()
    for length in range(2, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is not a readable PyTorch checkpoint"):
            open_tensors(tmp_path)
    write_old(path, tensors, little_endian=False)
    with pytest.raises(ValueError, match="big-endian"):
        open_tensors(path)
    write_old(path, tensors, keys=["0", "7"])
    with pytest.raises(ValueError, match="not those of its tensors"):
        open_tensors(path)
    write_old(path, {"a": Malicious(io.open, str(tmp_path / "executed"), "w")})
    with pytest.raises(ValueError, match=r"asks for io\.open"):
        open_tensors(path)
    assert not (tmp_path / "executed").exists()


def test_shards_come_back(tmp_path, torch_names):
    for number, name in enumerate("ab", start=1):
        array = np.full(3, number, np.float32)
        write(tmp_path / f"pytorch_model-0000{number}-of-00002.bin", {name: Stored(array)})
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with open_tensors(tmp_path) as files:
        assert files.read("a")[0] == 1
        assert files.read("b")[0] == 2
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FileNotFoundError, match="pytorch_model-00002-of-00002.bin"):
        open_tensors(tmp_path)


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_is_executed(tmp_path, torch_names):
    marker = tmp_path / "executed"
    path = write(tmp_path / "a.bin", {"a": Malicious(io.open, str(marker), "w")})
    with pytest.raises(ValueError, match="a.bin is not .* asks for io.open, and only tensors"):
        open_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize("target", [eval, getattr, print, collections.Counter, pickle.loads])
def test_other_classes_are_named(tmp_path, torch_names, target):
    path = write(tmp_path / "a.bin", {"a": Malicious(target, "x")})
    with pytest.raises(ValueError, match=f"asks for .*{target.__name__}, and only"):
        open_tensors(path)


PROGRAMS = {
    "nothing": (b"", "exhausted"),
    "no stop": (b"\x80\x02}", "exhausted"),
    "empty stack": (b"\x80\x02.", "malformed"),
    "unknown code": (b"\x80\x02\xff.", "not a readable"),
    "call of a dictionary": (b"\x80\x02}R.", "malformed"),
    "memo that is not there": (b"\x80\x02h\x07.", "malformed"),
    "old instructions": (b"(ios\nsystem\n.", "uses INST"),
    "extension": (b"\x80\x02\x82\x01.", "uses EXT1"),
    "new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "uses NEWOBJ"),
    "attributes of a function": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "malformed"),
    "giant array": (b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"x.", "not a readable"),
    "a list": (b"\x80\x02].", "dictionary of tensors"),
    "an empty dictionary": (b"\x80\x02}.", "dictionary of tensors"),
    "a number": (pickle.dumps({"step": 3}, 2), "'step' is not a tensor but a int"),
    "nested": (pickle.dumps({"model": {"a": 1}}, 2), "'model' is not a tensor but a dict"),
    # Tuples of tuples, each twice the one before: to hash or print the last one would take forever.
    "an endless key": (b"\x80\x02})" + b"q\x00h\x00\x86" * 80 + b"K\x01s.", "malformed"),
    "an endless value": (b"\x80\x02}X\x01\x00\x00\x00a)" + b"q\x00h\x00\x86" * 80 + b"s.", "'a' is not a tensor"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_bad_description_is_one_clear_error(tmp_path, case):
    description, message = PROGRAMS[case]
    path = write_description(tmp_path / "pytorch_model.bin", description)
    with pytest.raises(ValueError, match=message) as error:
        open_tensors(tmp_path)
    assert str(path) in str(error.value)


ONES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (Stored(ONES, offset=1), "beyond its storage"),
        (Stored(ONES, strides=[2]), "beyond its storage"),
        (Stored(np.lib.stride_tricks.as_strided(ONES, (10**9,), (0,)), storage=ONES), "beyond its storage"),
        (Stored(ONES, strides=[-1]), "malformed"),
        (Stored(ONES, offset=-1), "malformed"),
        (Stored(ONES, strides=[1, 1]), "malformed"),
        (Stored(ONES, length=8), "should have 32 bytes, but has 16"),
    ],
)
def test_a_tensor_outside_its_storage(tmp_path, torch_names, stored, message):
    path = write(tmp_path / "a.bin", {"a": stored})
    with pytest.raises(ValueError, match=message):
        open_tensors(path)


def test_archives_that_are_refused(tmp_path, torch_names):
    tensors = {"a": Stored(ONES)}
    path = tmp_path / "a.bin"
    write(path, tensors, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed or encrypted"):
        open_tensors(path)
    write(path, tensors, drop=[0])
    with pytest.raises(ValueError, match="numbers of tensor 'a' are missing"):
        open_tensors(path)
    write(path, tensors, extra=[("other/data.pkl", b"")])
    with pytest.raises(ValueError, match=r"exactly one data\.pkl"):
        open_tensors(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        write(path, tensors, extra=[("archive/data/0", b"")])
    with pytest.raises(ValueError, match="occurs twice"):
        open_tensors(path)
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match="not a zip archive"):
        open_tensors(path)
    path.write_bytes(pickle.dumps(1, 2))
    with pytest.raises(ValueError, match=r"not one of torch\.save"):
        open_tensors(path)


def test_every_truncation_is_an_error(tmp_path, torch_names):
    path = write(tmp_path / "a.bin", {"a": Stored(ONES)})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.bin is not a readable PyTorch checkpoint"):
            open_tensors(path)
