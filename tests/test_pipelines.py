"""Pipelines: the answers of transformers' own, input forms, options, errors."""

import json
import logging

import pytest

import tfheads
from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.fixtures.reference import FOLDER
from tests.rebuilt_models import rebuilt
from tfheads.pipelines.base import padded
from tfheads.pipelines.text_generation import TextGenerationPipeline

STORED = json.loads((FOLDER / "pipelines.json").read_text(encoding="utf-8"))
GREEDY = pipeline_cases.GREEDY


@pytest.fixture(scope="module")
def bert():
    return rebuilt("BertForMaskedLM", pipeline_cases.BERT)


@pytest.fixture(scope="module")
def gpt2():
    return rebuilt("GPT2LMHeadModel", pipeline_cases.GPT2)


@pytest.fixture(scope="module")
def fill_mask(bert):
    return tfheads.pipeline("fill-mask", model=bert, tokenizer=tiny_tokenizers.wordpiece())


@pytest.fixture(scope="module")
def text_generation(gpt2):
    return tfheads.pipeline(
        "text-generation", model=gpt2, tokenizer=tiny_tokenizers.byte_level_bpe(), jit_compile=False
    )


def same(ours, theirs, tolerance: float = 1e-6) -> None:
    """Raises unless two nested answers are equal, probabilities within 1e-6, the rest by `tolerance`."""
    if isinstance(theirs, list):
        assert isinstance(ours, list) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other, tolerance)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for name in theirs:
            same(ours[name], theirs[name], tolerance)
    elif isinstance(theirs, float):
        assert abs(ours - theirs) < tolerance
    else:
        assert ours == theirs and type(ours) is type(theirs)


@pytest.mark.parametrize("index", range(len(pipeline_cases.CASES["fill-mask"])))
def test_fill_mask_answers_like_transformers(fill_mask, index):
    inputs, options = pipeline_cases.CASES["fill-mask"][index]
    same(fill_mask(inputs, **options), STORED["fill-mask"][index])


@pytest.mark.parametrize("index", range(len(pipeline_cases.CASES["text-generation"])))
def test_text_generation_answers_like_transformers(text_generation, index):
    inputs, options = pipeline_cases.CASES["text-generation"][index]
    same(text_generation(inputs, **options), STORED["text-generation"][index])


def test_batches_and_order_change_nothing(fill_mask):
    texts = [f"the [MASK] {'ran ' * (index * 7 % 11)}" for index in range(11)]
    alone = [fill_mask(text) for text in texts]
    same(fill_mask(texts, batch_size=3), alone)
    same(fill_mask(tuple(texts), batch_size=100), alone)
    same(list(fill_mask((text for text in texts), batch_size=4)), alone)


def test_a_stream_is_read_as_it_is_answered(fill_mask):
    read = []

    def texts():
        for index in range(100):
            read.append(index)
            yield "the [MASK]"

    answers = fill_mask(texts(), batch_size=2)
    assert len(next(answers)) == 5 and len(read) == 2


def test_an_empty_list_is_an_error_and_an_empty_stream_has_no_answers(fill_mask, text_generation):
    for pipe in (fill_mask, text_generation):
        with pytest.raises(ValueError, match="inputs must hold at least one text, got an empty list"):
            pipe([])
        assert list(pipe(iter([]))) == []


def test_sampling_follows_the_seed_and_the_defaults_are_those_of_transformers(text_generation):
    first, again = (text_generation("the cat", seed=5, return_tensors=True) for _ in range(2))
    other = text_generation("the cat", seed=6, return_tensors=True)
    assert first == again != other
    assert len(first[0]["generated_token_ids"]) <= pipeline_cases.GPT2["n_positions"]
    completed = text_generation._completed({}, text_generation.model.generation_config, [[1, 2]], None)
    assert completed == {"max_new_tokens": 46, "do_sample": True, "temperature": 0.7}


