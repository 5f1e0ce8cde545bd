"""Signatures of models that write: answers of a fresh process equal those of `generate` and of the pipeline."""

import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt
from tests.serving_calls import call, decoded, exported, in_graph, texts
from tfheads.serving.conditional_generation import ConditionalGenerationBundle
from tfheads.serving.seq2seq_lm import Seq2SeqLMBundle

BART = {
    "vocab_size": 287,
    "d_model": 36,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 96,
    "init_std": 0.5,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0),
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 1,
    "num_heads": 4,
    "initializer_factor": 3.0,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BEAMS = {"num_beams": 3, "max_new_tokens": 9, "length_penalty": 0.5}
PREFIX = "the dog: "
TEXTS = ["the cat sat on the mat", "", "Café 中 😀", "the dog ran " * 300, "nul\0 \x7f", "x" * 5000, "a red house"]
SHORTER = [
    text[:400] for text in TEXTS
]  # for models that read texts of any length, in memory that grows with its square


@pytest.fixture(scope="module")
def bart():
    return tfheads.AutoModelForSeq2SeqLM.from_config(transformers.BartConfig(**BART), seed=3)


@pytest.fixture(scope="module")
def t5():
    config = transformers.T5Config(vocab_size=len(tiny_tokenizers.unigram()), **T5)
    return tfheads.AutoModelForSeq2SeqLM.from_config(config, seed=5)


@pytest.fixture(scope="module")
def llama():
    config = transformers.LlamaConfig(vocab_size=len(tiny_tokenizers.llama()), **LLAMA)
    return tfheads.AutoModelForCausalLM.from_config(config, seed=1)


