"""Signatures that point at parts of a text: answers of a fresh process equal those of the pipelines."""

import numpy as np
import pytest
import tensorflow as tf

import tfheads
from tests.fixtures import pipeline_cases, span_pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt
from tests.serving_calls import call, decoded, exported, in_graph, texts
from tfheads.serving.entities import STRATEGIES, Labels, without_overlaps
from tfheads.serving.question_answering import QuestionAnsweringBundle
from tfheads.serving.token_classification import TokenClassificationBundle

SHORT, LONG, UNICODE = (getattr(span_pipeline_cases, name) for name in ("SHORT", "LONG", "UNICODE"))
LABELS = span_pipeline_cases.LABELS
BERT = {**pipeline_cases.BERT, "num_hidden_layers": 1}
ROBERTA = {**BERT, "vocab_size": 287, "max_position_embeddings": 50, "pad_token_id": 1}
TEXTS = [SHORT, UNICODE, "", LONG, "a", "cats running", "x" * 300, "don't do not [SEP] 'm", "nul\0 \x7f"]
QUESTIONS = [
    (span_pipeline_cases.QUESTION, SHORT),
    ("dog?", "cat"),
    ("where is the red house of the old dog and a cat", LONG),
    ("e\u0301t 😀?", UNICODE),
    ("中?", LONG * 3),
    ("the " * 30, LONG),
    ("a dog?", "the dog and The Dog, THE DOG; a cat sat. " * 9),
]
UNANSWERABLE = [("", "the cat"), ("the cat?", " \u3000"), ("the " * 60, SHORT)]


@pytest.fixture(scope="module")
def models():
    """Models with their tokenizers and the options of their exports, by a name of our own."""
    words, framed, byte_pairs = tiny_tokenizers.wordpiece(), tiny_tokenizers.roberta(), tiny_tokenizers.byte_level_bpe()
    average = {"aggregation_strategy": "average", "stride": 5, "ignore_labels": []}
    gpt2 = {**pipeline_cases.GPT2, "n_layer": 1}
    return {
        "words": (rebuilt("BertForTokenClassification", {**BERT, **LABELS}), words, average),
        "byte pairs": (rebuilt("GPT2ForTokenClassification", {**gpt2, **LABELS}), byte_pairs, {}),
        "questions": (rebuilt("RobertaForQuestionAnswering", ROBERTA), framed, {}),
    }


@pytest.fixture(scope="module")
def answers(models, tmp_path_factory):
    """All answers of one fresh process, by the model's name and the call's."""
    folders = {name: tmp_path_factory.mktemp(name) for name in models}
    paths = {name: exported(*models[name][:2], folders[name], **models[name][2]) for name in models}
    questions = [*QUESTIONS, *UNANSWERABLE, (b"\xff?", b"the cat \xfe sat"), ("cat", "the cat sat " * 500)]
    calls = {
        ("words", "default"): ["serving_default", {"text": texts(TEXTS)}],
        ("words", "alone"): ["serving_default", {"text": texts(TEXTS[:1])}],
        ("words", "no rows"): ["serving_default", {"text": ["string", []]}],
        ("words", "bad"): ["serving_default", {"text": texts([b"\xff the cat \xc3", SHORT, "the cat " * 2_000])}],
        ("byte pairs", "default"): ["serving_default", {"text": texts(TEXTS)}],
        ("questions", "default"): [
            "serving_default",
            {"question": texts([one for one, _ in questions]), "context": texts([one for _, one in questions])},
        ],
        ("questions", "no rows"): ["serving_default", {"question": ["string", []], "context": ["string", []]}],
    }
    given = call([[paths[model], *rest] for (model, _), rest in calls.items()], tmp_path_factory.mktemp("calls"))
    return dict(zip(calls, given, strict=True))


def rows_of(answer: dict) -> list[list[dict]]:
    """The entities of each text, as the pipeline gives them."""
    names = {"word": "word", "start": "start", "end": "end", "label": "entity_group", "score": "score"}
    return [
        [{theirs: answer[ours][row][place] for ours, theirs in names.items()} for place in range(count)]
        for row, count in enumerate(answer["count"])
    ]


def assert_same(found: list[list[dict]], expected: list[list[dict]]) -> None:
    """Requires equal entities, and scores that are nearly equal."""
    for ours, theirs in zip(found, expected, strict=True):
        theirs = [{"entity_group": one.get("entity"), **one} for one in theirs]
        for name in ("word", "start", "end", "entity_group"):
            assert [one[name] for one in ours] == [one[name] for one in theirs]
        np.testing.assert_allclose([one["score"] for one in ours], [one["score"] for one in theirs], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["words", "byte pairs"])
def test_entities_equal_the_pipeline(models, answers, name):
    (model, tokenizer, options), answer = models[name], answers[name, "default"]
    pipe = tfheads.pipeline("token-classification", model=model, tokenizer=tokenizer)
    answer = {**answer, "word": decoded(answer["word"])}
    assert sum(answer["count"]) > 15 and answer["count"][TEXTS.index("")] == 0
    assert_same(rows_of(answer), pipe(TEXTS, **{"aggregation_strategy": "simple", **options}))


