"""Pipelines that write a text for each: transformers' answers, languages, prefixes, whose options hold, errors."""

import copy
import json
import logging

import datasets
import pytest
import transformers

import tfheads
from tests.fixtures import text_to_text_cases, tiny_tokenizers
from tests.fixtures.reference import FOLDER
from tests.rebuilt_models import rebuilt
from tests.test_pipelines import same
from tfheads.pipelines.translation import languages_of

STORED = json.loads((FOLDER / "text_to_text.json").read_text(encoding="utf-8"))
QUICK = ("text2text-generation/pair", "summarization", "translation")
CALLS = [
    pytest.param(name, index, id=f"{name}-{index}", marks=[pytest.mark.slow] * (index > 0 or name not in QUICK))
    for name in STORED
    for index in range(len(STORED[name]))
]
GREEDY = text_to_text_cases.GREEDY
MIXED = text_to_text_cases.MIXED
GERMAN = {"src_lang": "en_XX", "tgt_lang": "de_DE"}


@pytest.fixture(scope="module")
def pipes():
    """The pipelines by the names of their records, made when first asked for; those of one model share it."""
    return Pipes()


class Pipes(dict):
    def __init__(self):
        super().__init__()
        self.models = {}

    def __missing__(self, name):
        entry = text_to_text_cases.MODELS[name]
        key = json.dumps([entry["class"], entry["config"], entry.get("generation")])
        if key not in self.models:
            self.models[key] = rebuilt(entry["class"], copy.deepcopy(entry["config"]))
            for option, value in entry.get("generation", {}).items():
                setattr(self.models[key].generation_config, option, value)
        task, tokenizer = name.partition("/")[0], getattr(tiny_tokenizers, entry["tokenizer"])()
        self[name] = tfheads.pipeline(task, model=self.models[key], tokenizer=tokenizer, jit_compile=False)
        return self[name]


@pytest.mark.parametrize(("name", "index"), CALLS)
def test_answers_are_those_of_transformers(pipes, name, index):
    inputs, options = text_to_text_cases.CASES[name][index]
    same(pipes[name](inputs, **options), STORED[name][index])


def test_batches_and_input_forms_change_nothing(pipes):
    pipe = pipes["translation"]
    alone = [pipe(text, **GREEDY, **GERMAN) for text in MIXED]
    assert all(len(answer) == 1 for answer in alone)
    same(pipe(tuple(MIXED), batch_size=3, **GREEDY, **GERMAN), [answer[0] for answer in alone])
    rows = datasets.Dataset.from_dict({"text": MIXED, "label": [0] * len(MIXED)})
    for stream in (iter(MIXED), rows, rows["text"]):
        same(list(pipe(stream, batch_size=3, **GREEDY, **GERMAN)), alone)
    assert list(pipe(iter([]), **GERMAN)) == []


def test_text_and_token_ids_in_one_answer(pipes):
    (answer,) = pipes["translation"]("the cat", **GREEDY, **GERMAN, return_text=True, return_tensors=True)
    assert list(answer) == ["translation_text", "translation_token_ids"]
    ids = answer["translation_token_ids"]
    assert ids[:2] == [2, pipes["translation"].tokenizer.convert_tokens_to_ids("de_DE")]
    assert answer["translation_text"] == pipes["translation"].tokenizer.decode(ids, skip_special_tokens=True)


