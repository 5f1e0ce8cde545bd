"""Batches: what they hold, exact order and resume, shards, buckets, streams, and `prepare_tf_dataset`."""

import datasets
import numpy as np
import pytest
import tensorflow as tf
from transformers import DataCollatorWithPadding

from tfheads.data import tokenizing
from tfheads.data.batching import prepare_tf_dataset
from tfheads.data.language_modeling import causal_blocks, masked_blocks
from tfheads.data.masking import TokenMasking
from tfheads.data.pipeline import TokenBlocks, TokenRows
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece

LINES = [f"{i} " + "the statement says unbelievable things " * (i % 7) for i in range(60)]


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


@pytest.fixture(scope="module")
def texts():
    return datasets.Dataset.from_dict({"text": LINES})


@pytest.fixture(scope="module")
def blocks():
    return TokenBlocks({"input_ids": np.arange(23 * 8, dtype=np.int32).reshape(23, 8)})


def make_rows(**options):
    lengths = np.array([2, 9, 4, 16, 3, 8, 5, 16, 1, 7, 12, 2, 2, 6, 10])
    splits = np.concatenate([[0], lengths.cumsum()])
    spans = np.stack([splits[:-1], splits[1:]], axis=1)
    values = np.arange(1, splits[-1] + 1, dtype=np.int32)
    expected = [values[start:end].tolist() for start, end in spans]
    return TokenRows({"input_ids": values}, spans, **options), expected


def numpy_batches(dataset):
    return list(dataset.as_numpy_iterator())


