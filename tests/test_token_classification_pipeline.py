"""Token classification: the answers of transformers, forms of a call, long texts, labels of pieces, errors."""

import json
import logging

import numpy as np
import pytest

import tfheads
from tests.fixtures import span_pipeline_cases as cases
from tests.fixtures import tiny_tokenizers
from tests.fixtures.reference import FOLDER
from tests.rebuilt_models import rebuilt
from tfheads.data import token_classification as data
from tfheads.pipelines.token_classification import TokenClassificationPipeline, without_overlaps

STORED = json.loads((FOLDER / "span_pipelines.json").read_text(encoding="utf-8"))
WORDS, PIECES = "token-classification", "token-classification, byte-level"
CALLS = [(name, index) for name, calls in cases.TOKENS.items() for index in range(len(calls))]


@pytest.fixture(scope="module")
def pipes():
    words, pieces = tiny_tokenizers.wordpiece(), tiny_tokenizers.byte_level_bpe(add_prefix_space=True)
    bert = rebuilt("BertForTokenClassification", {**cases.BERT, **cases.LABELS})
    gpt2 = rebuilt("GPT2ForTokenClassification", {**cases.GPT2, **cases.LABELS})
    return {
        WORDS: tfheads.pipeline("ner", model=bert, tokenizer=words),
        PIECES: tfheads.pipeline("token-classification", model=gpt2, tokenizer=pieces),
    }


@pytest.fixture(scope="module")
def pipe(pipes):
    return pipes[WORDS]


def same(ours, theirs) -> None:
    """Raises unless two answers or lists of answers are equal, scores within 1e-6."""
    assert type(ours) is type(theirs) and len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(other, list):
            same(one, other)
            continue
        assert list(one) == list(other) and type(one["score"]) is float
        assert abs(one["score"] - other["score"]) < 1e-6
        assert {**one, "score": 0} == {**other, "score": 0}


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_answers_like_transformers(pipes, name, index):
    inputs, options = cases.TOKENS[name][index]
    same(pipes[name](inputs, **options), STORED[name][index])


def test_batches_and_streams_change_nothing(pipe):
    texts = [cases.SHORT, "", cases.LONG, "a", cases.UNICODE, "cats"]
    options = {"aggregation_strategy": "max", "stride": 3, "ignore_labels": [""]}
    alone = [pipe(text, **options) for text in texts]
    assert alone[1] == [] and len(alone[2]) > 1
    for size in (1, 4, 100):
        same(pipe(texts, batch_size=size, **options), alone)
    same(list(pipe((text for text in texts), batch_size=2, **options)), alone)
    words = [text.split() for text in texts]
    split = {**options, "is_split_into_words": True}
    same(pipe(words, **split), [pipe(row, **split)[0] if row else [] for row in words])
    assert pipe([[]], is_split_into_words=True) == [[]]


def test_entities_point_at_the_text_and_words_come_back_whole(pipe):
    text = "The unbelievable, old cathouses ran " * 6
    for stride in (0, 2, 7, 45):
        for strategy in ("first", "average", "max"):
            entities = pipe(text, aggregation_strategy=strategy, stride=stride, ignore_labels=[""])
            assert entities[0]["start"] >= 0 and len(text) / 2 < entities[-1]["end"] <= len(text.rstrip())
            for entity, following in zip(entities, entities[1:], strict=False):
                assert entity["start"] < entity["end"] <= following["start"]
    for strategy in ("first", "average", "max"):
        (word,) = pipe("unbelievable", aggregation_strategy=strategy, ignore_labels=[])
        assert (word["word"], word["start"], word["end"]) == ("unbelievable", 0, 12)
    entities = pipe(
        ["unbelievable", "cathouses"], is_split_into_words=True, aggregation_strategy="first", ignore_labels=[]
    )
    assert " ".join(entity["word"] for entity in entities[0]) == "unbelievable cathouses"


def test_a_text_that_is_cut_is_reported(pipe, caplog):
    with caplog.at_level(logging.WARNING, "tfheads"):
        cut = pipe(cases.LONG, ignore_labels=[""])
    assert "a text is cut after 48 tokens" in caplog.text and len(cut) == 46
    caplog.clear()
    pipe(cases.LONG, aggregation_strategy="simple", stride=0)
    assert not caplog.text


def test_rows_that_overlap_keep_the_longest_and_the_surest():
    seen = [(0, 4, 0.5), (2, 9, 0.1), (9, 12, 0.4), (9, 12, 0.6), (12, 13, 0.3)]
    entities = [{"start": start, "end": end, "score": score} for start, end, score in seen]
    kept = [(one["start"], one["end"], one["score"]) for one in without_overlaps(entities[::-1])]
    assert kept == [(2, 9, 0.1), (9, 12, 0.6), (12, 13, 0.3)]


class Slow:
    """What the pipeline reads of a tokenizer without offsets."""

    is_fast, pad_token_type_id, pad_token_id, model_max_length, unk_token_id = False, 0, 0, 48, 1

    def __init__(self):
        self.fast = tiny_tokenizers.wordpiece()

    def __call__(self, text, return_offsets_mapping=False, return_overflowing_tokens=False, **options):
        assert not return_offsets_mapping and not return_overflowing_tokens
        return self.fast(text, **options)

    def __getattr__(self, name):
        if name in ("convert_ids_to_tokens", "convert_tokens_to_string", "num_special_tokens_to_add"):
            return getattr(self.fast, name)
        raise AttributeError(name)


