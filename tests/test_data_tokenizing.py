"""Tokenisation with its cache, blocks by group_texts' rule, pieces of documents, and the errors before training."""

import glob
import os
import subprocess
import sys

import datasets
import numpy as np
import pytest

from tfheads.data import tokenizing
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece

LINES = [f"line {i} of the corpus says unbelievable things about {i * i} words\n" for i in range(50)] + ["", "x"]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def gpt2():
    return train_byte_level_bpe(LINES, 300)


@pytest.fixture(scope="module")
def bert():
    return train_wordpiece(LINES, 90)


@pytest.fixture
def on_disk(tmp_path):
    datasets.Dataset.from_dict({"text": LINES, "number": range(len(LINES))}).save_to_disk(tmp_path / "saved")
    return datasets.load_from_disk(tmp_path / "saved")


def reference_blocks(rows, block_size):
    flat = [token for row in rows for token in row]
    total = len(flat) // block_size * block_size
    return [flat[i : i + block_size] for i in range(0, total, block_size)]


def test_rows_are_what_the_tokenizer_says(gpt2, bert, on_disk):
    for tokenizer in (gpt2, bert):
        for special in (True, False):
            found = tokenizing.tokenize_texts(on_disk, tokenizer, add_special_tokens=special)
            assert found.column_names == ["input_ids"] and found.features["input_ids"].feature.dtype == "int32"
            assert list(found["input_ids"]) == tokenizer(LINES, add_special_tokens=special)["input_ids"]
    stream = tokenizing.tokenize_texts(on_disk.to_iterable_dataset(), bert, max_length=6)
    assert [row["input_ids"] for row in stream] == bert(LINES, truncation=True, max_length=6)["input_ids"]
    assert list(stream.features) == ["input_ids"]


def test_end_of_text_and_truncation(gpt2, bert, on_disk):
    ended = tokenizing.tokenize_texts(on_disk, gpt2, append_end_of_text=True, max_length=5)["input_ids"]
    assert all(row[-1] == gpt2.eos_token_id and len(row) <= 5 for row in ended)
    with pytest.raises(ValueError, match="append_end_of_text needs a tokenizer with an eos_token"):
        tokenizing.tokenize_texts(on_disk, bert, append_end_of_text=True)


def test_word_continuation_marks_the_pieces_after_the_first(bert, on_disk):
    found = tokenizing.tokenize_texts(on_disk, bert, word_continuation=True)
    for row in found:
        tokens = bert.convert_ids_to_tokens(row["input_ids"])
        assert row["word_continuation"] == [int(token.startswith("##")) for token in tokens]
    assert sum(map(sum, found["word_continuation"])) > 100


def test_several_processes_give_the_same(gpt2, on_disk):
    one, two = (tokenizing.tokenize_texts(on_disk, gpt2, num_proc=count) for count in (None, 2))
    assert list(one["input_ids"]) == list(two["input_ids"])


def test_cache_is_found_again_and_not_mistaken(gpt2, bert, on_disk, monkeypatch):
    first = tokenizing.tokenize_texts(on_disk, gpt2)
    # What a call leaves behind in the tokenizer must not change the fingerprint.
    gpt2(["a b c"], truncation=True, max_length=1)
    monkeypatch.setattr(tokenizing, "_token_columns", None)
    again = tokenizing.tokenize_texts(on_disk, gpt2)
    assert again._fingerprint == first._fingerprint and again.cache_files == first.cache_files
    monkeypatch.undo()
    others = [
        tokenizing.tokenize_texts(on_disk, bert),
        tokenizing.tokenize_texts(on_disk, gpt2, append_end_of_text=True),
        tokenizing.tokenize_texts(on_disk.select(range(3)), gpt2),
    ]
    assert len({first._fingerprint, *(other._fingerprint for other in others)}) == 4