def block_numbers(batches):
    return [int(number) for batch in batches for number in batch["input_ids"][:, 0] // 8]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_batches_hold_the_blocks(blocks):
    found = numpy_batches(blocks.batches(4, shuffle=False))
    assert block_numbers(found) == list(range(23)) and [len(batch["labels"]) for batch in found] == [4] * 5 + [3]
    for batch in found:
        assert set(batch) == {"input_ids", "attention_mask", "labels"}
        assert all(value.dtype == np.int32 for value in batch.values())
        assert (batch["labels"] == batch["input_ids"]).all() and (batch["attention_mask"] == 1).all()
    dropped = blocks.batches(4)
    assert dropped.element_spec["input_ids"].shape == (4, 8)
    assert int(dropped.cardinality()) == blocks.steps_per_epoch(4) == 5
    assert int(blocks.batches(4, shuffle=False).cardinality()) == blocks.steps_per_epoch(4, False) == 6
    assert int(blocks.batches(4, epochs=None).cardinality()) == tf.data.INFINITE_CARDINALITY


def test_every_epoch_is_another_permutation(blocks):
    orders = [block_numbers(numpy_batches(blocks.batches(4, epoch=epoch, drop_remainder=False))) for epoch in range(3)]
    orders.append(block_numbers(numpy_batches(blocks.batches(4, seed=1, drop_remainder=False))))
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    in_one = block_numbers(numpy_batches(blocks.batches(4, epochs=3, drop_remainder=False)))
    assert in_one == [*orders[0], *orders[1], *orders[2]]


def test_orders_are_uniform():
    six = TokenBlocks({"input_ids": np.arange(6, dtype=np.int32).repeat(2).reshape(6, 2)})
    found = np.array([batch["input_ids"][:, 0] for batch in numpy_batches(six.batches(6, epochs=3000))])
    for place in range(6):
        counts = np.bincount(found[:, place], minlength=6)
        assert ((counts - 500) ** 2 / 500).sum() < 25.7  # chi-square with 5 degrees of freedom, 1 in 10 000
    assert len(np.unique(found, axis=0)) > 650  # of 720 orders


@pytest.mark.parametrize("masked", [False, True])
def test_resume_is_exact(blocks, masked):
    options = {"seed": 7, "epochs": 3, "masking": TokenMasking(3, 200, (0,), seed=5) if masked else None}
    unbroken = numpy_batches(blocks.batches(4, **options))
    assert len(unbroken) == 15
    for start in (4, 5, 13):
        assert_same(numpy_batches(blocks.batches(4, start_step=start, **options)), unbroken[start:])
    assert numpy_batches(blocks.batches(4, start_step=15, **options)) == []
    later = numpy_batches(blocks.batches(4, epoch=1, **options | {"epochs": 2}))
    assert_same(later, unbroken[5:])
    rows, _ = make_rows(bucket_lengths=[4, 8])
    unbroken = numpy_batches(rows.batches(2, epochs=3))
    assert_same(numpy_batches(rows.batches(2, epochs=3, start_step=8)), unbroken[8:])


def test_masks_change_with_the_epoch_and_not_with_the_batch_size(blocks):
    masking = TokenMasking(3, 200, (0,))
    one, same, other = (
        np.concatenate(
            [
                batch["labels"]
                for batch in numpy_batches(blocks.batches(size, shuffle=False, masking=masking, epoch=epoch))
            ]
        )
        for size, epoch in ((23, 0), (5, 0), (23, 1))
    )
    assert (one == same).all() and (one != other).any()


def test_shards_are_disjoint_complete_and_step_for_step_one_batch(blocks):
    rows, _ = make_rows(bucket_lengths=[4, 8])
    for data in (blocks, rows):
        for shuffle in (False, True):
            whole = numpy_batches(data.batches(6, shuffle=shuffle, drop_remainder=True))
            parts = [
                numpy_batches(data.shard(index, 3).batches(2, shuffle=shuffle, drop_remainder=True))
                for index in range(3)
            ]
            assert len(whole) == len(parts[0]) == data.shard(1, 3).steps_per_epoch(2) > 0
            for step, batch in enumerate(whole):
                together = np.concatenate([part[step]["input_ids"] for part in parts])
                assert sorted(together.tolist()) == sorted(batch["input_ids"].tolist())
        seen = []
        for index in range(3):
            shard = data.shard(index, 3)
            found = numpy_batches(shard.batches(2, shuffle=False))
            assert len(found) == shard.steps_per_epoch(2, False)
            seen += [tuple(row[row > 0]) for batch in found for row in batch["input_ids"]]
        assert len(seen) == len(set(seen)) == data.rows == sum(len(data.shard(index, 3)) for index in range(3))
    with pytest.raises(ValueError, match="already shard 0 of 3"):
        data.shard(0, 3).shard(0, 2)
    with pytest.raises(ValueError, match="index=3, count=3"):
        data.shard(3, 3)


def test_rows_are_padded_to_few_lengths():
    for bounds, lengths in (((), {16}), ((4, 8), {4, 8, 16}), ((4, 100), {4, 16})):
        rows, expected = make_rows(bucket_lengths=bounds, pad_token_id=-7)
        for shuffle in (False, True):
            found = numpy_batches(rows.batches(2, shuffle=shuffle, drop_remainder=False))
            assert {batch["input_ids"].shape[1] for batch in found} == lengths
            seen = []
            for batch in found:
                mask = batch["attention_mask"] == 1
                assert (batch["input_ids"][~mask] == -7).all() and (batch["labels"][~mask] == -100).all()
                assert (batch["labels"][mask] == batch["input_ids"][mask]).all()
                seen += [ids[real].tolist() for ids, real in zip(batch["input_ids"], mask, strict=True)]
            assert sorted(seen) == expected
            assert len(found) == rows.steps_per_epoch(2, False)
    assert make_rows(block_size=20)[0].batches(2).element_spec["input_ids"].shape == (2, 20)
    with pytest.raises(ValueError, match="block_size=15 is below the longest row of 16"):
        make_rows(block_size=15)


def test_mapped_files_are_not_copied(tmp_path, texts, gpt2):
    texts.save_to_disk(tmp_path / "saved")
    tokenized = tokenizing.tokenize_texts(datasets.load_from_disk(tmp_path / "saved"), gpt2)
    arrays = tokenizing.group_into_blocks(tokenized, 16)
    tensor = TokenBlocks(arrays).columns["input_ids"]
    before = int(tensor[2, 3])
    arrays["input_ids"][2, 3] += 1  # of this process only: the file is mapped copy-on-write
    assert int(tensor[2, 3]) == before + 1
    assert int(tokenizing.group_into_blocks(tokenized, 16)["input_ids"][2, 3]) == before


def test_causal_blocks_end_to_end(texts, gpt2):
    flat = [token for row in gpt2(LINES)["input_ids"] for token in row]
    data = causal_blocks(texts, gpt2, 32)
    found = np.concatenate([batch["input_ids"] for batch in numpy_batches(data.batches(4, shuffle=False))])
    assert found.reshape(-1).tolist() == flat[: len(flat) // 32 * 32]
    pieces = causal_blocks(texts, gpt2, 32, packing="documents", append_end_of_text=True, bucket_lengths=[8, 16])
    seen = []
    for batch in numpy_batches(pieces.batches(4, shuffle=False)):
        seen += [row[real == 1].tolist() for row, real in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    documents = [row + [gpt2.eos_token_id] for row in gpt2(LINES)["input_ids"]]
    expected = [row[i : i + 32] for row in documents for i in range(0, len(row), 32)]
    assert sorted(seen) == sorted(piece for piece in expected if len(piece) > 1)
    with pytest.raises(ValueError, match="packing must be one of concatenate, documents, got 'best'"):
        causal_blocks(texts, gpt2, 32, packing="best")
    with pytest.raises(ValueError, match="block_size=2048 is beyond the model's position limit of 1024"):
        causal_blocks(texts, gpt2, 2048, maximum=1024)


def test_masked_blocks_end_to_end(texts, bert, gpt2):
    masking = TokenMasking.from_tokenizer(bert, whole_word=True, probability=0.3)
    special = set(bert.all_special_ids)
    for line_by_line in (False, True):
        data = masked_blocks(texts, bert, 16, whole_word=True, line_by_line=line_by_line)
        for batch in numpy_batches(data.batches(4, masking=masking)):
            assert set(batch) == {"input_ids", "attention_mask", "labels"} and batch["input_ids"].shape == (4, 16)
            assert not special & set(batch["labels"][batch["labels"] != -100].tolist())
            if line_by_line:
                assert (batch["input_ids"][:, 0] == bert.cls_token_id).all()
                untouched = np.where(batch["labels"] == -100, batch["input_ids"], -1)
                assert ((untouched == bert.sep_token_id).sum(axis=1) == 1).all()
    plain = masked_blocks(texts, bert, 16)
    with pytest.raises(ValueError, match="whole_word masking needs the column word_continuation"):
        plain.batches(4, masking=masking)
    with pytest.raises(ValueError, match="needs a tokenizer with a mask_token"):
        masked_blocks(texts, gpt2, 16)


def test_streams_give_the_same_blocks_and_resume(texts, gpt2, bert):
    stream = texts.to_iterable_dataset(num_shards=3)
    data, whole = causal_blocks(stream, gpt2, 16), causal_blocks(texts, gpt2, 16)
    assert_same(
        numpy_batches(data.batches(4, shuffle=False)),
        numpy_batches(whole.batches(4, shuffle=False, drop_remainder=True)),
    )
    shuffled = [numpy_batches(data.batches(4, seed=seed, epochs=2, shuffle_buffer=50)) for seed in (1, 1, 2)]
    assert_same(shuffled[0], shuffled[1])
    for script_seed in (0, 7):
        tf.random.set_seed(script_seed)
        assert_same(shuffled[0], numpy_batches(data.batches(4, seed=1, epochs=2, shuffle_buffer=50)))
    half = len(shuffled[0]) // 2
    first, second, other = (
        np.concatenate([batch["input_ids"] for batch in part]).tolist()
        for part in (shuffled[0][:half], shuffled[0][half:], shuffled[2][:half])
    )
    assert first != second and first != other
    masked = masked_blocks(stream, bert, 16, whole_word=True)
    options = {"masking": TokenMasking.from_tokenizer(bert, whole_word=True), "epochs": 2}
    unbroken = numpy_batches(masked.batches(4, **options))
    assert_same(numpy_batches(masked.batches(4, start_step=3, **options)), unbroken[3:])
    with pytest.raises(ValueError, match="fewer tokens than one block of block_size=100000"):
        causal_blocks(stream, gpt2, 100_000)
    with pytest.raises(ValueError, match="packing='documents' needs the whole corpus"):
        causal_blocks(stream, gpt2, 16, packing="documents")


def test_blocks_from_a_dataset(texts, blocks, gpt2):
    again = TokenBlocks(blocks.to_dataset())
    assert_same(numpy_batches(again.batches(4)), numpy_batches(blocks.batches(4)))
    with pytest.raises(ValueError, match="must have one length, got .* lengths from"):
        TokenBlocks(tokenizing.tokenize_texts(texts, gpt2))


def test_token_ids_beyond_the_vocabulary(blocks):
    blocks.check_vocabulary(184)
    with pytest.raises(ValueError, match="the data has the token id 183, but the model only 183 tokens, 0 .. 182"):
        blocks.check_vocabulary(183)
    with pytest.raises(ValueError, match="token id -1"):
        TokenBlocks({"input_ids": np.full((1, 4), -1, np.int32)}).check_vocabulary(183)


def test_impossible_batches_are_refused_at_once(blocks):
    with pytest.raises(ValueError, match="batch_size=24 is more than the data holds: 23 rows"):
        blocks.batches(24)
    with pytest.raises(ValueError, match="batch_size=12 for each of 2 shards is more than the data holds"):
        blocks.shard(0, 2).batches(12)
    for name, value in (("batch_size", 0), ("start_step", -1), ("epochs", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            blocks.batches(**{"batch_size": 2, name: value})
    with pytest.raises(ValueError, match="must be .blocks, block_size. with blocks"):
        TokenBlocks({"input_ids": np.zeros((0, 8), np.int32)})


def tokenized_pairs(bert, **extra):
    encoded = bert(LINES, [line[::-1] for line in LINES])
    return datasets.Dataset.from_dict({"sentence": LINES, **encoded.data, **extra})


def test_prepare_pads_as_the_collator_of_transformers(bert):
    dataset = tokenized_pairs(bert, label=[i % 3 for i in range(60)])
    plain = dataset.remove_columns(["sentence", "label"])
    for side in ("right", "left"):
        for multiple in (None, 8):
            bert.padding_side = side
            collate = DataCollatorWithPadding(bert, pad_to_multiple_of=multiple, return_tensors="np")
            found = numpy_batches(
                prepare_tf_dataset(dataset, 7, shuffle=False, tokenizer=bert, pad_to_multiple_of=multiple)
            )
            assert [len(labels) for _, labels in found] == [7] * 8 + [4]
            for i, (features, labels) in enumerate(found):
                rows = range(7 * i, min(7 * i + 7, 60))
                expected = collate([plain[row] for row in rows])
                assert set(features) == set(expected)
                for name, value in features.items():
                    np.testing.assert_array_equal(value, expected[name])
                    assert value.dtype == np.int32
                np.testing.assert_array_equal(labels, [row % 3 for row in rows])
    bert.padding_side = "right"


def test_prepare_shuffles_anew_and_drops_as_transformers_did(bert):
    dataset = tokenized_pairs(bert, label=list(range(60)))
    prepared = prepare_tf_dataset(dataset, 8, tokenizer=bert, seed=1)
    epochs = [np.concatenate([labels for _, labels in numpy_batches(prepared)]).tolist() for _ in range(2)]
    assert epochs[0] != epochs[1] and all(len(set(epoch)) == 56 for epoch in epochs)
    again = prepare_tf_dataset(dataset, 8, tokenizer=bert, seed=1)
    assert np.concatenate([labels for _, labels in numpy_batches(again)]).tolist() == epochs[0]
    assert int(prepared.cardinality()) == 7
    kept = prepare_tf_dataset(dataset, 8, tokenizer=bert, drop_remainder=False, columns=["input_ids", "labels"])
    features, _ = numpy_batches(kept)[0]
    assert set(features) == {"input_ids"} and int(kept.cardinality()) == 8


def test_prepare_buckets_bound_the_lengths(bert):
    dataset = tokenized_pairs(bert, label=list(range(60)))
    prepared = prepare_tf_dataset(dataset, 4, tokenizer=bert, bucket_lengths=[32, 64, 512], drop_remainder=False)
    found = numpy_batches(prepared)
    assert {features["input_ids"].shape[1] for features, _ in found} <= {32, 64, 512}
    assert sorted(np.concatenate([labels for _, labels in found]).tolist()) == list(range(60))
    for features, labels in found:
        for ids, real, row in zip(features["input_ids"], features["attention_mask"], labels, strict=True):
            assert ids[real == 1].tolist() == dataset[int(row)]["input_ids"]
    with pytest.raises(ValueError, match="bucket_lengths end at 8, but the longest row has"):
        prepare_tf_dataset(dataset, 4, tokenizer=bert, bucket_lengths=[4, 8])


def test_prepare_pads_labels_of_tokens_and_passes_numbers(bert):
    rows = [[5, 6], [7, 8, 9], [5]]
    dataset = datasets.Dataset.from_dict(
        {"input_ids": rows, "labels": [[1] * len(row) for row in rows], "score": [0.5, 1.5, 2.5]}
    )
    ((features, labels),) = numpy_batches(prepare_tf_dataset(dataset, 3, shuffle=False, tokenizer=bert))
    assert labels.tolist() == [[1, 1, -100], [1, 1, 1], [1, -100, -100]]
    assert features["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert features["score"].dtype == np.float32
    spans = datasets.Dataset.from_dict({"input_ids": [[1, 2]] * 2, "start_positions": [0, 1], "end_positions": [1, 1]})
    ((features, labels),) = numpy_batches(prepare_tf_dataset(spans, 2, shuffle=False))
    assert set(features) == {"input_ids"} and labels["end_positions"].tolist() == [1, 1]
    (only,) = numpy_batches(prepare_tf_dataset(spans.select_columns("input_ids"), 2, shuffle=False))
    assert only["input_ids"].tolist() == [[1, 2]] * 2


def test_prepare_takes_nested_columns_and_a_collate_function():
    images = datasets.Dataset.from_dict(
        {"pixel_values": np.arange(24.0).reshape(4, 2, 3).tolist(), "label": [0, 1, 0, 1]}
    )
    (features, labels), _ = numpy_batches(prepare_tf_dataset(images, 2, shuffle=False))
    assert features["pixel_values"].tolist() == images[:2]["pixel_values"] and labels.tolist() == [0, 1]
    assert features["pixel_values"].dtype == np.float32
    orders = prepare_tf_dataset(images, 2, seed=1)
    assert sorted(int(row[0, 0]) for batch in orders for row in batch[0]["pixel_values"]) == [0, 6, 12, 18]
    numbers = datasets.Dataset.from_dict({"input_ids": [[1], [2, 3]]})

    def collate(rows, length):
        return {"input_ids": np.array([row["input_ids"] + [0] * (length - len(row["input_ids"])) for row in rows])}

    prepared = prepare_tf_dataset(numbers, 2, shuffle=False, collate_fn=collate, collate_fn_args={"length": 4})
    (found,) = numpy_batches(prepared)
    assert found["input_ids"].tolist() == [[1, 0, 0, 0], [2, 3, 0, 0]]


def test_prepare_refuses_what_does_not_fit(bert, gpt2):
    make = datasets.Dataset.from_dict
    for columns, tokenizer, message in (
        ({"input_ids": [[1], [2, 3]]}, None, "column 'input_ids' have several lengths; give a tokenizer"),
        ({"input_ids": [[1], [2, 3]]}, gpt2, "the tokenizer has no pad_token"),
        ({"input_ids": [[1], [2, 3]], "odd": [[1], [2, 3]]}, bert, "column 'odd' have several lengths"),
        ({"input_ids": [[1], [2]], "attention_mask": [[1], [1, 1]]}, bert, "row 1 has 1 input_ids, but 2 values"),
        ({"input_ids": [[1], [2**40]]}, bert, "does not fit into int32"),
        ({"input_ids": [[1], None]}, bert, "column 'input_ids' has rows without a value"),
        ({"text": ["a", "b"]}, bert, "no input column is left: the dataset has text, wanted numbers"),
        ({"input_ids": [[1], [2]]}, bert, "batch_size=3 is more than the data holds: 2 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare_tf_dataset(make(columns), 3, tokenizer=tokenizer)
    with pytest.raises(TypeError, match="must be a datasets.Dataset, got list"):
        prepare_tf_dataset([{"input_ids": [1]}])
