"""Rows of tokens made inside the graph against the rust tokenizers: offsets, words, pairs, truncation, windows."""

import random

import pytest
import tensorflow as tf
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.fixtures.trained_tokenizers import bert, byte_level, random_texts
from tfheads.preprocessing import graph_tokenizer, verification, verify
from tfheads.preprocessing.verification import SENTENCES, verify_offsets, windows_in_graph, windows_of

PARTS = ["a", " ", "  ", "\t", "<mask>", " <mask>", "<|end|>", "word", "é\u0323", "\u3000", "the fox", " jumps", "!"]
PARTS += ["[MASK]", "中文", "New  word", "new word", "<both>", "\u200b", "\0", "Éa", "e\u0301a"]
SPECIAL = [("[CLS]", 2), ("[SEP]", 3)]


def mixed_texts(seed, count):
    generator = random.Random(seed)
    return ["".join(generator.choice(PARTS) for _ in range(generator.randrange(14))) for _ in range(count)]


def compare(tokenizer, graph, texts, pairs=None, **options):
    """Every window of a tokenizer and of what is in the graph."""
    expected = windows_of(tokenizer, texts, pairs, **options)
    got = windows_in_graph(graph.encode(texts, pairs, **options))
    differences = [pair for pair in zip(expected, got, strict=True) if pair[0] != pair[1]]
    assert not differences, differences[0]


def roberta(add_prefix_space=False):
    tokenizer = byte_level(add_prefix_space=add_prefix_space)
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(
        ("<|end|>", 0), ("a", 70), add_prefix_space=add_prefix_space
    )
    return tokenizer


def byte_level_with_normalizer(normalizer):
    tokenizer = byte_level(normalized=True)
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.add_tokens([AddedToken("Éa", normalized=True)])
    return tokenizer


def with_added_tokens():
    tokenizer = bert()
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<right>", rstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("new word", normalized=True), AddedToken("<both>", lstrip=True, rstrip=True)])
    return tokenizer


def with_template(single, pair, tokenizer=None, side="right"):
    tokenizer = tokenizer or bert()
    template = processors.TemplateProcessing(single, pair, special_tokens=SPECIAL)
    if tokenizer.backend_tokenizer.post_processor is None:
        template = processors.Sequence([processors.ByteLevel(add_prefix_space=True, trim_offsets=True), template])
    tokenizer.backend_tokenizer.post_processor = template
    tokenizer.truncation_side = side
    return tokenizer


def without_bytes(unknown):
    vocabulary = {token: i for i, token in enumerate(["<unk>", "a", "b", "ab", "Ġ"])}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b")], unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda: byte_level(add_prefix_space=True),
        lambda: byte_level(alphabet=False),
        lambda: without_bytes("<unk>"),
        lambda: without_bytes(None),
        roberta,
        lambda: roberta(add_prefix_space=True),
        lambda: byte_level_with_normalizer(normalizers.NFD()),
        lambda: byte_level_with_normalizer(
            normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKD(), normalizers.StripAccents()])
        ),
        with_added_tokens,
        lambda: bert(lowercase=False),
        lambda: bert(lowercase=False, strip_accents=True),
    ],
)
def test_offsets_and_word_ids_equal_those_of_the_rust_tokenizer(make):
    tokenizer = make()
    texts = [*SENTENCES, *random_texts(21, 500), *mixed_texts(22, 300)]
    compare(tokenizer, graph_tokenizer(tokenizer, check=False), texts)


