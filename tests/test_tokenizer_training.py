"""Tokenizers trained on own text: what they guarantee, and that their files come back through AutoTokenizer."""

import json

import datasets
import pytest
from transformers import AutoTokenizer

from tfheads.data.corpora import python_reference
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece

ODD_TEXT = "def f(x):\n\treturn  x ** 2  # naïve — 数学 😀\r\n\x00"


@pytest.fixture(scope="module")
def reference():
    return python_reference()


def test_python_reference_is_real_text(reference):
    assert reference.column_names == ["text"] and len(reference) > 50
    assert sum(map(len, reference["text"])) > 400_000
    assert all(text.strip() for text in reference["text"])
    assert list(reference["text"]) == list(python_reference()["text"])


def test_byte_level_bpe_loses_nothing_and_reloads(tmp_path, reference):
    tokenizer = train_byte_level_bpe(reference, 600, model_max_length=128)
    assert len(tokenizer) == 600 and tokenizer.model_max_length == 128
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == 599 and tokenizer.pad_token is None
    assert sorted(tokenizer.get_vocab().values()) == list(range(600))
    for text in (ODD_TEXT, reference[3]["text"]):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(reference[0]["text"])["input_ids"]) < 0.6 * len(reference[0]["text"])
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is type(tokenizer) and again.model_max_length == 128
    assert again(ODD_TEXT)["input_ids"] == tokenizer(ODD_TEXT)["input_ids"]
    assert again("a<|endoftext|>")["input_ids"][-1] == 599
    saved = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert saved["type"] == "BPE" and len(saved["vocab"]) == 600 and len(saved["merges"]) == 600 - 257


def test_wordpiece_reloads_and_builds_berts_inputs(tmp_path, reference):
    tokenizer = train_wordpiece(reference, 700, model_max_length=64)
    assert len(tokenizer) == 700
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is type(tokenizer) and again.model_max_length == 64
    encoded = again("The statement", "Returns")
    assert encoded.data == tokenizer("the STATEMENT", "returns").data
    assert encoded["input_ids"][0] == 2 and encoded["input_ids"][-1] == 3 and 1 in encoded["token_type_ids"]
    assert any(token.startswith("##") for token in again.tokenize("untokenizable"))
    assert again.tokenize("[MASK]") == ["[MASK]"]
    assert again.decode(again("the statement")["input_ids"], skip_special_tokens=True) == "the statement"


def test_case_is_kept_on_request(reference):
    tokenizer = train_wordpiece(reference, 700, lowercase=False)
    assert "True" in tokenizer.get_vocab()
    assert tokenizer.tokenize("True") != tokenizer.tokenize("true")


def test_training_is_reproducible(reference):
    texts = list(reference["text"])[:20]
    for train in (train_byte_level_bpe, train_wordpiece):
        first, second = (train(source, 400) for source in (texts, iter(texts)))
        assert first.get_vocab() == second.get_vocab()
    stream = datasets.Dataset.from_dict({"text": texts}).to_iterable_dataset()
    assert train_wordpiece(stream, 400).get_vocab() == second.get_vocab()
    assert train_wordpiece(texts, 500, limit_alphabet=20).tokenize("the q") == ["the", "[UNK]"]


def test_bad_arguments():
    with pytest.raises(ValueError, match="vocab_size must be at least 257 .* got 256"):
        train_byte_level_bpe(["text"], 256)
    with pytest.raises(ValueError, match="vocab_size must be above 5 .* got 5"):
        train_wordpiece(["text"], 5)
    with pytest.raises(ValueError, match="vocab_size=8 is below the 11 special tokens and characters"):
        train_wordpiece(["text"], 8)
    for train in (train_byte_level_bpe, train_wordpiece):
        with pytest.raises(ValueError, match="texts is empty"):
            train(["", " \n"], 300)
        with pytest.raises(TypeError, match="got one string"):
            train("text", 300)