@pytest.mark.slow
def test_entities_do_not_depend_on_their_neighbours(answers):
    alone, default, bad = (answers["words", name] for name in ("alone", "default", "bad"))
    count = alone["count"][0]
    for answer, row in ((default, 0), (bad, 1)):
        assert answer["count"][row] == count and answer["word"][row][:count] == alone["word"][0]
        assert answer["start"][row][:count] == alone["start"][0]
    assert answers["words", "no rows"]["count"] == [] and bad["count"][2] > 10
    assert np.isfinite(bad["score"]).all()


@pytest.mark.parametrize("name", ["words", "byte pairs"])
def test_every_strategy_equals_the_pipeline(models, name):
    model, tokenizer, _ = models[name]
    graph = in_graph(tokenizer)
    some = [SHORT, UNICODE, LONG, "été cats"]
    bundle = TokenClassificationBundle(model, graph, tokenizer, {"stride": 7})
    spans, windows = bundle._tokens(tf.constant(some))
    pipe = tfheads.pipeline("token-classification", model=model, tokenizer=tokenizer)
    for strategy, entities_of in STRATEGIES.items():
        options = {"aggregation_strategy": strategy} | ({} if strategy == "none" else {"stride": 7})
        texts_here = some if "stride" in options else some[:1]  # the pipeline cuts the others
        labels = Labels(model.config, ("O",), whole=strategy == "none")
        entities = entities_of(spans, labels, bundle.token_strings)
        kept = ~tf.gather(labels.ignored, entities.label)
        entities = without_overlaps(entities, kept, tf.gather(windows, entities.row) > 1)
        found = [[] for _ in some]
        for row, start, end, word, label, score in zip(*(values.numpy() for values in entities), strict=True):
            one = {"word": word.decode(), "start": start, "end": end, "score": score}
            found[row].append({**one, "entity_group": labels.names[label]})
        assert_same(found[: len(texts_here)], pipe(texts_here, ignore_labels=["O"], **options))


@pytest.mark.slow
def test_answers_equal_the_pipeline(models, answers):
    (model, tokenizer, _), answer = models["questions"], answers["questions", "default"]
    pipe = tfheads.pipeline("question-answering", model=model, tokenizer=tokenizer)
    assert_answers(answer | {"answer": decoded(answer["answer"])}, pipe)
    for row in range(len(QUESTIONS), len(QUESTIONS) + len(UNANSWERABLE)):
        assert [answer[name][row] for name in ("answer", "start", "end", "score")] == ["", 0, 0, 0.0]
    assert answer["answer"][-1] and np.isfinite(answer["score"]).all()
    assert answers["questions", "no rows"] == {"answer": [], "start": [], "end": [], "score": []}


def assert_answers(answer: dict, pipe) -> None:
    """Requires the pipeline's answers to QUESTIONS."""
    for row, (question, context) in enumerate(QUESTIONS):
        expected = pipe(question=question, context=context)
        assert {name: answer[name][row] for name in ("answer", "start", "end")} == {
            name: expected[name] for name in ("answer", "start", "end")
        }
        np.testing.assert_allclose(answer["score"][row], expected["score"], atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"align_to_words": False, "max_seq_len": 40, "max_answer_len": 3},
        {"handle_impossible_answer": True, "max_question_len": 4, "doc_stride": 9},
    ],
)
def test_options_of_answers_equal_the_pipeline(models, options):
    model, tokenizer, _ = models["questions"]
    graph = in_graph(tokenizer)
    answer = QuestionAnsweringBundle(model, graph, tokenizer, options)._answered(
        tf.constant([question for question, _ in QUESTIONS]), tf.constant([context for _, context in QUESTIONS])
    )
    answer = {name: value.numpy().tolist() for name, value in answer.items()}
    answer["answer"] = [text.decode() for text in answer["answer"]]
    assert_answers(answer, tfheads.pipeline("question-answering", model=model, tokenizer=tokenizer, **options))


@pytest.mark.parametrize("options", [{}, {"handle_impossible_answer": True}, {"max_question_len": 4}])
def test_a_request_in_which_nothing_can_be_answered_has_empty_answers(models, options):
    model, tokenizer, _ = models["questions"]
    bundle = QuestionAnsweringBundle(model, in_graph(tokenizer), tokenizer, options)
    for rows in ([("", ""), (" ", "a cat"), ("who", "")], [("", "the cat")]):
        questions, contexts = (tf.constant(texts) for texts in zip(*rows, strict=True))
        answer = bundle._answered(questions, contexts)
        assert answer["answer"].numpy().tolist() == [b""] * len(rows)
        assert not np.any([answer[name].numpy() for name in ("start", "end", "score")])