@pytest.fixture(scope="module")
def answers(bart, t5, llama, tmp_path_factory):
    """All answers of one fresh process, by the model's name and the call's."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("greedy", "beams", "causal")}
    paths = {
        "greedy": exported(bart, tiny_tokenizers.roberta(), folders["greedy"], max_new_tokens=12),
        "beams": exported(t5, tiny_tokenizers.unigram(), folders["beams"], prefix=PREFIX, **BEAMS),
        "causal": exported(llama, tiny_tokenizers.llama(), folders["causal"], max_new_tokens=9),
    }

    def sampled(**changes):
        options = {"max_new_tokens": [5], "temperature": [0.0], "top_k": [0], "top_p": [1.0], "seed": [1], **changes}
        kinds = {"temperature": "float32", "top_p": "float32"}
        given = {
            name: [kinds.get(name, "int32"), (value * len(TEXTS))[: len(TEXTS)]] for name, value in options.items()
        }
        return ["generate", {"text": texts(TEXTS), **given}]

    calls = {
        ("greedy", "default"): ["serving_default", {"text": texts(TEXTS)}],
        ("greedy", "alone"): ["serving_default", {"text": texts(TEXTS[:1])}],
        ("greedy", "no rows"): ["serving_default", {"text": ["string", []]}],
        ("greedy", "bad"): ["serving_default", {"text": texts([b"\xff the cat \xc3", TEXTS[0], "the cat " * 130_000])}],
        ("greedy", "five"): sampled(temperature=[0.0, 1.5], top_k=[0, 1]),
        ("greedy", "five or longest"): sampled(max_new_tokens=[5, 95, 1000]),
        ("greedy", "seed 1"): sampled(temperature=[1.5]),
        ("greedy", "seeds"): sampled(temperature=[1.5], seed=[1, 2]),
        ("beams", "default"): ["serving_default", {"text": texts(SHORTER)}],
        ("causal", "default"): ["serving_default", {"text": texts(SHORTER)}],
    }
    given = call([[paths[model], *rest] for (model, _), rest in calls.items()], tmp_path_factory.mktemp("calls"))
    return dict(zip(calls, given, strict=True))


def written(model, tokenizer, sources: list[str], **options) -> list[str]:
    """What the model itself writes."""
    cut = {} if model.backbone.length_limit is None else {"truncation": True, "max_length": 96}
    rows = tokenizer(sources, padding=True, return_tensors="np", **cut)
    made = model.new_tokens(rows["input_ids"], attention_mask=rows["attention_mask"], jit_compile=False, **options)
    start = model.generation_config.decoder_start_token_id
    return [tokenizer.decode([start, *row], skip_special_tokens=True) for row in made]


@pytest.mark.slow
def test_texts_equal_those_that_generate_writes(bart, t5, answers):
    tokenizer = tiny_tokenizers.roberta()
    twelve, five, longest = (written(bart, tokenizer, TEXTS, max_new_tokens=count) for count in (12, 5, 95))
    assert decoded(answers["greedy", "default"]["generated_text"]) == twelve
    assert decoded(answers["greedy", "five"]["generated_text"]) == five
    some = [(five if row % 3 == 0 else longest)[row] for row in range(len(TEXTS))]
    assert decoded(answers["greedy", "five or longest"]["generated_text"]) == some
    expected = written(t5, tiny_tokenizers.unigram(), [PREFIX + text for text in SHORTER], **BEAMS)
    assert decoded(answers["beams", "default"]["generated_text"]) == expected


@pytest.mark.slow
def test_what_follows_equals_the_pipeline(llama, answers):
    pipe = tfheads.pipeline("text-generation", model=llama, tokenizer=tiny_tokenizers.llama(), jit_compile=False)
    made = pipe(SHORTER, max_new_tokens=9, do_sample=False, handle_long_generation="hole")
    assert decoded(answers["causal", "default"]["generated_text"]) == [one["generated_text"] for (one,) in made]


def test_a_text_behind_a_separator_equals_that_of_generate():
    model = rebuilt("GPT2ForConditionalGeneration", pipeline_cases.GPT2, separator_token_id=282)
    tokenizer = tiny_tokenizers.byte_level_bpe()
    bundle = ConditionalGenerationBundle(model, in_graph(tokenizer), tokenizer, {"max_new_tokens": 9})
    answer = bundle._with_defaults(tf.constant(TEXTS))["generated_text"].numpy()
    for text, found in zip(TEXTS, answer, strict=True):
        ids = tokenizer(text)["input_ids"][: 48 - 9 - 1]
        made = model.new_tokens([ids], max_new_tokens=9, jit_compile=False)[0] if ids else []
        assert found.decode() == tokenizer.decode(made, skip_special_tokens=True)


@pytest.mark.slow
def test_rows_do_not_depend_on_their_neighbours(answers):
    alone = answers["greedy", "alone"]["generated_text"]
    assert answers["greedy", "default"]["generated_text"][:1] == alone
    assert answers["greedy", "bad"]["generated_text"][1:2] == alone and len(answers["greedy", "bad"]) == 1
    assert answers["greedy", "no rows"] == {"generated_text": []}


@pytest.mark.slow
def test_sampling_follows_its_options(answers):
    first, both = (answers["greedy", name]["generated_text"] for name in ("seed 1", "seeds"))
    assert first[::2] == both[::2] and first[1::2] != both[1::2]


def test_tasks_of_the_config_give_options(bart, monkeypatch):
    parameters = {"summarization": {"prefix": "tldr: ", "max_length": 8, "min_length": 3, "num_beams": 2}}
    tokenizer = tiny_tokenizers.roberta()
    graph = in_graph(tokenizer)
    monkeypatch.setattr(bart.config, "task_specific_params", parameters, raising=False)
    bundle = Seq2SeqLMBundle(bart, graph, tokenizer, {"task": "summarization", "num_beams": 3})
    with pytest.raises(ValueError, match="task must be one of config.task_specific_params, summarization"):
        Seq2SeqLMBundle(bart, graph, tokenizer, {"task": "translation"})
    assert bundle.prefix == "tldr: " and bundle.asked.max_new_tokens == 7
    assert bundle.asked.min_new_tokens.tolist() == [2] and bundle.asked.search.copies == 3
    prompt, goes_on = bundle.prompt(tf.constant(["the cat", "a"]), tf.constant(7))
    expected = tokenizer("tldr: the cat")["input_ids"]
    np.testing.assert_array_equal(prompt.source["input_ids"][0], expected)
    assert prompt.input_ids.numpy().tolist() == [[2], [2]] and goes_on.numpy().all()
