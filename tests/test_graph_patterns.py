"""Regular expressions inside the graph against the rust library's: words, replacements, whole tokenizers, refusals."""

import json
import random

import pytest
import tensorflow as tf
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.fixtures.trained_tokenizers import CORPUS, random_texts
from tfheads.preprocessing import code_points, graph_tokenizer
from tfheads.preprocessing import normalizers as graph_normalizers
from tfheads.preprocessing import pre_tokenizers as graph_pre_tokenizers
from tfheads.preprocessing.aligned_text import Text
from tfheads.preprocessing.verification import windows_in_graph, windows_of

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]|\s"
PARTS = [
    "a",
    "b",
    "Ab",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "'s",
    "'S",
    "'ſ",
    "'LL",
    "1",
    "22",
    "4444",
    "é",
    "E\u0301",
    "中",
]
PARTS += ["!", "...", "\u3000", "\u00a0", "ǅ", "\0", "।", "/", "_", "<|end|>"]


def odd_texts(seed, parts=PARTS, count=400):
    generator = random.Random(seed)
    return ["".join(generator.choice(parts) for _ in range(generator.randrange(14))) for _ in range(count)]


def part_of(kind, value):
    """The description of a normaliser or a pre-tokeniser."""
    tokenizer = Tokenizer(models.BPE())
    setattr(tokenizer, kind, value)
    return json.loads(tokenizer.to_str())[kind]


def words_in_graph(pre_tokenizer, texts):
    build = graph_pre_tokenizers.build(part_of("pre_tokenizer", pre_tokenizer))
    words = build(Text(code_points.decode(tf.constant(texts)))).points
    return [[word.decode() for word in row] for row in tf.strings.unicode_encode(words, "UTF-8").to_list()]


def check_words(pre_tokenizer, texts):
    expected = [[word for word, _ in pre_tokenizer.pre_tokenize_str(text)] for text in texts]
    for text, ours, theirs in zip(texts, words_in_graph(pre_tokenizer, texts), expected, strict=True):
        assert ours == theirs, text


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.Split(Regex(POSSESSIVE), "isolated"),
        pre_tokenizers.Split(Regex(BLOOM), "removed"),
        pre_tokenizers.Split(Regex(BLOOM), "removed", invert=True),
        pre_tokenizers.Split(Regex(BLOOM), "contiguous"),
        pre_tokenizers.Split(Regex(r"\b\p{L}+|\s+$"), "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"[\p{L}&&[^aé]]|[[:digit:]]{2}"), "merged_with_next", invert=True),
        pre_tokenizers.Split("'s", "merged_with_next"),
        pre_tokenizers.Split(".", "isolated", invert=True),
        pre_tokenizers.Whitespace(),
    ],
    ids=str,
)
def test_words_equal_those_of_the_rust_library(pre_tokenizer):
    texts = ["", *CORPUS, *random_texts(31, 400), *odd_texts(32), "a" * 2000 + " " * 1500 + "\n" * 300 + "x"]
    check_words(pre_tokenizer, texts)


EDGES = ["(?<=a)", "(?<!b)", "^", "$", r"\b", r"\B", r"\A", r"\z", r"\Z"]


def random_pattern(generator, depth=3):
    """An expression over a few characters that does not match the empty text too often."""
    if depth == 0 or generator.random() < 0.25:
        single = generator.choice(["a", "b", "[ab]", "[^a]", r"\s", "c", "."])
        return single + generator.choice(["", "", "", "?", "*", "+", "*?", "+?", "?+", "++", "{1,2}", "{2}", "{1,3}?"])
    inner = [random_pattern(generator, depth - 1) for _ in range(generator.randrange(1, 4))]
    form = generator.choice(["sequence", "sequence", "choice", "?", "{1,2}", "(?>", "(?=", "(?!", *EDGES])
    if form == "sequence":
        return "".join(f"(?:{part})" for part in inner)
    if form == "choice":
        return f"(?:{'|'.join(inner)})"
    if form in ("(?>", "(?=", "(?!"):
        return f"{form}{inner[0]})" + "".join(inner[1:])
    if form in EDGES:
        return generator.choice([form + inner[0], inner[0] + form])
    return f"(?:{inner[0]}){form}" + "".join(inner[1:])


@pytest.mark.slow
def test_random_expressions_find_what_the_rust_library_finds():
    generator, compared = random.Random(33), 0
    texts = odd_texts(34, list("aabbc ") + ["\n", "ab"], 300)
    while compared < 60:
        try:
            expression = Regex(random_pattern(generator))
        except Exception as error:  # the library has no other class
            assert "target of repeat operator is invalid" in str(error)
            continue
        pre_tokenizer = pre_tokenizers.Split(expression, "isolated")
        try:
            graph_pre_tokenizers.build(part_of("pre_tokenizer", pre_tokenizer))
        except ValueError as error:
            assert "with the regular expression" in str(error)
            continue
        check_words(pre_tokenizer, texts)
        compared += 1


@pytest.mark.parametrize("expression", ["a|bb", r"(?i:AB)\s?", r"\s+(?=x)|[^\p{L}]{2,}"])
def test_replaced_matches_equal_those_of_the_rust_library(expression):
    normalizer = normalizers.Replace(Regex(expression), "<>")
    texts = ["", *odd_texts(35), *random_texts(36, 200)]
    build = graph_normalizers.build(part_of("normalizer", normalizer))
    found = code_points.encode(build(Text(code_points.decode(tf.constant(texts)))).points).numpy()
    assert [text.decode() for text in found] == [normalizer.normalize_str(text) for text in texts]


@pytest.mark.parametrize(("expression", "ignore_merges"), [(LLAMA3, True), (BLOOM, False)])
def test_tokenizers_with_an_expression_give_the_ids_and_offsets_of_the_rust_one(expression, ignore_merges):
    backend = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence([split, byte_level]), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=10**9)
    graph = graph_tokenizer(tokenizer, check=False)
    texts = ["", *CORPUS, *random_texts(37, 200), *odd_texts(38)]
    encoding = graph.encode(texts)
    for text, ours, theirs in zip(texts, windows_in_graph(encoding), windows_of(tokenizer, texts), strict=True):
        assert ours == theirs, text
    decoded = [text.decode() for text in graph.detokenize(encoding.input_ids).numpy()]
    assert decoded == [tokenizer.decode(row, skip_special_tokens=True) for row in encoding.input_ids.to_list()]


@pytest.mark.parametrize(
    "expression",
    [
        *("a*", "^", r"\Ga", "(?:ab)*", r"(a)\1", r"\X", "a{40}", "(?<name>a)"),
        *("(?i:ß)", "(?i:ss)", "(?i)a", "(?<=ab)c"),
    ],
)
def test_expressions_that_cannot_be_searched_for_are_refused(expression):
    part = part_of("pre_tokenizer", pre_tokenizers.Split(Regex(expression), "isolated"))
    with pytest.raises(ValueError, match="pre_tokenizer Split with the regular expression"):
        graph_pre_tokenizers.build(part)
