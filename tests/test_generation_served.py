"""Searches and changes of logits in the graph of a SavedModel, without XLA and for any number of texts."""

import pytest
import tensorflow as tf

from tests.fixtures import pipeline_cases, tiny_tokenizers
from tests.rebuilt_models import rebuilt
from tfheads.preprocessing import GraphTokenizer
from tfheads.serving.causal_lm import CausalLMBundle

TEXTS = ["the cat", "a dog ran on the mat", "on"]


@pytest.fixture(scope="module")
def gpt2():
    return rebuilt("GPT2LMHeadModel", pipeline_cases.GPT2, n_layer=1)


def bundle(model, **options) -> CausalLMBundle:
    tokenizer = tiny_tokenizers.byte_level_bpe()
    return CausalLMBundle(model, GraphTokenizer(tokenizer), tokenizer, {"max_new_tokens": 6, **options})


def expected(model, texts, **options) -> list[str]:
    tokenizer = tiny_tokenizers.byte_level_bpe()
    rows = [
        model.new_tokens([tokenizer(text)["input_ids"]], tokenizer=tokenizer, jit_compile=False, **options)[0]
        for text in texts
    ]
    return [tokenizer.decode(row, skip_special_tokens=True) for row in rows]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "length_penalty": 0.5, "stop_strings": ["$$"], "no_repeat_ngram_size": 3},
        pytest.param(
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "min_new_tokens": 2},
            marks=pytest.mark.slow,
        ),
        {"penalty_alpha": 0.6, "top_k": 3, "bad_words_ids": [[3], [98, 130]], "forced_eos_token_id": 30},
    ],
    ids=["beams", "groups", "contrastive"],
)
def test_answers_are_those_of_generate(gpt2, options):
    answer = bundle(gpt2, **options).text_signature("serving_default")(text=tf.constant(TEXTS))
    made = [text.decode() for text in answer["new_text"].numpy()]
    assert made == expected(gpt2, TEXTS, max_new_tokens=6, **options)


@pytest.mark.slow
def test_one_token_at_a_time_keeps_the_changes(gpt2):
    served = bundle(gpt2, num_beams=2, repetition_penalty=1.4, suppress_tokens=[3]).text_signature("generate")
    asked = {"max_new_tokens": [5] * 3, "top_k": [0] * 3, "top_p": [1.0] * 3, "seed": [1] * 3}
    asked = {name: tf.constant(values) for name, values in asked.items()}
    answer = served(text=tf.constant(TEXTS), temperature=tf.zeros(3), **asked)
    made = [text.decode() for text in answer["new_text"].numpy()]
    assert made == expected(gpt2, TEXTS, max_new_tokens=5, repetition_penalty=1.4, suppress_tokens=[3])
    drawn = served(text=tf.constant(TEXTS), temperature=tf.constant([2.0, 0.0, 2.0]), **asked)["new_text"]
    assert ((drawn == answer["new_text"]).numpy() == [False, True, False]).all()


def test_a_text_has_one_answer(gpt2):
    gpt2.generation_config.num_return_sequences = 2
    try:
        with pytest.raises(ValueError, match="num_return_sequences must be 1 for an export: a text has one answer"):
            bundle(gpt2, num_beams=2)
    finally:
        gpt2.generation_config.num_return_sequences = None
