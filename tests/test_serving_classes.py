"""Signatures that say something of texts or pairs: answers of a fresh process equal those of the pipelines."""

import numpy as np
import pytest
import tensorflow as tf

import tfheads
from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import BERT, DISTILBERT, rebuilt
from tests.serving_calls import call, decoded, exported, texts
from tfheads.serving.classes import Classes

FEELINGS = pipeline_cases.labels(pipeline_cases.FEELINGS)
ALBERT = {**BERT, "vocab_size": 65, "embedding_size": 16, "pad_token_id": 0}
TEXTS = [
    "the cat sat on the mat, where the dog ran.",
    "",
    "a",
    "Café 中 😀 é\u0301 👩‍👩‍👧 [SEP]",
    "the dog ran over " * 50,
    "nul\0 and \x7f",
    " \u3000the house\n\x1c",
    "x" * 300,
]
PAIRS = ["a red dog ran", "the cat", "", "中 é", "the cat " * 60, "", "x" * 99, "the mat"]
BAD = [b"\xff\xfe the cat \xc3", b"\0" * 20, b"the cat sat"]


@pytest.fixture(scope="module")
def models():
    """Models with their tokenizers and the options of their exports, by a name of our own."""
    words, byte_pairs, pieces = (getattr(tiny_tokenizers, name)() for name in ("wordpiece", "byte_level_bpe", "albert"))
    windows = {"window_length": 16, "window_stride": 7, "window_pooling": "attention", "pad_token_id": 7}
    gpt2 = {**pipeline_cases.GPT2, "n_layer": 1}
    return {
        "classes": (rebuilt("BertForSequenceClassification", {**BERT, **FEELINGS}), words, {"jit_compile": True}),
        "next": (rebuilt("BertForNextSentencePrediction", BERT), words, {}),
        "choices": (rebuilt("AlbertForMultipleChoice", ALBERT), pieces, {}),
        "documents": (rebuilt("GPT2ForDocumentClassification", {**gpt2, **FEELINGS, **windows}), byte_pairs, {}),
        "vectors": (rebuilt("DistilBertModel", DISTILBERT), words, {"pooling": "mean", "normalize": True}),
    }


@pytest.fixture(scope="module")
def answers(models, tmp_path_factory):
    """All answers of one fresh process, by the model's name and the call's."""
    folders = {name: tmp_path_factory.mktemp(name) for name in models}
    paths = {name: exported(*models[name][:2], folders[name], **models[name][2]) for name in models}
    rows = {"attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]], "token_type_ids": [[0, 0, 1, 1], [0, 0, 0, 0]]}
    rows = {"input_ids": [[2, 7, 8, 3], [2, 9, 3, 0]], **rows}
    tokens = {name: ["int32", values] for name, values in rows.items()}
    unknown = {**tokens, "input_ids": ["int32", [[1] * 4, [105] * 4]]}
    both = {"text": texts(TEXTS), "text_pair": texts(PAIRS)}
    choices = texts([[pair, "the cat", text] for text, pair in zip(TEXTS, PAIRS, strict=True)])
    calls = {
        ("classes", "default"): ["serving_default", {"text": texts(TEXTS)}],
        ("classes", "alone"): ["serving_default", {"text": texts(TEXTS[:1])}],
        ("classes", "no rows"): ["serving_default", {"text": ["string", []]}],
        ("classes", "bad"): ["serving_default", {"text": texts([*BAD, "the cat " * 130_000])}],
        ("classes", "numbers"): ["serving_default", {"text": ["int32", [1, 2]]}],
        ("classes", "pairs"): ["text_pair", both],
        ("classes", "unequal"): ["text_pair", {**both, "text_pair": texts(["a"])}],
        ("classes", "tokens"): ["token_level", tokens],
        ("classes", "compiled tokens"): ["token_level_xla", tokens],
        ("classes", "bad compiled tokens"): ["token_level_xla", unknown],
        ("next", "default"): ["serving_default", {"text": texts(TEXTS), "next_text": texts(PAIRS)}],
        ("choices", "default"): ["serving_default", {"prompt": texts(TEXTS), "choices": choices}],
        ("choices", "none"): ["serving_default", {"prompt": texts(["a"]), "choices": texts([[]])}],
        ("documents", "default"): ["serving_default", {"text": texts(TEXTS)}],
        ("documents", "no rows"): ["serving_default", {"text": ["string", []]}],
        ("vectors", "default"): ["serving_default", {"text": texts(TEXTS)}],
        ("vectors", "bad"): ["serving_default", {"text": texts(BAD)}],
        ("vectors", "no rows"): ["serving_default", {"text": ["string", []]}],
    }
    given = call([[paths[model], *rest] for (model, _), rest in calls.items()], tmp_path_factory.mktemp("calls"))
    return dict(zip(calls, given, strict=True))


def pipeline(models, name: str, task: str, **options):
    """The pipeline of a model."""
    model, tokenizer, _ = models[name]
    return tfheads.pipeline(task, model=model, tokenizer=tokenizer, **options)


@pytest.mark.slow
def test_classes_equal_the_pipeline(models, answers):
    pipe = pipeline(models, "classes", "text-classification", truncation=True)
    pairs = [{"text": text, "text_pair": pair} for text, pair in zip(TEXTS, PAIRS, strict=True)]
    for name, inputs in (("default", TEXTS), ("pairs", pairs)):
        answer, expected = answers["classes", name], pipe(inputs, top_k=3)
        assert decoded(answer["labels"]) == [pipeline_cases.FEELINGS] * len(TEXTS)
        assert decoded(answer["label"]) == [row[0]["label"] for row in expected]
        np.testing.assert_allclose(answer["score"], [row[0]["score"] for row in expected], atol=1e-5)
        by_name = [{one["label"]: one["score"] for one in row} for row in expected]
        scores = [[row[label] for label in pipeline_cases.FEELINGS] for row in by_name]
        np.testing.assert_allclose(answer["scores"], scores, atol=1e-5)


@pytest.mark.slow
def test_bad_texts_change_nothing_for_their_neighbours(answers):
    alone = answers["classes", "alone"]["scores"][0]
    np.testing.assert_allclose(answers["classes", "default"]["scores"][0], alone, atol=1e-5)
    for model, name in (("classes", "scores"), ("vectors", "embedding")):
        bad = np.array(answers[model, "bad"][name])
        assert len(bad) >= len(BAD) and np.isfinite(bad).all()
    assert answers["classes", "no rows"] == {"label": [], "labels": [], "score": [], "scores": []}
    assert answers["vectors", "no rows"] == {"embedding": []} and answers["documents", "no rows"]["label"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("classes", "unequal", "text and text_pair must have as many texts"),
        ("classes", "numbers", "string"),
        ("classes", "bad compiled tokens", "input_ids must be between 0 and 104"),
        ("choices", "none", "choices must be at least 1"),
    ],
)
def test_bad_requests_are_errors(answers, model, name, message):
    answer = answers[model, name]
    assert isinstance(answer, str) and message in answer


