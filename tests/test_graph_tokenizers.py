"""Tokenizers inside the graph against the rust tokenizers: ids, decoded texts, SavedModels and refusals."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.fixtures.trained_tokenizers import bert, byte_level, random_texts
from tfheads.preprocessing import graph_tokenizer, verification, verify
from tfheads.preprocessing.byte_pair_model import byte_pair_pieces
from tfheads.preprocessing.verification import SENTENCES, probe_texts


def expected_ids(tokenizer, texts, **options):
    return tokenizer(texts, verbose=False, **options)["input_ids"]


def check(tokenizer, texts):
    """Compares the ids of texts, and the texts of these ids."""
    graph = graph_tokenizer(tokenizer, check=False)
    texts = [*SENTENCES, *texts]
    expected = expected_ids(tokenizer, texts)
    ids = graph.tokenize(texts)  # traced it is by `verify`, and in the SavedModel below
    differences = [(text, a, b) for text, a, b in zip(texts, ids.to_list(), expected, strict=True) if a != b]
    assert not differences, differences[:2]
    decoded = [text.decode() for text in graph.detokenize(ids).numpy()]
    assert decoded == [tokenizer.decode(row, skip_special_tokens=True) for row in expected]
    return graph


@pytest.fixture(scope="module")
def gpt2_tokenizer():
    return byte_level()


@pytest.fixture(scope="module")
def bert_tokenizer():
    return bert()


@pytest.fixture(scope="module")
def gpt2_graph(gpt2_tokenizer):
    return graph_tokenizer(gpt2_tokenizer, check=False)


@pytest.fixture(scope="module")
def bert_graph(bert_tokenizer):
    return graph_tokenizer(bert_tokenizer)  # with the probe texts


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_prefix_space": True},
        {"template": True, "normalized": True},
        {"alphabet": False},
    ],
    ids=str,
)
def test_byte_level_tokenizers_give_the_ids_and_texts_of_the_rust_one(options):
    check(byte_level(**options), random_texts(1))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lowercase": False},
        {"lowercase": True, "strip_accents": False},
        {"lowercase": False, "strip_accents": True, "clean_up": True},
    ],
    ids=str,
)
def test_bert_tokenizers_give_the_ids_and_texts_of_the_rust_one(options):
    check(bert(**options), random_texts(2))


def test_marks_that_survive_accent_stripping_are_put_in_canonical_order(bert_tokenizer, bert_graph):
    texts = [f"a{first}{second}b" for first in "\u302e\u1b44\ua9c0\u0301" for second in "\u1b44\ua9c0\u302e\u0345"]
    texts += [f"{text[1:3]}\u0902{text[::-1]}" for text in texts]
    assert bert_graph.tokenize(texts).to_list() == expected_ids(bert_tokenizer, texts)


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Lowercase(),
        normalizers.NFD(),
        normalizers.NFKD(),
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
    ],
    ids=lambda normalizer: str(normalizer).split("(")[0],
)
def test_other_normalizers(normalizer):
    tokenizer = byte_level(normalized=True)
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.add_tokens([AddedToken("Éa", normalized=True)])
    check(tokenizer, random_texts(3) + ["x éa ÉA Éa e\u0301a"])


def test_merges_that_concatenation_alone_would_do_wrong():
    """A token made by several merges, one that its own text never gives, and one with a merge that comes too late."""
    vocabulary = {token: i for i, token in enumerate(["a", "b", "c", "d", "bc", "ab", "abc", "cd", "abcd", "bcd"])}
    merges = [("b", "c"), ("a", "b"), ("ab", "c"), ("c", "d"), ("abc", "d"), ("bc", "d"), ("a", "bcd")]
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    generator = random.Random(4)
    texts = ["".join(generator.choice("abcd") for _ in range(generator.randrange(12))) for _ in range(2000)]
    check(tokenizer, texts)
    pieces, scores = byte_pair_pieces(vocabulary, merges)
    assert "abc" not in pieces and scores[pieces.index("abcd")] == -6


def test_random_merges():
    generator = random.Random(5)
    for _ in range(12):
        tokens, merges = ["a", "b", "c"], []
        while len(tokens) < 30:
            pair = generator.choice(tokens[-8:]), generator.choice(tokens)
            if pair not in merges:
                merges.append(pair)
                tokens += [pair[0] + pair[1]] if pair[0] + pair[1] not in tokens else []
        generator.shuffle(merges)
        vocabulary = {token: i for i, token in enumerate(tokens)}
        backend = Tokenizer(models.BPE(vocabulary, merges))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
        texts = ["".join(generator.choice("abc") for _ in range(generator.randrange(30))) for _ in range(300)]
        ids = graph_tokenizer(tokenizer, check=False).tokenize(texts).to_list()
        assert ids == expected_ids(tokenizer, texts)


@pytest.mark.parametrize("fuse", [False, True])
def test_bytes_without_a_token_become_the_unknown_token(fuse):
    vocabulary = {token: i for i, token in enumerate(["<unk>", "a", "b", "ab", "Ġ"])}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b")], unk_token="<unk>", fuse_unk=fuse))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    check(tokenizer, random_texts(6, 300) + ["abxyab", "xx yy", "é"])


def test_added_tokens_with_white_space_options():
    tokenizer = bert()
    tokenizer.add_tokens([AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("new word", normalized=True), AddedToken("<both>", lstrip=True, rstrip=True)])
    generator = random.Random(7)
    parts = [
        "<left>",
        "<right>",
        "<both>",
        "new word",
        "New  word",
        " ",
        "  ",
        "\t",
        "\u3000",
        "\u200b",
        "a",
        "[MASK]",
        "\0",
    ]
    texts = ["".join(generator.choice(parts) for _ in range(generator.randrange(9))) for _ in range(800)]
    check(tokenizer, texts)


def test_nul_and_bytes_that_are_not_utf8(gpt2_tokenizer, gpt2_graph):
    texts = ["a\0b<|end|>\0\0 c", "\0", "\x01\0<|end|>", "é\0<|end|>" * 5000, "é<|end|>" * 5000]
    assert gpt2_graph.tokenize(texts).to_list() == expected_ids(gpt2_tokenizer, texts)
    broken = [b"a\xff\xfeb", b"\xc3", b"<|end|>\xe2\x82", b"\xed\xa0\x80"]
    replaced = [text.decode("utf8", errors="replace") for text in broken]
    assert gpt2_graph.tokenize(tf.constant(broken)).to_list() == expected_ids(gpt2_tokenizer, replaced)


def test_an_empty_batch_and_an_empty_text(gpt2_graph, bert_graph):
    for graph, alone in ((gpt2_graph, []), (bert_graph, [2, 3])):
        assert graph.tokenize(tf.constant([], tf.string)).to_list() == []
        assert graph.tokenize([""]).to_list() == [alone]
    assert gpt2_graph.detokenize([[], []]).numpy().tolist() == [b"", b""]


@pytest.mark.parametrize("side", ["right", "left"])
def test_truncation_and_padding_equal_those_of_the_tokenizer(side):
    tokenizer = bert()
    tokenizer.padding_side = tokenizer.truncation_side = side
    graph = graph_tokenizer(tokenizer, check=False)
    texts = ["The quick brown fox jumps over the lazy dog", "", "one two"]
    for length in (2, 3, 7):
        ids = graph.tokenize(texts, max_length=length)
        assert ids.to_list() == expected_ids(tokenizer, texts, truncation=True, max_length=length)
    ours, theirs = graph.pad(ids, length=9), tokenizer(texts, truncation=True, max_length=7)
    theirs = tokenizer.pad(theirs, padding="max_length", max_length=9, return_tensors="np")
    np.testing.assert_array_equal(ours["input_ids"], theirs["input_ids"])
    np.testing.assert_array_equal(ours["attention_mask"], theirs["attention_mask"])
    assert graph.pad(ids)["input_ids"].shape == (3, 7)
    without = graph.tokenize(texts, add_special_tokens=False)
    assert without.to_list() == expected_ids(tokenizer, texts, add_special_tokens=False)


def test_ids_that_are_no_tokens_and_broken_bytes_decode_as_in_python(gpt2_tokenizer, gpt2_graph):
    generator = random.Random(8)
    rows = [[generator.randrange(gpt2_graph.vocabulary_size + 3) for _ in range(20)] for _ in range(500)]
    texts = [text.decode() for text in gpt2_graph.detokenize(tf.constant(rows)).numpy()]
    assert texts == [gpt2_tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    assert any("\ufffd" in text for text in texts)
    assert gpt2_graph.detokenize([[-1, 5]]).numpy()[0].decode() == gpt2_tokenizer.decode([5])


def test_token_names(bert_tokenizer, bert_graph):
    names = [name.decode() for name in bert_graph.id_to_token.numpy()]
    assert names == bert_tokenizer.convert_ids_to_tokens(range(len(bert_tokenizer)))


def test_a_saved_model_needs_only_tensorflow_and_tensorflow_text(
    tmp_path, gpt2_tokenizer, bert_tokenizer, gpt2_graph, bert_graph
):
    texts = [*SENTENCES, "x <|end|>y [MASK] z"]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    module, signatures, expected = tf.Module(), {}, {}
    module.tokenizers = [gpt2_graph, bert_graph]
    for name, tokenizer, graph in (("gpt2", gpt2_tokenizer, gpt2_graph), ("bert", bert_tokenizer, bert_graph)):

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def serve(strings, graph=graph):
            ids = graph.tokenize(strings, max_length=50)
            return {**graph.pad(ids, length=50, pad_token_id=0), "text": graph.detokenize(ids)}

        signatures[name] = serve
        ids = expected_ids(tokenizer, texts, truncation=True, max_length=50)
        expected[name] = [[row + [0] * (50 - len(row)) for row in ids]]
        expected[name] += [[tokenizer.decode(row, skip_special_tokens=True) for row in ids]]
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=signatures)
    program = (
        "import json, sys, tensorflow as tf, tensorflow_text\n"
        "texts, answers = json.load(open(sys.argv[1] + '/texts.json')), {}\n"
        "loaded = tf.saved_model.load(sys.argv[1] + '/saved')\n"
        "for name in ('gpt2', 'bert'):\n"
        "    answer = loaded.signatures[name](tf.constant(texts))\n"
        "    text = [text.decode() for text in answer['text'].numpy()]\n"
        "    answers[name] = [answer['input_ids'].numpy().tolist(), text]\n"
        "answers['modules'] = [m for m in ('transformers', 'tokenizers', 'tfheads', 'keras_nlp') if m in sys.modules]\n"
        "json.dump(answers, open(sys.argv[1] + '/answers.json', 'w'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert answers.pop("modules") == []
    assert answers == expected


def _with(tokenizer, **parts):
    for name, part in parts.items():
        setattr(tokenizer.backend_tokenizer, name, part)
    return tokenizer


@pytest.mark.parametrize(
    ("change", "component"),
    [
        (lambda: _with(bert(), pre_tokenizer=pre_tokenizers.UnicodeScripts()), "pre_tokenizer UnicodeScripts"),
        (lambda: _with(bert(), decoder=decoders.CTC()), "decoder CTC"),
        (lambda: _with(bert(), model=models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")), "model WordLevel"),
        (lambda: _with(byte_level(), model=models.BPE({"a": 0}, [], dropout=0.1)), "model BPE with dropout=0.1"),
        (lambda: _with(byte_level(), model=models.BPE({"a": 0}, [], end_of_word_suffix="_")), "end_of_word_suffix='_'"),
    ],
)
def test_parts_without_an_exact_translation_are_refused(change, component):
    with pytest.raises(ValueError, match="cannot be expressed exactly in the graph") as error:
        graph_tokenizer(change())
    assert component in str(error.value)


def test_added_tokens_that_must_be_whole_words_are_refused():
    tokenizer = bert()
    tokenizer.add_tokens([AddedToken("whole", single_word=True)])
    with pytest.raises(ValueError, match="added token 'whole' with single_word=True"):
        graph_tokenizer(tokenizer)


def test_what_is_no_fast_tokenizer_is_refused():
    with pytest.raises(TypeError, match="must be a fast tokenizer of transformers"):
        graph_tokenizer("gpt2")


def test_verify_names_the_first_difference(bert_tokenizer, monkeypatch):
    other = graph_tokenizer(bert(lowercase=False), check=False)
    monkeypatch.setattr(verification, "probe_texts", lambda tokenizer: SENTENCES)
    with pytest.raises(ValueError, match="differs on the text .*expected ids .* got "):
        verify(bert_tokenizer, other)
    assert len(probe_texts(bert_tokenizer)) > 1000


def test_bad_arguments(bert_graph, gpt2_graph):
    with pytest.raises(ValueError, match="max_length.*2 tokens.*got 1"):
        bert_graph.tokenize(["a"], max_length=1)
    with pytest.raises(ValueError, match=r"strings.*\[batch\]"):
        bert_graph.tokenize("a")
    with pytest.raises(ValueError, match="pad_token_id"):
        gpt2_graph.pad(gpt2_graph.tokenize(["a"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="more ids than argument `length`"):
        bert_graph.pad(bert_graph.tokenize(["a b c d e f"]), length=3)
