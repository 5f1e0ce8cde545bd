"""Reading and writing safetensors files: exact bytes, and one clear error for each way a file can be wrong."""

import json
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tfheads.checkpoints.safetensors_files import (
    DTYPES,
    SafetensorsFiles,
    TensorSource,
    shard_size_in_bytes,
    write_safetensors,
    write_shards,
)
from tfheads.checkpoints.tensor_files import open_tensors


def arrays() -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {
        "embedding.weight": random.randn(11, 4).astype(np.float32),
        "half": random.randn(2, 3).astype(np.float16),
        "brain": random.randn(5).astype(ml_dtypes.bfloat16),
        "mask": np.array([[True, False], [False, True]]),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }


def sources(tensors: dict[str, np.ndarray]) -> list[TensorSource]:
    return [TensorSource.of(name, array) for name, array in tensors.items()]


def raw_file(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def record(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def assert_same(files: SafetensorsFiles, tensors: dict[str, np.ndarray]) -> None:
    assert set(files.names()) == set(tensors)
    for name, array in tensors.items():
        assert files.shape(name) == array.shape
        assert files.dtype(name) == array.dtype
        read = files.read(name)
        assert read.dtype == array.dtype
        assert read.shape == array.shape
        assert read.tobytes() == array.tobytes()


def test_one_file_comes_back(tmp_path):
    assert write_shards(sources(arrays()), tmp_path) == ["model.safetensors"]
    with open_tensors(tmp_path) as files:
        assert_same(files, arrays())
        assert "half" in files
        assert len(files) == 6
        assert files.total_bytes() == sum(array.nbytes for array in arrays().values())
        assert files.file("half") == tmp_path / "model.safetensors"


def test_shards_come_back(tmp_path):
    files = write_shards(sources(arrays()), tmp_path, max_shard_size=100)
    # The table is larger than the limit and has a shard of its own.
    assert files == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    with open_tensors(tmp_path) as opened:
        assert_same(opened, arrays())
    index = json.loads((tmp_path / files[-1]).read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays().values())
    assert set(index["weight_map"]) == set(arrays())


def test_the_bytes_are_those_of_the_safetensors_library(tmp_path):
    tensors = {f"tensor{i}\u00e9": np.ones((i % 3 + 1, 2), dtype) for i, dtype in enumerate(DTYPES.values())}
    safetensors.numpy.save_file(tensors, tmp_path / "library.safetensors", metadata={"format": "pt"})
    write_safetensors(tmp_path / "ours.safetensors", sources(tensors))
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "library.safetensors").read_bytes()
    assert_same(SafetensorsFiles(tmp_path / "library.safetensors"), tensors)


def test_rows_of_a_table(tmp_path):
    write_shards(sources(arrays()), tmp_path)
    files = open_tensors(tmp_path)
    table = arrays()["embedding.weight"]
    assert np.array_equal(files.read_rows("embedding.weight", 3, 8), table[3:8])
    assert files.read_rows("embedding.weight", 4, 4).shape == (0, 4)
    with pytest.raises(ValueError, match="11 rows"):
        files.read_rows("embedding.weight", 3, 12)
    with pytest.raises(ValueError, match="scalar"):
        files.read_rows("scalar", 0, 1)
    with pytest.raises(KeyError, match="no tensor named 'nothing'"):
        files.read("nothing")


def test_memory_holds_one_tensor_at_a_time(tmp_path):
    size = 4_000_000

    def make(number):
        return lambda: np.full(size // 4, number, np.float32)

    tensors = [TensorSource(str(i), (size // 4,), np.dtype(np.float32), make(i)) for i in range(8)]
    tracemalloc.start()
    write_shards(tensors, tmp_path, max_shard_size="10MB")
    with open_tensors(tmp_path) as files:
        assert all(files.read(name)[0] == int(name) for name in files.names())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * size


def test_open_files_survive_a_replacement(tmp_path):
    write_shards(sources({"a": np.zeros(3, np.float32)}), tmp_path)
    files = open_tensors(tmp_path)
    write_safetensors(tmp_path / "new", sources({"a": np.ones(5, np.float32)}))
    (tmp_path / "new").replace(tmp_path / "model.safetensors")
    assert np.array_equal(files.read("a"), np.zeros(3))


GOOD = {"a": record()}
BROKEN = {
    "empty": (b"", None, "fewer than the 8"),
    "no header": (struct.pack("<Q", 50) + b"{}", None, "should have 50 bytes"),
    "giant header": (struct.pack("<Q", 2**63), None, "more than the 100000000"),
    "not an object": (b"[]", b"", "not a JSON object"),
    "not JSON": (b'{"a": ', b"", "not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", "not valid JSON"),
    "deep JSON": (b'{"a":' + b"[" * 100_000, b"", "not valid JSON"),
    "name twice": (b'{"a": 1, "a": 2}', b"", "occurs twice"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    "record": ({"a": {"dtype": "F32"}}, b"", "exactly the keys"),
    "record kind": ({"a": [1]}, b"", "exactly the keys"),
    "dtype": ({"a": record("F4")}, b"1234", "unknown dtype 'F4'"),
    "dtype kind": ({"a": {**record(), "dtype": ["F32"]}}, b"1234", "unknown dtype"),
    "negative shape": ({"a": record(shape=[-1])}, b"1234", "impossible shape"),
    "float shape": ({"a": record(shape=[1.0])}, b"1234", "impossible shape"),
    "boolean shape": ({"a": record(shape=[True])}, b"1234", "impossible shape"),
    "giant empty shape": ({"a": record(shape=[0, 2**62], offsets=[0, 0])}, b"", "impossible shape"),
    "offsets": ({"a": record(offsets=[4, 0])}, b"1234", "impossible data_offsets"),
    "offsets kind": ({"a": record(offsets=[0])}, b"1234", "impossible data_offsets"),
    "size": ({"a": record(shape=[2])}, b"1234", "takes 8 bytes, but has 4"),
    "overlap": ({"a": record(), "b": record(offsets=[2, 6])}, b"123456", "'b' overlaps"),
    "same bytes": ({"a": record(), "b": record()}, b"1234", "overlaps"),
    "hole": ({"a": record(), "b": record(offsets=[8, 12])}, b"123456789012", "4 bytes before tensor 'b'"),
    "truncated": ({"a": record(shape=[4], offsets=[0, 16])}, b"12345678", "truncated"),
    "more": (GOOD, b"12345", "1 bytes at its end"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_clear_error(tmp_path, case):
    header, data, message = BROKEN[case]
    path = tmp_path / "model.safetensors"
    if data is None:
        path.write_bytes(header)
    else:
        raw_file(path, header, data)
    with pytest.raises(ValueError, match=message) as error:
        open_tensors(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_every_truncation_of_a_good_file_is_an_error(tmp_path):
    write_shards(sources(arrays()), tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="model.safetensors is not a valid safetensors file"):
            open_tensors(tmp_path)


def test_a_file_that_shrinks_while_open_is_an_error(tmp_path):
    write_shards(sources(arrays()), tmp_path)
    files = open_tensors(tmp_path)
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match="truncated while being read"):
        files.read("mask")


def test_booleans_are_0_or_1(tmp_path):
    raw_file(tmp_path / "model.safetensors", {"a": record("BOOL", [2], [0, 2])}, b"\x01\x02")
    with pytest.raises(ValueError, match="other than 0 and 1"):
        open_tensors(tmp_path).read("a")


@pytest.fixture
def sharded(tmp_path):
    write_shards(sources({"a": np.zeros(4, np.float32), "b": np.ones(4, np.float32)}), tmp_path, max_shard_size=16)
    return tmp_path


def edit_index(directory, change):
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def test_a_missing_shard(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors"):
        open_tensors(sharded)


def test_a_tensor_that_the_index_does_not_name(sharded):
    write_safetensors(
        sharded / "model-00002-of-00002.safetensors", sources({"b": np.ones(4, "f4"), "c": np.ones(1, "f4")})
    )
    with pytest.raises(ValueError, match="'c' is in the shard .*model-00002-of-00002.safetensors"):
        open_tensors(sharded)


def test_a_tensor_that_the_shard_does_not_hold(sharded):
    edit_index(sharded, lambda index: index["weight_map"].update(c="model-00001-of-00002.safetensors"))
    with pytest.raises(ValueError, match="says that tensor 'c' is in model-00001-of-00002.safetensors"):
        open_tensors(sharded)


def test_a_tensor_in_two_shards(sharded):
    write_safetensors(
        sharded / "model-00002-of-00002.safetensors", sources({"a": np.ones(4, "f4"), "b": np.ones(4, "f4")})
    )
    with pytest.raises(ValueError, match="'a' is in two shards"):
        open_tensors(sharded)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "folder/model.safetensors", "..", "", "a\\b", "C:model", 3]
)
def test_a_shard_outside_the_directory(sharded, shard):
    edit_index(sharded, lambda index: index["weight_map"].update(a=shard))
    with pytest.raises(ValueError, match="not a plain file name"):
        open_tensors(sharded)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "x", "a": "y"}}'])
def test_a_broken_index(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="index.json is not a valid index of shards"):
        open_tensors(sharded)


def test_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no weights: expected model.safetensors"):
        open_tensors(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        open_tensors(tmp_path / "nowhere")


def test_max_shard_size():
    assert shard_size_in_bytes("5GB") == 5 * 10**9
    assert shard_size_in_bytes("1.5mb") == 1_500_000
    assert shard_size_in_bytes(17) == 17
    for bad in ("5", "GB", "-1GB", "5GiB", 0, -3, 1.5, True, None, "0KB"):
        with pytest.raises(ValueError, match="max_shard_size must be"):
            shard_size_in_bytes(bad)


def test_tensors_that_cannot_be_written(tmp_path):
    ones = np.ones(2, np.float32)
    with pytest.raises(ValueError, match="no tensors"):
        write_shards([], tmp_path)
    with pytest.raises(ValueError, match="Two tensors are named 'a'"):
        write_shards([TensorSource.of("a", ones), TensorSource.of("a", ones)], tmp_path)
    with pytest.raises(ValueError, match="complex128"):
        write_shards([TensorSource.of("a", ones.astype(np.complex128))], tmp_path)
    with pytest.raises(ValueError, match="announced as float16"):
        write_shards([TensorSource("a", (2,), np.dtype(np.float16), lambda: ones)], tmp_path)