@pytest.mark.slow
def test_tokens_compiled_by_xla_give_the_same(answers):
    expected = answers["classes", "tokens"]["logits"]
    np.testing.assert_allclose(answers["classes", "compiled tokens"]["logits"], expected, atol=1e-5)


@pytest.mark.slow
def test_next_sentences_equal_the_pipeline(models, answers):
    answer, pipe = answers["next", "default"], pipeline(models, "next", "next-sentence", truncation=True)
    expected = pipe([list(pair) for pair in zip(TEXTS, PAIRS, strict=True)])
    assert decoded(answer["label"]) == [one["label"] for one in expected]
    np.testing.assert_allclose(answer["score"], [one["score"] for one in expected], atol=1e-5)
    np.testing.assert_allclose(answer["probability"], [one["scores"]["isNext"] for one in expected], atol=1e-5)


@pytest.mark.slow
def test_choices_equal_the_pipeline(models, answers):
    answer, pipe = answers["choices", "default"], pipeline(models, "choices", "multiple-choice", truncation=True)
    choices = [[pair, "the cat", text] for text, pair in zip(TEXTS, PAIRS, strict=True)]
    expected = pipe([{"prompt": text, "choices": own} for text, own in zip(TEXTS, choices, strict=True)])
    assert decoded(answer["choice"]) == [one["choice"] for one in expected]
    assert answer["index"] == [one["index"] for one in expected]
    np.testing.assert_allclose(answer["scores"], [one["scores"] for one in expected], atol=1e-5)


@pytest.mark.slow
def test_documents_equal_the_model(models, answers):
    (model, tokenizer, _), answer = models["documents"], answers["documents", "default"]
    for row, text in enumerate(TEXTS):
        if not text:  # of which the tokenizer makes nothing
            assert answer["label"][row] == "" and answer["scores"][row] == [0.0] * 3
            continue
        scores = tf.nn.softmax(model({"input_ids": [tokenizer(text)["input_ids"]]}).logits)[0].numpy()
        np.testing.assert_allclose(answer["scores"][row], scores, atol=1e-5)
        assert answer["label"][row] == pipeline_cases.FEELINGS[scores.argmax()]


@pytest.mark.slow
def test_vectors_equal_the_pipeline(models, answers):
    pipe = pipeline(models, "vectors", "feature-extraction", pooling="mean", normalize=True)
    np.testing.assert_allclose(answers["vectors", "default"]["embedding"], pipe(TEXTS), atol=1e-5)


def test_every_pooling_equals_the_pipeline(models):
    from tfheads.pipelines.sentence_embeddings import POOLINGS
    from tfheads.serving.embeddings import GRAPH_POOLINGS

    hidden = np.random.RandomState(0).randn(3, 5, 4).astype("float32")
    lengths = [5, 1, 3]
    real = tf.sequence_mask(lengths, 5)[:, :, None]
    assert GRAPH_POOLINGS.keys() == POOLINGS.keys()
    for name, pool in POOLINGS.items():
        expected = [pool(row[:length]) for row, length in zip(hidden, lengths, strict=True)]
        np.testing.assert_allclose(GRAPH_POOLINGS[name](tf.constant(hidden), real), expected, atol=1e-6)


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification", "single_label_classification"])
def test_scores_follow_the_kind_of_problem(models, problem_type):
    model = models["classes"][0]
    config = type(model.config)(**{**model.config.to_dict(), "problem_type": problem_type})
    logits = tf.constant([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    answer = Classes(config).answer(logits, tf.constant([True, False]))
    expected = {"regression": tf.identity, "multi_label_classification": tf.sigmoid}.get(problem_type, tf.nn.softmax)
    np.testing.assert_allclose(answer["scores"], expected(logits) * [[1.0], [0.0]], atol=1e-6)
    assert answer["label"].numpy().tolist() == [b"negative", b""]
