"""Question answering: the answers of transformers 4.57, forms of a call, windows, features, logits, errors."""

import json

import datasets
import numpy as np
import pytest

from tests.fixtures import span_pipeline_cases as cases
from tests.fixtures import tiny_tokenizers
from tests.fixtures.reference import FOLDER
from tests.rebuilt_models import rebuilt
from tfheads.data import question_answering as data
from tfheads.pipelines.question_answering import QuestionAnsweringPipeline, best_spans

STORED = json.loads((FOLDER / "span_pipelines.json").read_text(encoding="utf-8"))
WORDS, PIECES = "question-answering", "question-answering, byte-level"
CALLS = [(name, index) for name, calls in cases.QUESTIONS.items() for index in range(len(calls))]


@pytest.fixture(scope="module")
def pipes():
    words, pieces = tiny_tokenizers.wordpiece(), tiny_tokenizers.byte_level_bpe()
    bert = rebuilt("BertForQuestionAnswering", cases.BERT)
    gpt2 = rebuilt("GPT2ForQuestionAnswering", cases.GPT2)
    return {WORDS: QuestionAnsweringPipeline(bert, words), PIECES: QuestionAnsweringPipeline(gpt2, pieces)}


@pytest.fixture(scope="module")
def pipe(pipes):
    return pipes[WORDS]


def same(ours, theirs) -> None:
    """Raises unless two answers or lists of answers are equal, scores within 1e-6."""
    if isinstance(theirs, list):
        assert isinstance(ours, list) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
        return
    assert list(ours) == list(theirs) and type(ours["score"]) is float
    assert abs(ours["score"] - theirs["score"]) < 1e-6
    assert {**ours, "score": 0} == {**theirs, "score": 0} and type(ours["start"]) is type(ours["end"]) is int


def asked(pipe, inputs, options):
    return pipe(**inputs, **options) if isinstance(inputs, dict) else pipe(inputs, **options)


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_answers_like_transformers(pipes, name, index):
    inputs, options = cases.QUESTIONS[name][index]
    same(asked(pipes[name], inputs, options), STORED[name][index])


def test_a_tokenizer_that_pads_on_the_left_has_the_context_first(pipes):
    tokenizer = tiny_tokenizers.byte_level_bpe()
    tokenizer.padding_side = "left"
    pipe = QuestionAnsweringPipeline(pipes[PIECES].model, tokenizer)
    for (inputs, options), theirs in zip(cases.LEFT, STORED["question-answering, padded left"], strict=True):
        known = {(answer["start"], answer["end"]): answer["score"] for answer in theirs}
        ours = pipe(**inputs, **options, top_k=8)
        compared = [answer for answer in ours if len(answer["answer"]) > 1]
        assert len(compared) >= 3
        for answer in compared:
            assert known[answer["start"], answer["end"]] == pytest.approx(answer["score"], abs=1e-6)
    for align in (True, False):
        for answer in pipe("the cat", cases.LONG, **cases.WINDOWS, align_to_words=align, top_k=30):
            assert answer["answer"] == cases.LONG[answer["start"] : answer["end"]] != ""


def test_forms_of_a_call_and_batches_change_nothing(pipe):
    contexts = [cases.SHORT, cases.LONG, cases.UNICODE, "a mat"]
    questions = ["a dog?", "where is the old cat?", "中?", "a"]
    rows = [{"question": one, "context": other} for one, other in zip(questions, contexts, strict=True)]
    options = {"max_seq_len": 30, "doc_stride": 4, "top_k": 2}
    alone = [pipe(one, other, **options) for one, other in zip(questions, contexts, strict=True)]
    same([pipe(row, **options) for row in rows], alone)
    for size in (1, 3, 100):
        same(pipe(rows, batch_size=size, **options), alone)
    same(pipe(tuple(rows), **options), alone)
    same(pipe(*rows, **options), alone)
    same(pipe(question=questions, context=contexts, **options), alone)
    same(list(pipe((row for row in rows), batch_size=3, **options)), alone)
    table = datasets.Dataset.from_list([{**row, "id": "x"} for row in rows])
    same(list(pipe(table, **options)), alone)
    with pytest.raises(ValueError, match="inputs must hold at least one text, got an empty list"):
        pipe([])
    assert list(pipe(iter([]))) == []


def test_a_stream_is_read_as_it_is_answered(pipe):
    read = []

    def rows():
        for index in range(100):
            read.append(index)
            yield {"question": "a cat?", "context": cases.SHORT}

    answers = pipe(rows(), batch_size=2)
    assert next(answers)["answer"] and len(read) == 2


def test_answers_point_at_the_text_and_a_word_is_whole_where_windows_cut_it(pipe):
    context = "the " * 20 + "supercalifragilistic" + " mat" * 20
    for stride in range(10):
        for answer in pipe("a?", context, max_seq_len=24, doc_stride=stride, top_k=50, max_answer_len=5):
            assert answer["answer"] == context[answer["start"] : answer["end"]]
    inside = pipe("a?", "mat supercalifragilistic", top_k=9, max_answer_len=2)
    assert {answer["answer"] for answer in inside} == {"mat", "supercalifragilistic", "mat supercalifragilistic"}