def test_a_tokenizer_without_offsets_gives_tokens_without_places(pipe):
    slow = TokenClassificationPipeline(pipe.model, Slow())
    ours, theirs = slow("the cats", ignore_labels=[]), pipe("the cats", ignore_labels=[])
    assert [one["word"] for one in ours] == [one["word"] for one in theirs] and ours[0]["start"] is None
    for options, message in (
        ({"aggregation_strategy": "first"}, "aggregation_strategy must be 'none' or 'simple' with a tokenizer without"),
        ({"aggregation_strategy": "simple", "stride": 2}, "stride must be None with a tokenizer without offsets"),
    ):
        with pytest.raises(ValueError, match=message):
            slow("the", **options)
    with pytest.raises(TypeError, match="tokenizer must be a fast one, which knows words, got Slow"):
        slow(["the"], is_split_into_words=True)


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ("a", {"aggregation_strategy": "middle"}, ValueError, "must be one of none, simple, first, average, max, got"),
        ("a", {"aggregation": "first"}, ValueError, "no option 'aggregation', the nearest is 'aggregation_strategy'"),
        ("a", {"ignore_labels": ["B-ORG"]}, ValueError, "ignore_labels must be labels of the model, .* got 'B-ORG'"),
        ("a", {"ignore_labels": "O"}, TypeError, "ignore_labels must be a list of strings, got 'O'"),
        ("a", {"stride": 4}, ValueError, "stride must be None without an aggregation_strategy"),
        ("a", {"stride": 46, "aggregation_strategy": "max"}, ValueError, "stride must be below 46, .* got 46"),
        ("a", {"stride": -1, "aggregation_strategy": "max"}, ValueError, "stride must be a whole number from 0"),
        ([["the", "cat"]], {}, TypeError, "got a list of words: give is_split_into_words=True"),
        ("the cat", {"is_split_into_words": True}, TypeError, "must be lists of words with is_split_into_words=True"),
        (["the", 3], {"is_split_into_words": True}, TypeError, "words must be a list of strings, got int in it"),
        ("a", {"is_split_into_words": "yes"}, ValueError, "is_split_into_words must be True or False"),
        ("a", {"delimiter": 3}, TypeError, "delimiter must be a string"),
        (["a", 3], {}, TypeError, "got int at place 1"),
    ],
)
def test_errors(pipe, inputs, options, error, message):
    with pytest.raises(error, match=message):
        pipe(inputs, **options)


def test_models_and_tokenizers_that_do_not_fit(pipes):
    pieces = TokenClassificationPipeline(pipes[PIECES].model, tiny_tokenizers.byte_level_bpe())
    with pytest.raises(ValueError, match="tokenizer must be loaded with add_prefix_space=True to take words"):
        pieces(["the"], is_split_into_words=True)
    model = rebuilt("BertForTokenClassification", {**cases.BERT, **cases.LABELS})
    model.config.id2label = {0: "O", 2: "B-PER"}
    with pytest.raises(ValueError, match=r"id2label must name the labels 0 to 1, got \[0, 2\]"):
        TokenClassificationPipeline(model, tiny_tokenizers.wordpiece())


def test_labels_of_words_become_labels_of_pieces_and_come_back():
    tokenizer, names = tiny_tokenizers.wordpiece(), ["O", "B-PER", "I-PER", "B-LOC"]
    rows = {"tokens": [["The", "cats", "running"], ["中国", "a"]], "ner_tags": [[0, 1, 3], ["I-PER", "O"]]}
    first = data.token_classification_features(rows, tokenizer, names)
    assert tokenizer.convert_ids_to_tokens(first["input_ids"][0])[1:4] == ["the", "cat", "##s"]
    assert first["labels"][0] == [-100, 0, 1, -100, 3, *[-100] * 5]
    assert first["labels"][1] == [-100, 2, -100, 0, -100]
    every = data.token_classification_features(rows, tokenizer, names, label_all_tokens=True)
    assert every["labels"][0] == [-100, 0, 1, 2, *[3] * 5, -100]  # there is no I-LOC
    assert [len(row) for row in first["labels"]] == [len(row) for row in first["input_ids"]]
    short = data.token_classification_features(rows, tokenizer, names, max_length=4)
    assert short["labels"] == [[-100, 0, 1, -100], [-100, 2, -100, -100]]
    assert "labels" not in data.token_classification_features(rows, tokenizer, names, labels_column=None)
    logits = [np.eye(4)[np.maximum(row, 0)] for row in first["labels"]]
    found, right = data.labels_of_words(logits, first["labels"], names)
    assert found == right == [["O", "B-PER", "B-LOC"], ["I-PER", "O"]]


@pytest.mark.parametrize(
    ("words", "labels", "error", "message"),
    [
        ("the cat", [0, 1], TypeError, "words must be a list of strings, got str"),
        (["the", None], [0, 1], TypeError, "got NoneType in it"),
        (["the", "cat"], [0], ValueError, "ner_tags must be as many as tokens, got 1 labels for 2 words"),
        (["the", "cat"], [0, 2], ValueError, "ner_tags must be -100 or from 0 to 1, got 2"),
        (["the", "cat"], ["O", "B-PER"], ValueError, "ner_tags must be labels of the model, O, B-LOC, got 'B-PER'"),
    ],
)
def test_bad_rows_are_errors(words, labels, error, message):
    with pytest.raises(error, match=message):
        data.token_classification_features(
            {"tokens": [words], "ner_tags": [labels]}, tiny_tokenizers.wordpiece(), ["O", "B-LOC"]
        )