def test_the_space_between_text_and_new_tokens_stays(gpt2):
    pipe = TextGenerationPipeline(gpt2, tiny_tokenizers.unigram())
    prompt, new = (pipe.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the cat", "sat on"))
    assert pipe.tokenizer.decode(new) == "sat on"
    assert pipe._record("the cat", prompt, new, {}) == {"generated_text": "the cat sat on"}
    assert pipe._record("the cat", prompt, new, {"return_full_text": False}) == {"generated_text": " sat on"}


def test_defaults_give_way_to_the_generation_config(gpt2, text_generation):
    config = type(gpt2.generation_config)(do_sample=False, max_length=9)
    (answer,) = text_generation("the cat", return_tensors=True, generation_config=config)
    assert len(answer["generated_token_ids"]) == 9
    (greedy,) = text_generation("the cat", return_tensors=True, do_sample=False, max_length=9)
    assert answer == greedy


def test_options_of_the_pipeline_are_defaults_of_the_calls(bert):
    pipe = tfheads.pipeline("fill-mask", model=bert, tokenizer=tiny_tokenizers.wordpiece(), top_k=2)
    assert len(pipe("the [MASK]")) == 2 and len(pipe("the [MASK]", top_k=4)) == 4


def test_pipelines_load_checkpoints(tmp_path, bert, fill_mask):
    bert.save_pretrained(tmp_path, tokenizer=tiny_tokenizers.wordpiece())
    for pipe in (tfheads.pipeline("fill-mask", str(tmp_path)), tfheads.pipeline(model=tmp_path, batch_size=2)):
        same(pipe("the [MASK] sat"), fill_mask("the [MASK] sat"))
    loaded = tfheads.AutoModelForMaskedLM.from_pretrained(tmp_path)
    same(tfheads.pipeline(model=loaded)("the [MASK] sat"), fill_mask("the [MASK] sat"))


def test_targets_outside_the_vocabulary_are_reported(fill_mask, caplog):
    with caplog.at_level(logging.WARNING, "tfheads"):
        answers = fill_mask("the [MASK] sat", targets=["houses", "cat", "house", " "])
    assert sorted(answer["token_str"] for answer in answers) == ["cat", "house"]
    assert "'houses' is not in the vocabulary, 'house' is scored" in caplog.text and "' '" in caplog.text


def test_padding_sides():
    assert padded([[1], [2, 3]], "left").numpy().tolist() == [[0, 1], [2, 3]]
    assert padded([[1], [2, 3]], "right").numpy().tolist() == [[1, 0], [2, 3]]


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ("the cat", {}, ValueError, "there is none in 'the cat'"),
        ("", {}, ValueError, r"inputs must contain \[MASK\]"),
        (["[MASK]", "no"], {}, ValueError, "there is none in 'no'"),
        ("[MASK] " + "cat " * 99, {}, ValueError, "has 102 tokens, the model has positions for 48"),
        (["[MASK]", 3], {}, TypeError, "got int at place 1"),
        (7, {}, TypeError, "must be a string or strings, got int"),
        ({"text": "[MASK]"}, {}, TypeError, "got dict"),
        ([["[MASK]", "cat"]], {}, TypeError, "got list at place 0"),
        ("[MASK]", {"top_k": 0}, ValueError, "top_k must be a whole number from 1 to 105"),
        ("[MASK]", {"top_k": 106}, ValueError, "top_k must be .* got 106"),
        ("[MASK]", {"topk": 3}, ValueError, "no option 'topk', the nearest is 'top_k'"),
        ("[MASK]", {"targets": []}, ValueError, "at least one token"),
        ("[MASK]", {"targets": ""}, ValueError, "at least one token"),
        ("[MASK]", {"batch_size": 0}, ValueError, "batch_size must be"),
    ],
)
def test_fill_mask_errors(fill_mask, inputs, options, error, message):
    with pytest.raises(error, match=message):
        fill_mask(inputs, **options)


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        ([{"role": "user", "content": "x"}], {}, TypeError, "apply_chat_template"),
        ("the", {"max_new_token": 3}, ValueError, "the nearest is 'max_new_tokens'"),
        ("the", {"max_new_tokens": 0}, ValueError, "max_new_tokens must be"),
        ("the", {"max_new_tokens": 100}, ValueError, "max_new_tokens must be at most"),
        ("x" * 60, GREEDY, ValueError, "at most"),
        ("x" * 60, {"handle_long_generation": "hole", "max_new_tokens": 48}, ValueError, "from 1 to 47"),
        ("the", {"handle_long_generation": "cut"}, ValueError, "must be None or 'hole', got 'cut'"),
        (
            "the",
            {"return_tensors": True, "return_full_text": True},
            ValueError,
            "must not be given with return_tensors",
        ),
        ("the", {"num_beams": 0}, ValueError, "num_beams must be a whole number of at least 1"),
        ("", {"generation_config": None, **GREEDY, "temperature": -1.0}, ValueError, "temperature"),
    ],
)
def test_text_generation_errors(text_generation, inputs, options, error, message):
    with pytest.raises(error, match=message):
        text_generation(inputs, **options)


def test_pipelines_that_cannot_be_made(tmp_path, bert, gpt2):
    words, bpe = tiny_tokenizers.wordpiece(), tiny_tokenizers.byte_level_bpe()
    with pytest.raises(ValueError, match="task 'fillmask' is not known, the nearest is 'fill-mask'"):
        tfheads.pipeline("fillmask", model=bert, tokenizer=words)
    with pytest.raises(ValueError, match="model is needed"):
        tfheads.pipeline("fill-mask")
    with pytest.raises(ValueError, match="tokenizer is needed"):
        tfheads.pipeline("fill-mask", model=bert)
    with pytest.raises(ValueError, match="must be for 'masked-lm' in 'fill-mask', got GPT2LMHeadModel"):
        tfheads.pipeline("fill-mask", model=gpt2, tokenizer=bpe)
    with pytest.raises(ValueError, match="mask token for 'fill-mask', GPT2Tokenizer has none"):
        tfheads.pipeline("fill-mask", model=bert, tokenizer=bpe)
    with pytest.raises(ValueError, match="no option 'maxnewtokens'"):
        tfheads.pipeline("text-generation", model=gpt2, tokenizer=bpe, maxnewtokens=3)
    with pytest.raises(FileNotFoundError, match=r"no config\.json|checkpoint"):
        tfheads.pipeline("fill-mask", model=str(tmp_path))
    bert.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no tokenizer"):
        tfheads.pipeline("fill-mask", model=str(tmp_path))
    both = rebuilt("BertForPreTraining", pipeline_cases.BERT)
    with pytest.raises(ValueError, match="there is no pipeline for BertForPreTraining"):
        tfheads.pipeline(model=both, tokenizer=words)
    with pytest.raises(TypeError, match="model must be a directory, an id or a model of tfheads, got int"):
        tfheads.pipeline("fill-mask", model=3)
    bert.save_pretrained(tmp_path, tokenizer=words)
    with pytest.raises(ValueError, match="trained head for 'text-classification', .* lacks .*classifier.bias"):
        tfheads.pipeline("text-classification", model=str(tmp_path))


def test_a_tokenizer_larger_than_the_model_is_no_wrong_answer(gpt2):
    pipe = TextGenerationPipeline(gpt2, tiny_tokenizers.byte_level_bpe())
    pipe.tokenizer.add_tokens(["brandnew"])
    with pytest.raises(ValueError, match="input_ids must be between 0 and 282"):
        pipe("brandnew", **GREEDY)