def test_settings_follow_model_tokenizer_and_pipeline(pipes):
    pipe = QuestionAnsweringPipeline(pipes[WORDS].model, pipes[WORDS].tokenizer, top_k=2)
    assert pipe.settings({}).max_length == 48  # the positions of the model
    assert len(pipe("a cat?", cases.SHORT)) == 2 and isinstance(pipe("a cat?", cases.SHORT, top_k=1), dict)
    # The default stride gives way to a long question.
    assert pipe("a cat or a dog and " * 2, cases.LONG, max_seq_len=24, top_k=1)["answer"]
    long_question = "cat " * 60
    cut = pipe(long_question, cases.LONG, max_question_len=5, top_k=3)
    same(cut, pipe("cat " * 5, cases.LONG, top_k=3))


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        (("", "a cat"), {}, ValueError, "question must not be empty, got ''"),
        (("a cat", ""), {}, ValueError, "context must not be empty"),
        (("a cat", " \n"), {}, ValueError, "context must not be empty"),
        (("a cat", "\u200b\u200d"), {}, ValueError, "the tokenizer makes no tokens of"),
        (("a cat " * 30, "the mat"), {}, ValueError, "question must leave room for its context in 48 tokens"),
        (("a cat", cases.LONG), {"max_seq_len": 16, "doc_stride": 15}, ValueError, "doc_stride must be below 11"),
        (("a cat", cases.LONG), {"max_seq_len": 16, "doc_stride": 16}, ValueError, "below max_seq_len, 16, got 16"),
        (("a cat", "mat"), {"doc_stride": -1}, ValueError, "doc_stride must be a whole number from 0"),
        (("a cat", "mat"), {"max_seq_len": 49}, ValueError, "max_seq_len must be at most 48"),
        (("a cat", "mat"), {"max_seq_len": 0}, ValueError, "max_seq_len must be a whole number from 1"),
        (("a cat", "mat"), {"max_question_len": 0}, ValueError, "max_question_len must be a whole number from 1"),
        (("a cat", "mat"), {"max_answer_len": 0}, ValueError, "max_answer_len must be a whole number from 1, got 0"),
        (("a cat", "mat"), {"top_k": 0}, ValueError, "top_k must be a whole number from 1"),
        (("a cat", "mat"), {"handle_impossible_answer": "no"}, ValueError, "must be True or False, got 'no'"),
        (("a cat", "mat"), {"padding": "left"}, ValueError, "padding must be one of"),
        (("a cat", "mat"), {"topk": 2}, ValueError, "no option 'topk', the nearest is 'top_k'"),
        (("a cat", "mat"), {"context": "x"}, ValueError, "must not be given beside other inputs"),
        (("a cat",), {}, TypeError, r"question=... and context=..., or dictionaries of both, got str"),
        ((["a", "cat"],), {}, TypeError, "got str at place 0"),
        (({"question": "a"},), {}, ValueError, "dictionaries of 'question' and 'context', got 'question'"),
        ((["x", {"question": "a"}],), {}, TypeError, "at place 0"),
        (({"question": "a", "context": None},), {}, TypeError, "context must be a string, got NoneType"),
        (({"question": "a", "context": ["the", "cat"]},), {}, TypeError, "context must be a string, got list"),
        ((), {"question": "a", "context": ["the", "cat"]}, TypeError, "context must be a string for a question"),
        ((), {"question": ["a", "b"], "context": ["the"]}, ValueError, "as many strings as question, 2, got 1"),
        ((), {"question": "a"}, ValueError, "context is needed"),
        ((), {"question": 3, "context": "a"}, TypeError, "question must be a string or a list of strings, got int"),
    ],
)
def test_errors(pipe, inputs, options, error, message):
    with pytest.raises(error, match=message):
        pipe(*inputs, **options)


def test_a_slow_tokenizer_is_refused(pipe):
    class Slow:
        is_fast, pad_token_type_id = False, 0

    with pytest.raises(TypeError, match="tokenizer must be a fast one, which knows offsets, got Slow"):
        QuestionAnsweringPipeline(pipe.model, Slow())
    with pytest.raises(TypeError, match="got Slow"):
        data.question_windows(Slow(), ["a"], ["b"])


def test_best_spans():
    start, end = np.array([0.1, 0.6, 0.3], "float32"), np.array([0.5, 0.1, 0.4], "float32")
    allowed = np.array([True, True, True])
    spans = best_spans(start, end, allowed, 3, 2)
    assert [span[:2] for span in spans] == [(1, 2), (2, 2), (1, 1)]  # not (1, 0), which ends before it begins
    assert [span[:2] for span in best_spans(start, end, allowed, 1, 1)] == [(2, 2)]
    assert best_spans(start, end, np.array([True, True, False]), 1, 3) == []