TEMPLATES = {
    "bert": lambda: with_template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "types": lambda: with_template("[CLS] $A:3 [SEP]", "[CLS]:5 $A:3 [SEP]:4 $B:7 [SEP]:8"),
    "pair first, from the left": lambda: with_template("$A:2 [SEP]", "$B:1 [SEP]:1 $A [SEP]", side="left"),
    "trimmed": lambda: with_template("$A:2 [SEP]", "$A [SEP] $B:1 [SEP]:1", byte_level(add_prefix_space=True)),
    "roberta": roberta,
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_pairs_truncation_and_windows_equal_those_of_the_tokenizer(name):
    tokenizer = TEMPLATES[name]()
    graph = graph_tokenizer(tokenizer, check=False)
    texts, short = mixed_texts(23, 60) + [""], ["the fox", "a", ""] * 20 + ["x"]
    pairs = texts[::-1]
    for options in (
        {"add_special_tokens": False},
        {"max_length": 9},
        {"max_length": 12, "stride": 1},
        {"max_length": 13, "stride": 2, "add_special_tokens": False},
    ):
        compare(tokenizer, graph, texts, **options)
        compare(tokenizer, graph, texts, pairs, **options)
    compare(tokenizer, graph, texts, short, max_length=14, truncation="only_first", stride=2)
    compare(tokenizer, graph, short, texts, max_length=15, truncation="only_second", stride=3)
    compare(tokenizer, graph, texts, pairs, max_length=5, truncation="do_not_truncate")


def test_a_tokenizer_that_adds_nothing_knows_the_sequence_of_each_token():
    texts, pairs = ["a b c", "the fox"], ["x", "y z and more"]
    graph = graph_tokenizer(byte_level(), check=False)
    encoding = graph.encode(texts, pairs, max_length=9, stride=1)
    assert encoding.rows.numpy().tolist() == sorted(encoding.rows.numpy())
    for row, ids, sequences in zip(
        encoding.rows.numpy(), encoding.input_ids.to_list(), encoding.sequence_ids.to_list(), strict=True
    ):
        parts = [[i for i, s in zip(ids, sequences, strict=True) if s == number] for number in (0, 1)]
        assert sequences == sorted(sequences) and set(sequences) == {0, 1}
        for part, text in zip(parts, (texts[row], pairs[row]), strict=True):
            assert graph.detokenize([part]).numpy()[0].decode() in text


def test_offsets_count_bytes_that_are_not_utf8_as_one_character_each():
    tokenizer = byte_level()
    graph = graph_tokenizer(tokenizer, check=False)
    broken = [b"a\xff\xfeb c", b"<|end|>\xe2\x82<|end|>x"]
    expected = windows_of(tokenizer, [text.decode("utf8", errors="replace") for text in broken])
    assert windows_in_graph(graph.encode(broken)) == expected


def test_rows_do_not_depend_on_what_else_is_in_the_batch():
    graph = graph_tokenizer(with_added_tokens(), check=False)
    texts = mixed_texts(24, 12) + ["long " * 400]
    together = graph.encode(texts, max_length=20, stride=4)
    rows = together.rows.numpy()
    for number, text in enumerate(texts):
        alone = graph.encode([text], max_length=20, stride=4)
        for ours, one in zip(together[:-1], alone[:-1], strict=True):
            assert tf.ragged.boolean_mask(ours, rows == number).to_list() == one.to_list()


def test_an_empty_batch_has_no_rows():
    graph = graph_tokenizer(bert(), check=False)
    empty = tf.constant([], tf.string)
    for encoding in (graph.encode(empty), graph.encode(empty, empty, max_length=8, stride=2)):
        assert all(part.shape[0] == 0 for part in encoding) and encoding.input_ids.to_list() == []


def test_verify_compares_offsets_on_request(monkeypatch):
    monkeypatch.setattr(verification, "probe_texts", lambda tokenizer: SENTENCES)  # exports compare all of them
    tokenizer = roberta()
    graph = graph_tokenizer(tokenizer, check=False)
    verify_offsets(tokenizer, graph)
    other = roberta()
    other.backend_tokenizer.post_processor = processors.RobertaProcessing(
        ("<|end|>", 0), ("a", 70), add_prefix_space=False, trim_offsets=False
    )
    with pytest.raises(ValueError, match="differs on the text .*expected offsets .* got "):
        verify(other, graph, offsets=True)


def test_bad_arguments():
    graph = graph_tokenizer(bert(), check=False)
    for options, words in (
        ({"max_length": 1}, "max_length.*2 tokens.*got 1"),
        ({"max_length": 2.5}, "max_length.*whole number.*got 2.5"),
        ({"max_length": 6, "stride": 4}, "stride.*less than the 4 tokens.*got 4"),
        ({"max_length": 6, "stride": -1}, "stride.*whole number from 0.*got -1"),
        ({"truncation": "longest"}, "truncation.*one of longest_first.*got 'longest'"),
        ({"truncation": "only_second"}, "only_second.*without argument `pair`"),
    ):
        with pytest.raises(ValueError, match=words):
            graph.encode(["a"], **options)
    with pytest.raises(ValueError, match=r"`pair`.*\[batch\]"):
        graph.encode(["a"], "b")
    failed = tf.errors.InvalidArgumentError
    with pytest.raises(failed, match="same number of texts"):
        graph.encode(["a", "b"], ["c"])
    with pytest.raises(failed, match="room for at least one token of the pair"):
        graph.encode(["a b c d e f"], ["g"], max_length=8, truncation="only_second")
    with pytest.raises(failed, match="stride.*less than the tokens that truncation leaves"):
        graph.encode(["a b c"], ["d e f g h i"], max_length=8, truncation="only_second", stride=3)


def test_post_processors_without_an_exact_translation_are_refused():
    tokenizer = bert()
    twice = [processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))] * 2
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(twice)
    with pytest.raises(ValueError, match="post_processor Sequence with a part after one that adds tokens"):
        graph_tokenizer(tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("$A $A", "$A $B")
    with pytest.raises(ValueError, match="TemplateProcessing with the text 2 times"):
        graph_tokenizer(tokenizer)


def test_ids_alone_cost_no_offsets():
    graph = graph_tokenizer(byte_level(), check=False)
    signature = [tf.TensorSpec([None], tf.string)]
    for method, expected in ((graph.tokenize, False), (graph.encode, True)):
        traced = tf.function(method, input_signature=signature).get_concrete_function()
        types = {operation.type for operation in traced.graph.get_operations()}
        assert ("SentencepieceTokenizeWithOffsetsOp" in types) is expected
    assert graph.encode(SENTENCES).input_ids.to_list() == graph.tokenize(SENTENCES).to_list()
