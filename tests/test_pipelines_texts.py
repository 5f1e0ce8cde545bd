"""Pipelines of whole texts: classification, zero-shot, features and sentence embeddings, choices, next sentences."""

import json
import logging

import datasets
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt
from tests.test_pipelines import STORED, same
from tfheads.pipelines.sentence_embeddings import read_modules

TEXTS = [name for name in pipeline_cases.MODELS if name not in ("fill-mask", "text-generation")]
CALLS = [pytest.param(name, index, id=f"{name}-{index}") for name in TEXTS for index in range(len(STORED[name]))]
WORDS = ["the", "cat", "sat", "on", "a", "red", "mat"]


@pytest.fixture(scope="module")
def pipes():
    """The pipelines by the names of their records, made when first asked for."""
    return Pipes()


class Pipes(dict):
    def __missing__(self, name):
        entry = pipeline_cases.MODELS[name]
        gpt2 = entry["class"].startswith("GPT2")
        model = rebuilt(entry["class"], pipeline_cases.GPT2 if gpt2 else pipeline_cases.BERT, **entry.get("config", {}))
        tokenizer = tiny_tokenizers.byte_level_bpe() if gpt2 else tiny_tokenizers.wordpiece()
        task, options = name.partition("/")[0], entry.get("options", {})
        self[name] = tfheads.pipeline(task, model=model, tokenizer=tokenizer, **options)
        return self[name]


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_answers_are_those_of_transformers(pipes, name, index):
    inputs, options = pipeline_cases.CASES[name][index]
    raw = name == "feature-extraction" or options.get("function_to_apply") == "none" or "regression" in name
    same(pipes[name](inputs, **options), STORED[name][index], tolerance=1e-5 if raw else 1e-6)


def test_all_input_forms_give_the_same_answers_in_order(pipes):
    pipe = pipes["text-classification"]
    texts = [" ".join(WORDS[: 1 + index * 5 % 7]) for index in range(9)]
    alone = [pipe(text)[0] for text in texts]
    same(pipe(texts, batch_size=4), alone)
    same(pipe(tuple(texts)), alone)
    rows = datasets.Dataset.from_dict({"text": texts, "label": [0] * 9})
    for stream in (
        iter(texts),
        rows,
        rows["text"],
        ByNumber(texts),
        tf.data.Dataset.from_tensor_slices(texts),
        np.array(texts),
    ):
        answers = pipe(stream, batch_size=4)
        assert not isinstance(answers, list)
        same(list(answers), alone)


