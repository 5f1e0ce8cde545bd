"""Pairs of sources and targets: columns, tokens, pairs of lengths."""

import datasets
import numpy as np
import pytest

from tfheads.data.source_target import (
    length_pairs,
    rows_with_texts,
    set_languages,
    source_target_columns,
    source_target_rows,
    source_target_texts,
)
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece

WORDS = ["the cat sees a dog", "a small dog hears the cat", "the red bird"] * 10


@pytest.fixture(scope="module")
def bpe():
    tokenizer = train_byte_level_bpe(WORDS, 300)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def table(**columns):
    return datasets.Dataset.from_dict(columns)


def test_pairs_of_lengths_hold_all_rows_and_are_few():
    random = np.random.RandomState(0)
    sources = random.randint(1, 100, 500)
    targets = np.maximum(sources // 3 + random.randint(0, 4, 500), 1)
    targets[:3] = 64  # long ones of short sources
    sources[:3] = 5
    pairs = length_pairs(sources, targets, [16, 32, 64, 104], [16, 32, 64])
    assert [pair[:2] for pair in pairs] == [(16, 16), (32, 16), (64, 32), (104, 64)]
    numbers = np.concatenate([rows for _, _, rows in pairs])
    assert sorted(numbers) == list(range(500))
    for source, target, rows in pairs:
        assert sources[rows].max() <= source and targets[rows].max() <= target
    assert set(pairs[-1][2]) >= {0, 1, 2}
    # Targets that have nothing to do with their sources: still one length for each of the sources'.
    pairs = length_pairs(sources, random.randint(1, 60, 500), [16, 104], [16, 32, 64])
    assert [pair[:2] for pair in pairs] == [(16, 64), (104, 64)]


def test_batches_have_pairs_of_lengths_and_lose_no_token(bpe):
    random = np.random.RandomState(1)
    counts = random.randint(1, 60, 101)
    rows = table(source=["dog " * count for count in counts], target=["cat " * (count // 3 + 1) for count in counts])
    lengths = {"max_source_length": 80, "max_target_length": 40}
    source = source_target_rows(rows, bpe, **lengths, end_token_id=bpe.eos_token_id)
    shapes, seen = set(), []
    for batch in source.batches(8, shuffle=False, drop_remainder=False):
        shapes.add((batch["input_ids"].shape[1], batch["labels"].shape[1]))
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"].numpy(), strict=True):
            real = labels[labels != -100]
            assert real[-1] == bpe.eos_token_id and (labels[: len(real)] != -100).all()
            seen.append((len(bpe.decode(ids[mask == 1]).split()), len(bpe.decode(real[:-1]).split())))
    assert 2 <= len(shapes) <= len(source.buckets) <= 4
    order = source.row_order(8)
    assert sorted(order) == list(range(101)) and seen == [(counts[row], counts[row] // 3 + 1) for row in order]
    fixed = source_target_rows(rows, bpe, **lengths, pad_to_max_length=True, ignore_padding=False)
    (batch,) = fixed.batches(101, shuffle=False)
    assert batch["input_ids"].shape == (101, 80) and batch["labels"].shape == (101, 40)
    assert (batch["labels"].numpy() >= 0).all()


def test_ends_prefixes_and_cuts(bpe):
    rows = table(source=["the cat", "a dog"], target=["a dog hears the cat", "the bird"])
    own = train_wordpiece(WORDS, 80)
    (batch,) = source_target_rows(
        rows, own, prefix="red ", max_source_length=16, max_target_length=4, end_token_id=5
    ).batches(2, shuffle=False)  # fmt: skip
    assert own.decode(batch["input_ids"][0]).startswith("[CLS] red the cat [SEP]")
    assert batch["labels"].numpy()[0].tolist() == own("a dog")["input_ids"] + [-100] * (batch["labels"].shape[1] - 4)
    (batch,) = source_target_rows(
        rows, bpe, max_source_length=16, max_target_length=3, end_token_id=bpe.eos_token_id
    ).batches(2, shuffle=False)  # fmt: skip
    assert batch["labels"].numpy()[0][2] == bpe.eos_token_id


def test_columns():
    rows = table(id=["1"], dialogue=["hi"], summary=["h"], count=[1])
    usual = ("document", "dialogue"), ("summary",)
    assert source_target_columns(rows, None, None, usual=usual) == ("dialogue", "summary")
    assert source_target_columns(rows, None, None) == ("id", "dialogue")
    assert source_target_columns(rows.select_columns("dialogue"), None, None, False, usual) == ("dialogue", None)
    assert source_target_columns(rows, "id", "absent", False) == ("id", None)
    swapped = source_target_texts(table(source=["a"], target=["b"]), "target", "source")
    assert swapped[0] == {"source": "b", "target": "a"}
    rows = table(source=["a", "", "c", None], target=["a", "b", None, "d"])
    assert rows_with_texts(rows, ("source", "target"))["source"] == ["a"]
    with pytest.raises(ValueError, match="row 1 of test must have a text in column 'source', got ''"):
        source_target_texts(rows, "source", "target", "test")
    with pytest.raises(ValueError, match="column 'n' of train must hold text, it holds Value"):
        source_target_texts(table(n=[1]), "n", None)


def test_languages(bpe):
    set_languages(bpe, None, None)  # has no languages

    class Several:
        src_lang = tgt_lang = None
        lang_code_to_id = {"en": 1, "de": 2}
        unk_token_id = 0

    tokenizer = Several()
    set_languages(tokenizer, "en", "de")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("en", "de")
    with pytest.raises(ValueError, match="language 'fr' is not known to Several"):
        set_languages(tokenizer, "en", "fr")
    with pytest.raises(ValueError, match="give source_lang and target_lang"):
        set_languages(tokenizer, None, "de")