@pytest.fixture(scope="module")
def examples():
    context = cases.LONG + "😀 " + cases.UNICODE
    answers = ["The old cat", "running dogs 345", "mat.", "😀 Café", None, "國"]
    context = context + " 國"
    rows = [
        {
            "id": str(index),
            "question": f"  {cases.QUESTION}",
            "context": context,
            "answers": {"text": [], "answer_start": []}
            if answer is None
            else {"text": [answer], "answer_start": [context.index(answer)]},
        }
        for index, answer in enumerate(answers)
    ]
    return datasets.Dataset.from_list(rows)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("make", [tiny_tokenizers.wordpiece, tiny_tokenizers.byte_level_bpe])
def test_positions_lead_back_to_the_answers(examples, make, side):
    tokenizer = make()
    tokenizer.padding_side = side
    options = {"max_length": 40, "doc_stride": 16}
    train = data.training_features(examples[:], tokenizer, **options)
    evaluation = data.evaluation_features(examples[:], tokenizer, **options)
    lengths = [len(row) for row in train["input_ids"]]
    assert max(lengths) == 40 and (side == "right" or min(lengths) == 40)
    assert train["input_ids"] == evaluation["input_ids"] and len(lengths) > 2 * len(examples)
    features = [dict(zip(evaluation, row, strict=True)) for row in zip(*evaluation.values(), strict=True)]
    places = list(zip(train["start_positions"], train["end_positions"], strict=True))
    logits = [np.eye(length)[list(place)] * 9.0 for length, place in zip(lengths, places, strict=True)]
    starts, ends = [pair[0] for pair in logits], [pair[1] for pair in logits]
    options = {"max_answer_length": 40, "version_2_with_negative": True}
    found = data.answers_from_logits(examples, features, starts, ends, **options)
    wanted = {row["id"]: (row["answers"]["text"] or [""])[0] for row in examples}
    assert found.texts == wanted
    assert found.null_odds["4"] > 0 > found.null_odds["0"]
    assert all(sum(one["probability"] for one in best) == pytest.approx(1) for best in found.n_best.values())


def test_answers_from_logits_keep_the_rules():
    examples = [{"id": 7, "context": "the cat sat"}]
    offsets = [None, None, None, [0, 3], [4, 7], [8, 11], None]
    features = [{"example_id": 7, "offset_mapping": offsets, "null_index": 0}] * 2
    start = np.array([[3.0, 9, 0, 1, 4, 0, 0], [2.0, 9, 0, 0, 0, 0, 0]], "float32")
    end = np.array([[3.0, 9, 0, 0, 1, 2, 0], [1.0, 0, 0, 0, 0, 0, 0]], "float32")

    def ask(**options):
        return data.answers_from_logits(examples, features, start, end, **options)

    best = ask().n_best[7]
    assert ask().texts == {7: "cat sat"} and best[0]["score"] == 6.0 and best[0]["offsets"] == (4, 11)
    assert ask(max_answer_length=1).texts == {7: "cat"} and ask().null_odds == {}
    missing = ask(version_2_with_negative=True)
    # "No answer" counts with its lowest score over the windows, 3.
    assert missing.texts == {7: "cat sat"} and missing.null_odds == {7: 3.0 - 6.0}
    assert any(one["text"] == "" and one["score"] == 3.0 for one in missing.n_best[7])
    assert ask(version_2_with_negative=True, null_score_diff_threshold=-4.0).texts == {7: ""}
    assert ask(n_best_size=1).texts == {7: ""}  # the best start of both windows is in the question
    with pytest.raises(ValueError, match="n_best_size must be a whole number from 1, got 0"):
        ask(n_best_size=0)
    with pytest.raises(ValueError, match="one row for each of the 2 features, got 1 and 1"):
        data.answers_from_logits(examples, features, start[:1], end[:1])
    with pytest.raises(ValueError, match="a value for each of the 7 tokens of a row, got 3 and 3"):
        data.answers_from_logits(examples, features, start[:, :3], end[:, :3])
    with pytest.raises(ValueError, match="there is none for the id 8"):
        data.answers_from_logits([{"id": 8, "context": ""}], features, start, end)


def test_features_of_bad_rows_are_errors(examples):
    tokenizer, row = tiny_tokenizers.wordpiece(), examples[:1]
    wrong = {**row, "answers": [{"text": ["cat"], "answer_start": [1]}]}
    with pytest.raises(ValueError, match="answers must stand in the context at answer_start, got 'cat' at 1"):
        data.training_features(wrong, tokenizer, max_length=40, doc_stride=8)
    with pytest.raises(ValueError, match="question must not be empty"):
        data.training_features({**row, "question": ["  "]}, tokenizer)
    with pytest.raises(ValueError, match="doc_stride must be a whole number from 0 to 39, got 40"):
        data.evaluation_features(row, tokenizer, max_length=40, doc_stride=40)
    with pytest.raises(ValueError, match="contexts must be as many as questions, got 1 for 2"):
        data.question_windows(tokenizer, ["a", "b"], ["c"])