def test_fingerprint_is_the_same_in_another_process(bert, tmp_path):
    bert.save_pretrained(tmp_path)
    code = (
        "import sys, transformers; from tfheads.data import tokenizing;"
        "print(tokenizing.tokenizer_fingerprint(transformers.AutoTokenizer.from_pretrained(sys.argv[1])))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.strip() == tokenizing.tokenizer_fingerprint(bert)


def test_blocks_follow_the_remainder_rule(gpt2, on_disk):
    in_memory = datasets.Dataset.from_dict({"text": LINES})
    for dataset in (on_disk, in_memory, on_disk.shuffle(seed=1)):
        tokenized = tokenizing.tokenize_texts(dataset, gpt2)
        rows = list(tokenized["input_ids"])
        for block_size in (2, 16, 100):
            blocks = tokenizing.group_into_blocks(tokenized, block_size)["input_ids"]
            assert blocks.dtype == np.int32 and blocks.tolist() == reference_blocks(rows, block_size)
            assert len(blocks) == sum(map(len, rows)) // block_size


def test_flat_files_are_mapped_and_written_once(gpt2, on_disk, monkeypatch):
    tokenized = tokenizing.tokenize_texts(on_disk, gpt2, word_continuation=True)
    values, splits = tokenizing.flatten_tokens(tokenized)
    folder = os.path.dirname(tokenized.cache_files[0]["filename"])
    assert len(glob.glob(os.path.join(folder, "flat-*.npy"))) == 3 and not glob.glob(os.path.join(folder, "*.part"))
    monkeypatch.setattr(tokenizing, "_write_values", None)
    again, _ = tokenizing.flatten_tokens(tokenized)
    assert all(isinstance(array, np.memmap) and array.mode == "c" for array in again.values())
    assert splits[0] == 0 and splits[-1] == len(values["input_ids"]) == len(values["word_continuation"])


def test_a_killed_write_leaves_nothing_behind(gpt2, on_disk, monkeypatch):
    tokenized = tokenizing.tokenize_texts(on_disk, gpt2)

    def fail(*arguments):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tokenizing, "_write_values", fail)
        with pytest.raises(OSError, match="No space"):
            tokenizing.group_into_blocks(tokenized, 8)
    folder = os.path.dirname(tokenized.cache_files[0]["filename"])
    assert not glob.glob(os.path.join(folder, "*.part")) and not glob.glob(os.path.join(folder, "flat-*input_ids*"))
    assert len(tokenizing.group_into_blocks(tokenized, 8)["input_ids"]) > 10


def test_pieces_never_cross_documents(gpt2, on_disk):
    tokenized = tokenizing.tokenize_texts(on_disk, gpt2)
    for block_size in (2, 7, 1000):
        values, spans = tokenizing.split_documents(tokenized, block_size)
        found = [values["input_ids"][start:end].tolist() for start, end in spans]
        expected = [row[i : i + block_size] for row in tokenized["input_ids"] for i in range(0, len(row), block_size)]
        assert found == [piece for piece in expected if len(piece) > 1]


def test_corpora_without_one_block(gpt2):
    short = tokenizing.tokenize_texts(datasets.Dataset.from_dict({"text": ["one line"]}), gpt2)
    tokens = len(short[0]["input_ids"])
    with pytest.raises(ValueError, match=f"its 1 rows hold {tokens} tokens, fewer than one block of block_size=128"):
        tokenizing.group_into_blocks(short, 128)
    empty = tokenizing.tokenize_texts(datasets.Dataset.from_dict({"text": ["", "x"]}), gpt2)
    with pytest.raises(ValueError, match="none of its 2 rows holds two tokens"):
        tokenizing.split_documents(empty, 8)


def test_block_size_and_its_limits(gpt2):
    short = train_byte_level_bpe(LINES, 300, model_max_length=64)
    assert tokenizing.resolve_block_size(None) == 1024 and tokenizing.resolve_block_size(2048) == 2048
    assert (
        tokenizing.resolve_block_size(None, short, 512) == 64 and tokenizing.resolve_block_size(None, gpt2, 512) == 512
    )
    with pytest.raises(ValueError, match="block_size=513 is beyond the model's position limit of 512 tokens"):
        tokenizing.resolve_block_size(513, gpt2, 512)
    with pytest.raises(ValueError, match="block_size=65 is beyond the tokenizer's model_max_length of 64"):
        tokenizing.resolve_block_size(65, short)
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        tokenizing.resolve_block_size(1)


def test_slow_tokenizers_are_refused(on_disk):
    with pytest.raises(TypeError, match="must be a fast one .* got str"):
        tokenizing.tokenize_texts(on_disk, "bert-base-uncased")