def test_languages_in_the_name_of_the_task_are_defaults(pipes):
    several, single = pipes["translation"], pipes["translation_en_to_de"]
    assert languages_of("translation_eng_Latn_to_deu_Latn") == {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn"}
    named = tfheads.pipeline("translation_en_XX_to_de_DE", several.model, several.tokenizer, jit_compile=False)
    same(named("the cat", **GREEDY), several("the cat", **GREEDY, **GERMAN))
    same(named("the cat", **GREEDY, tgt_lang="fr_XX"), several("the cat", **GREEDY, src_lang="en_XX", tgt_lang="fr_XX"))
    named = tfheads.pipeline("translation", single.model, single.tokenizer, jit_compile=False)
    same(named("the cat", **GREEDY, src_lang="en", tgt_lang="de"), single("the cat", **GREEDY))
    assert named("the cat", **GREEDY) != single("the cat", **GREEDY)  # without a prefix


def test_the_call_comes_before_the_task_and_the_task_before_the_model(pipes):
    def config(pipe, **options):
        made = pipe.settings(options)
        return made.config, made.generation

    held, _ = config(pipes["text2text-generation"])
    assert (held.max_new_tokens, held.num_beams, held.max_length) == (47, 4, None)
    held, _ = config(pipes["text2text-generation/own"])
    assert (held.max_new_tokens, held.max_length, held.num_beams) == (None, 14, 4)
    held, _ = config(pipes["summarization"])
    assert (held.max_new_tokens, held.max_length, held.min_length, held.length_penalty) == (None, 200, 6, 2.0)
    held, call = config(pipes["summarization"], max_new_tokens=3, num_beams=2)
    assert (held.min_length, held.min_new_tokens, call) == (None, 3, {"max_new_tokens": 3, "num_beams": 2})
    held, _ = config(pipes["summarization"], max_length=4, min_length=9)
    assert held.min_length == 6
    own = transformers.GenerationConfig(max_new_tokens=5)
    held, _ = config(pipes["summarization"], generation_config=own)
    assert (held.max_new_tokens, held.num_beams, held.min_length, held.eos_token_id) == (5, None, None, 1)
    model = copy.copy(pipes["text2text-generation"].model)
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.num_beams, model.generation_config.max_new_tokens = 1, 7
    pipe = tfheads.pipeline("text2text-generation", model, tiny_tokenizers.wordpiece(), max_new_tokens=6)
    held, call = config(pipe)
    assert (held.num_beams, held.max_new_tokens, call) == (1, 7, {})
    (answer,) = pipe("the cat", jit_compile=False, max_length=4, return_tensors=True)
    assert len(answer["generated_token_ids"]) == 4


def test_checkpoints_and_what_older_configs_say_of_generation(pipes, tmp_path):
    pipe = pipes["summarization"]
    pipe.model.save_pretrained(tmp_path, tokenizer=pipe.tokenizer)
    loaded = tfheads.pipeline("summarization", str(tmp_path), jit_compile=False)
    same(loaded(MIXED, **GREEDY), pipe(MIXED, **GREEDY))
    assert tfheads.pipeline(model=tmp_path).task == "text2text-generation"
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    older = {"num_beams": 2, "max_length": 9, "eos_token_id": [1, 5], "early_stopping": True}
    (tmp_path / "config.json").write_text(json.dumps({**config, **older}))
    held = tfheads.T5ForConditionalGeneration.from_pretrained(tmp_path).generation_config
    assert {name: getattr(held, name) for name in older} == older and held.decoder_start_token_id == 0
    assert (
        tfheads.T5ForConditionalGeneration.from_pretrained(tmp_path, eos_token_id=1).generation_config.eos_token_id == 1
    )


def test_warnings_are_given_once_and_only_where_they_matter(pipes, caplog):
    tokenizer = tiny_tokenizers.unigram()
    model = pipes["summarization"].model
    short = tfheads.pipeline("summarization", model, tokenizer, jit_compile=False)
    long = tfheads.pipeline("translation_en_to_de", model, tokenizer, jit_compile=False)
    with caplog.at_level(logging.WARNING, "tfheads"):
        short("the cat sat on the mat", max_new_tokens=8)
        long("the", max_new_tokens=60, num_beams=1)
        assert not caplog.messages
        for _ in range(2):
            short(["the mat", "a"], min_length=30, max_length=31, num_beams=1)
            long("the cat sat on the mat", **GREEDY)
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "'the mat' has 14 tokens",
        "'the cat sat on the mat' has 36 tokens",
    ]
    assert "its summary will have at least 29: give a smaller min_length" in caplog.text
    assert "its translation at most 12, so that it may be cut: give more max_new_tokens" in caplog.text


@pytest.mark.parametrize(
    ("name", "inputs", "options", "error", "message"),
    [
        ("text2text-generation", [], {}, ValueError, "at least one text, got an empty list"),
        ("text2text-generation", 3, {}, TypeError, "must be a string or strings, got int"),
        ("text2text-generation", [["a", "b"]], {}, TypeError, "got list at place 0"),
        ("text2text-generation", "the " * 60, {}, ValueError, "has 62 tokens, the model has positions for 48"),
        ("text2text-generation", "a", {"max_new_tokens": 48}, ValueError, "max_new_tokens must be at most 47"),
        ("text2text-generation", "a", {"max_new_token": 3}, ValueError, "the nearest is 'max_new_tokens'"),
        ("text2text-generation", "a", {"src_lang": "en"}, ValueError, "has no option 'src_lang'"),
        ("text2text-generation", "a", {"num_return_sequences": 5}, ValueError, "at most num_beams 4, got 5"),
        ("text2text-generation", "a", {"return_text": False}, ValueError, "must be True without return_tensors"),
        ("text2text-generation", "a", {"min_new_tokens": 9, "max_new_tokens": 8}, ValueError, "min_new_tokens must be"),
        ("summarization", "a", {"decoder_start_token_id": 63}, ValueError, "decoder_input_ids must be between 0"),
        ("translation", "a", {}, ValueError, "src_lang must be a language of MBartTokenizer, got None"),
        ("translation", "a", {"src_lang": "en_XX"}, ValueError, "tgt_lang must be a language .* got None"),
        ("translation", "a", {**GERMAN, "tgt_lang": "german"}, ValueError, "tgt_lang must be .* got 'german'"),
        ("translation", "a", {**GERMAN, "src_lang": "english"}, ValueError, "src_lang must be .* got 'english'"),
    ],
)
def test_errors(pipes, name, inputs, options, error, message):
    with pytest.raises(error, match=message) as raised:
        pipes[name](inputs, **options)
    assert len(str(raised.value).splitlines()) == 1


def test_pipelines_that_cannot_be_made(pipes):
    model, tokenizer = pipes["summarization"].model, pipes["summarization"].tokenizer
    with pytest.raises(ValueError, match="nearest is 'translation'; known are .* translation, translation_xx_to_yy"):
        tfheads.pipeline("translations", model, tokenizer)
    with pytest.raises(ValueError, match="must be for 'causal-lm' in 'text-generation', got T5"):
        tfheads.pipeline("text-generation", model, tokenizer)