class ByNumber:
    """A dataset as PyTorch's: it knows its length and its rows by number, and cannot be iterated."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"text": self.rows[index]}


def test_pairs_come_from_datasets_too(pipes):
    pipe = pipes["text-classification"]
    rows = {"text": ["the cat", "a dog"], "text_pair": ["sat", "ran"]}
    pairs = [{"text": "the cat", "text_pair": "sat"}, {"text": "a dog", "text_pair": "ran"}]
    same(list(pipe(datasets.Dataset.from_dict(rows))), pipe(pairs))
    with pytest.raises(ValueError, match="inputs must have a column 'text', got sentence"):
        pipe(datasets.Dataset.from_dict({"sentence": ["the cat"]}))


def test_one_graph_serves_all_lengths(pipes):
    calls = []
    pipe = type(pipes["text-classification"])(pipes["text-classification"].model, tiny_tokenizers.wordpiece())
    forward = pipe.model.forward
    pipe.model.forward = lambda *arguments, **named: calls.append(1) or forward(*arguments, **named)
    try:
        for length in range(1, 30, 3):
            pipe(["the " * length] * (1 + length % 3))
    finally:
        del pipe.model.forward
    assert len(calls) == 1


def test_all_scores_in_the_order_of_the_labels(pipes):
    pipe = pipes["text-classification"]
    ((first, second, third),) = pipe("the cat sat", return_all_scores=True)
    assert [first["label"], second["label"], third["label"]] == pipeline_cases.FEELINGS
    by_score = sorted((first, second, third), key=lambda answer: -answer["score"])
    same(by_score, pipe("the cat sat", top_k=None))
    same(pipe(["the cat sat"], return_all_scores=False), [by_score[0]])


def test_gpt2_reads_the_last_token_of_padded_rows(pipes):
    pipe = pipes["text-classification/gpt2"]
    texts = ["the cat sat on the mat", "x", "a dog"]
    same(pipe(texts), [pipe(text)[0] for text in texts])
    with pytest.raises(ValueError, match="inputs must not be empty: the tokenizer makes no tokens of ''"):
        pipe("")


def test_tasks_are_known_by_their_models_and_other_names(pipes):
    words = tiny_tokenizers.wordpiece()
    for name in ("text-classification", "feature-extraction", "multiple-choice", "next-sentence"):
        assert tfheads.pipeline(model=pipes[name].model, tokenizer=words).task == name
    classifier = pipes["text-classification"].model
    assert tfheads.pipeline("sentiment-analysis", model=classifier, tokenizer=words).task == "text-classification"


def test_zero_shot_takes_options_from_the_pipeline_and_names_the_label_it_takes(pipes, caplog):
    pipe = pipes["zero-shot-classification"]
    own = tfheads.pipeline("zero-shot-classification", pipe.model, pipe.tokenizer, candidate_labels=["cat", "dog"])
    same(own("the cat sat", batch_size=1), pipe("the cat sat", ["cat", "dog"]))
    with caplog.at_level(logging.WARNING, "tfheads"):
        tfheads.pipeline("zero-shot-classification", pipes["text-classification"].model, pipe.tokenizer)
    assert "no label of the model begins with 'entail', its last one, 'positive', is taken" in caplog.text


def test_features_as_tensors(pipes):
    pipe = pipes["feature-extraction"]
    tensor = pipe("the cat", return_tensors=True)
    assert isinstance(tensor, tf.Tensor) and tensor.shape == (1, 4, 36)
    same(tensor.numpy().tolist(), pipe("the cat"))
    assert pipe("the cat", pooling="mean", return_tensors=True).shape == (36,)


@pytest.mark.parametrize("pooling", [name for name in STORED["sentence-embeddings"] if name != "texts"])
def test_sentence_embeddings(pipes, pooling):
    name, _, normalized = pooling.partition(", ")
    answers = pipes["feature-extraction"](
        STORED["sentence-embeddings"]["texts"], pooling=name, normalize=bool(normalized)
    )
    assert np.allclose(answers, STORED["sentence-embeddings"][pooling], atol=1e-5, rtol=0)


def sentence_directory(directory, model=None, modules=(), **files):
    """A directory as sentence-transformers writes it."""
    if model is not None:
        model.save_pretrained(directory, tokenizer=tiny_tokenizers.wordpiece())
    listed = [{"idx": index, "path": path, "type": kind} for index, (path, kind) in enumerate(modules)]
    (directory / "modules.json").write_text(json.dumps(listed))
    for name, values in files.items():
        path = directory / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values))
    return directory


TRANSFORMER = ("", "sentence_transformers.models.Transformer")
POOLING = ("1_Pooling", "sentence_transformers.models.Pooling")
NORMALIZE = ("2_Normalize", "sentence_transformers.models.Normalize")
MEAN = {"word_embedding_dimension": 36, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def test_directories_of_sentence_transformers_say_what_to_do(pipes, tmp_path):
    directory = sentence_directory(
        tmp_path,
        pipes["feature-extraction"].model,
        [TRANSFORMER, POOLING, NORMALIZE],
        **{"1_Pooling__config_json": MEAN, "sentence_bert_config_json": {"max_seq_length": 5, "do_lower_case": True}},
    )
    own = {"pooling": "sentence-transformers"}
    loaded = tfheads.AutoModel.from_pretrained(directory)
    for pipe in (tfheads.pipeline("feature-extraction", directory, **own), tfheads.pipeline(model=loaded, **own)):
        answer = pipe("  the CAT sat on the mat ")
        assert np.isclose(np.linalg.norm(answer), 1, atol=1e-6)
        same(answer, pipe("the cat sat", pooling="mean", normalize=True))
        assert not np.isclose(np.linalg.norm(pipe("the cat", normalize=False)), 1)
        assert np.shape(pipe("the cat", pooling=None)) == (1, 4, 36)


def test_pooling_modes_in_both_spellings(tmp_path):
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    modules = [TRANSFORMER, POOLING]
    assert read_modules(sentence_directory(tmp_path, None, modules, **{"1_Pooling__config_json": both})).poolings == (
        "cls",
        "mean",
    )
    named = {"1_Pooling__config_json": {"pooling_mode": "lasttoken"}}
    assert read_modules(sentence_directory(tmp_path, None, modules, **named)).poolings == ("lasttoken",)
    (tmp_path / "modules.json").unlink()
    assert read_modules(tmp_path) is None


@pytest.mark.parametrize(
    ("modules", "config", "message"),
    [
        ([TRANSFORMER, ("../outside", "Pooling")], MEAN, r"must stay in its directory, got '\.\./outside'"),
        ([TRANSFORMER, ("/etc", "Pooling")], MEAN, "must stay in its directory, got '/etc'"),
        ([TRANSFORMER, (3, "Pooling")], MEAN, "must stay in its directory, got 3"),
        ([TRANSFORMER, ("2_Other", "Pooling")], MEAN, "names .*config.json, which is missing"),
        ([TRANSFORMER, POOLING, ("3_Dense", "sentence_transformers.models.Dense")], MEAN, "got 'Dense'"),
        ([TRANSFORMER, NORMALIZE], MEAN, "got 'Normalize'"),
        ([TRANSFORMER], MEAN, "must have a Pooling, got none"),
        ([TRANSFORMER, POOLING], {"pooling_mode_new_tokens": True}, "got .'pooling_mode_new_tokens'."),
        ([TRANSFORMER, POOLING], {}, r"must ask for poolings of cls, .* got \[\]"),
    ],
)
def test_directories_that_ask_for_something_else(tmp_path, modules, config, message):
    sentence_directory(tmp_path, None, modules, **{"1_Pooling__config_json": config})
    with pytest.raises(ValueError, match=message):
        read_modules(tmp_path)


def test_links_out_of_a_directory_are_not_followed(tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/config.json").write_text(json.dumps(MEAN))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/1_Pooling").symlink_to(tmp_path / "secret")
    sentence_directory(tmp_path / "model", None, [TRANSFORMER, POOLING])
    with pytest.raises(ValueError, match="must stay in its directory"):
        read_modules(tmp_path / "model")


def test_default_prompts_are_an_error(tmp_path):
    files = {"1_Pooling__config_json": MEAN, "config_sentence_transformers_json": {"default_prompt_name": "query"}}
    sentence_directory(tmp_path, None, [TRANSFORMER, POOLING], **files)
    with pytest.raises(ValueError, match="must have no default prompt, got 'query'"):
        read_modules(tmp_path)


def test_choices_of_the_call_and_of_each_example(pipes):
    pipe = pipes["multiple-choice"]
    choices = ["sat", "ran over the house", "is"]
    (first, second) = pipe(["the cat", "where"], choices)
    same(first, pipe({"prompt": "the cat", "choices": choices}, batch_size=1))
    same(second, list(pipe(iter([{"prompt": "where", "choices": choices}])))[0])
    assert first["choice"] == choices[first["index"]] and first["score"] == max(first["scores"])
    assert len(pipe([{"prompt": "a", "choices": choices[:2]}, "the cat"], choices)[0]["scores"]) == 2


def test_next_sentences_as_pairs(pipes):
    pipe = pipes["next-sentence"]
    answer = pipe("the cat sat", "a dog ran")
    same(pipe([("the cat sat", "a dog ran")]), [answer])
    same(pipe([["the cat sat", "a dog ran"]]), [answer])
    same(pipe(["the cat sat"], next_text="a dog ran"), [answer])


@pytest.mark.parametrize("name", ["text-classification", "feature-extraction", "multiple-choice", "next-sentence"])
def test_no_inputs_no_answers(pipes, name):
    with pytest.raises(ValueError, match="inputs must hold at least one text, got an empty list"):
        pipes[name]([])
    assert list(pipes[name](iter([]))) == []


TOO_LONG = "the " * 50
CLASSIFIER, ZERO_SHOT, FEATURES = "text-classification", "zero-shot-classification", "feature-extraction"
CHOICES, NEXT = "multiple-choice", "next-sentence"


@pytest.mark.parametrize(
    ("name", "inputs", "options", "error", "message"),
    [
        (CLASSIFIER, [WORDS], {}, TypeError, "a dictionary of 'text' and 'text_pair', .* got list at place 0"),
        (CLASSIFIER, 3, {}, TypeError, "inputs must be a string, .* got int"),
        (CLASSIFIER, None, {}, TypeError, "got NoneType"),
        (CLASSIFIER, {"text": 3}, {}, TypeError, "'text' must be a string, got int"),
        (CLASSIFIER, {"text": None}, {}, TypeError, "'text' must be a string, got NoneType"),
        (CLASSIFIER, [{"text": "a", "pair": "b"}], {}, ValueError, "got a dictionary of 'text', 'pair' at place 0"),
        (CLASSIFIER, {}, {}, ValueError, "got a dictionary of nothing"),
        (CLASSIFIER, TOO_LONG, {}, ValueError, "has 52 tokens, the model has positions for 48"),
        (CLASSIFIER, "a", {"top_k": 0}, ValueError, "top_k must be a whole number from 1, got 0"),
        (CLASSIFIER, "a", {"top_k": "all"}, ValueError, "top_k must be a whole number from 1, got 'all'"),
        (CLASSIFIER, "a", {"function_to_apply": "relu"}, ValueError, "'softmax', 'sigmoid', 'none', got 'relu'"),
        (CLASSIFIER, "a", {"topk": 1}, ValueError, "has no option 'topk', the nearest is 'top_k'"),
        (CLASSIFIER, "a", {"batch_size": 0}, ValueError, "batch_size must be a whole number from 1, got 0"),
        (ZERO_SHOT, "a", {}, ValueError, "candidate_labels must hold at least one label, got None"),
        (ZERO_SHOT, "a", {"candidate_labels": []}, ValueError, r"at least one label, got \[\]"),
        (ZERO_SHOT, "a", {"candidate_labels": " ,"}, ValueError, "at least one label"),
        (ZERO_SHOT, "a", {"candidate_labels": [1]}, TypeError, r"candidate_labels must be a list .* got \[1\]"),
        (
            ZERO_SHOT,
            "a",
            {"candidate_labels": "b", "hypothesis_template": "This is."},
            ValueError,
            "hypothesis_template must be a string with {}",
        ),
        (
            ZERO_SHOT,
            "a",
            {"candidate_labels": "b", "hypothesis_template": "It is {label}."},
            ValueError,
            "hypothesis_template must be a string with {}",
        ),
        (ZERO_SHOT, "a", {"candidate_labels": TOO_LONG}, ValueError, "tokens, the model has positions for 48"),
        (ZERO_SHOT, [WORDS], {"candidate_labels": "b"}, TypeError, "must be a string or strings, got list at place 0"),
        (FEATURES, {"text": "a"}, {}, TypeError, "must be a string or strings, got dict"),
        (FEATURES, TOO_LONG, {}, ValueError, "has 52 tokens"),
        (FEATURES, "a", {"pooling": "average"}, ValueError, "'lasttoken', got 'average'"),
        (FEATURES, "a", {"normalize": True}, ValueError, "normalize must be given with pooling"),
        (FEATURES, "a", {"pooling": "sentence-transformers"}, ValueError, "needs a directory with modules.json"),
        (
            FEATURES,
            "a",
            {"truncation": True, "tokenize_kwargs": {"truncation": True}},
            ValueError,
            "truncation must be given once",
        ),
        (CHOICES, "a", {}, ValueError, "choices must be given with a prompt that is a string, got None"),
        (CHOICES, {"prompt": "a", "choices": ["b"]}, {}, ValueError, "choices must be at least 2, got 1"),
        (CHOICES, [{"prompt": "a", "choices": []}], {}, ValueError, "at least 2, got 0 at place 0"),
        (CHOICES, {"prompt": "a", "choices": "bc"}, {}, TypeError, "choices must be a list of strings, got 'bc'"),
        (CHOICES, {"prompt": WORDS, "choices": ["b", "c"]}, {}, TypeError, "'prompt' must be a string, got list"),
        (CHOICES, {"prompt": "a"}, {}, ValueError, "got a dictionary of 'prompt'"),
        (NEXT, "a", {}, ValueError, "next_text must be given with a text, got None"),
        (NEXT, "a", {"next_text": 3}, TypeError, "next_text must be a string, got int"),
        (NEXT, [WORDS], {}, TypeError, "'text' and 'next_text', .* got list at place 0"),
    ],
)
def test_bad_input_is_one_sentence(pipes, name, inputs, options, error, message):
    with pytest.raises(error, match=message) as caught:
        pipes[name](inputs, **options)
    assert "\n" not in str(caught.value)


def test_pipelines_that_cannot_be_made(pipes):
    words = tiny_tokenizers.wordpiece()
    classifier, bare = pipes["text-classification"].model, pipes["feature-extraction"].model
    for task, model, message in (
        ("text-classification", bare, "must be for 'sequence-classification' in 'text-classification', got BertModel"),
        ("feature-extraction", classifier, "must be for 'base' in 'feature-extraction'"),
        ("multiple-choice", classifier, "must be for 'multiple-choice'"),
        ("sentiment-analysys", classifier, "the nearest is 'sentiment-analysis'"),
        ("zero-shot-classification", pipes["text-classification/single"].model, "contradiction .* got 1 label"),
    ):
        with pytest.raises(ValueError, match=message):
            tfheads.pipeline(task, model=model, tokenizer=words)
    with pytest.raises(ValueError, match="top_k must be"):
        tfheads.pipeline("text-classification", model=classifier, tokenizer=words, top_k=-1)


def test_low_precision_gives_plain_numbers():
    config = transformers.BertConfig(**pipeline_cases.BERT)
    model = tfheads.AutoModelForSequenceClassification.from_config(config, dtype="bfloat16", seed=0)
    ((answer, other),) = [tfheads.pipeline(model=model, tokenizer=tiny_tokenizers.wordpiece())("the", top_k=None)]
    assert type(answer["score"]) is float and abs(answer["score"] + other["score"] - 1) < 1e-6
