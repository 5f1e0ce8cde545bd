"""`generate`: options, sampling, padding, stored settings, and how often it is compiled."""

import json

import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.quick_cases import slow_but_these
from tests.tiny_models import bert_config, gpt2_config, token_ids

IDS = token_ids(3, 5)


@pytest.fixture(scope="module")
def gpt2():
    # Wide initial weights: the likeliest token is not always the same.
    return tfheads.AutoModelForCausalLM.from_config(gpt2_config(n_layer=2, initializer_range=0.5), seed=0)


def by_hand(model, prompt, new, ends=(), least=0) -> list[int]:
    """The likeliest tokens one by one, each from a full pass."""
    tokens = list(prompt)
    for step in range(new):
        logits = model([tokens]).logits.numpy()[0, -1]
        if step < least:
            logits[list(ends)] = -np.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] in ends:
            break
    return tokens[len(prompt) :]


# Options.

OUT_OF_RANGE = [
    ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1, got 0"),
    ({"max_new_tokens": 2.5}, "max_new_tokens must be a whole number of at least 1, got 2.5"),
    ({"max_new_tokens": "ten"}, "max_new_tokens must be a number, got 'ten'"),
    ({"max_length": 5}, "max_length must be above the prompt's 5 tokens, got 5"),
    ({"max_new_tokens": 28}, "max_new_tokens must be at most 27 after a prompt of 5 tokens: .* 32 positions, got 28"),
    ({"max_length": 33}, "max_new_tokens must be at most 27 after a prompt of 5 tokens"),
    ({"min_new_tokens": -1}, "min_new_tokens must be at least 0, got -1"),
    ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens must be at most max_new_tokens 4, got 5"),
    ({"temperature": 0.0}, "temperature must be above 0, got 0.0; for the likeliest token do_sample=False"),
    ({"temperature": float("nan")}, "temperature must be above 0, got nan"),
    ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
    ({"top_k": -1}, "top_k must be a whole number of at least 0"),
    ({"top_k": 1.5}, "top_k must be a whole number of at least 0"),
    ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
    ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
    ({"max_new_token": 3}, "generation option 'max_new_token' is not known, did you mean 'max_new_tokens'"),
    ({"eos_token_id": 99}, r"eos_token_id must be between 0 and 39, or \[\] for no end, got 99"),
    ({"eos_token_id": -1}, r"eos_token_id must be between 0 and 39, or \[\] for no end, got -1"),
    ({"eos_token_id": [2.5]}, r"eos_token_id must be a token id or a list of them, got \[2.5\]"),
    ({"num_beams": 0}, "num_beams must be a whole number of at least 1, got 0"),
    ({"num_beams": 2.5}, "num_beams must be a whole number of at least 1, got 2.5"),
    ({"num_beams": "four"}, "num_beams must be a number, got 'four'"),
    ({"num_return_sequences": 0}, "num_return_sequences must be a whole number of at least 1, got 0"),
    ({"num_return_sequences": 2}, "num_return_sequences must be 1 without beams and sampling, got 2"),
    ({"num_return_sequences": 4, "num_beams": 3}, "num_return_sequences must be at most num_beams 3, got 4"),
    (
        {"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0},
        "num_beam_groups must divide num_beams 4, got 3",
    ),
    ({"num_beam_groups": 2}, "num_beam_groups must divide num_beams 1, got 2"),
    (
        {"num_beams": 4, "num_beam_groups": 2},
        "num_beam_groups above 1 needs a diversity_penalty above 0 and no samplin",
    ),
    (
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "do_sample": True},
        "num_beam_groups above 1 needs a diversity_penalty above 0 and no sampling, got do_sample=True",
    ),
    ({"num_beams": 2, "diversity_penalty": 1.0}, "diversity_penalty is for num_beam_groups above 1, got 1.0"),
    ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping must be True, False or 'never', got 'soon'"),
    ({"num_beams": 2, "early_stopping": 3}, "early_stopping must be True, False or 'never', got 3"),
    ({"num_beams": 2, "length_penalty": float("inf")}, "length_penalty must be a finite number, got inf"),
    ({"penalty_alpha": 0.6, "num_beams": 2}, "penalty_alpha is for contrastive search, .* got num_beams=2"),
    ({"penalty_alpha": 0.6, "do_sample": True}, "penalty_alpha is for contrastive search, .* got do_sample=True"),
    ({"penalty_alpha": 1.5}, "penalty_alpha must be between 0 and 1, got 1.5"),
    ({"do_sample": "yes"}, "do_sample must be True or False, got 'yes'"),
    ({"min_p": 2.0}, "min_p must be between 0 and 1, got 2.0"),
    ({"typical_p": 0.0}, "typical_p must be above 0 and at most 1, got 0.0"),
    ({"epsilon_cutoff": 1.0}, "epsilon_cutoff must be at least 0 and below 1, got 1.0"),
    ({"eta_cutoff": -0.1}, "eta_cutoff must be at least 0 and below 1, got -0.1"),
    ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0, got 0.0"),
    ({"encoder_repetition_penalty": -1.0}, "encoder_repetition_penalty must be above 0, got -1.0"),
    ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be a whole number of at least 0, got -1"),
    ({"bad_words_ids": []}, r"bad_words_ids must be a list, not empty, of lists of token ids, got \[\]"),
    ({"bad_words_ids": [[]]}, r"bad_words_ids must be a list, not empty, of lists of token ids, got \[\[\]\]"),
    ({"bad_words_ids": [5]}, r"bad_words_ids must be a list, not empty, of lists of token ids, got \[5\]"),
    ({"bad_words_ids": [[40]]}, "bad_words_ids must be between 0 and 39, got 40"),
    ({"sequence_bias": [[5, 2.0]]}, "sequence_bias must be pairs of token ids and a number"),
    ({"sequence_bias": {(5, 41): 2.0}}, "sequence_bias must be between 0 and 39, got 41"),
    ({"forced_bos_token_id": 40}, "forced_bos_token_id must be between 0 and 39, got 40"),
    ({"forced_bos_token_id": [3, 4]}, r"forced_bos_token_id must be one token id, got \[3, 4\]"),
    ({"forced_eos_token_id": 40}, "forced_eos_token_id must be between 0 and 39, got 40"),
    (
        {"forced_eos_token_id": 4, "suppress_tokens": [4]},
        "forced_eos_token_id must not be among suppress_tokens, got 4",
    ),
    ({"suppress_tokens": [-1]}, "suppress_tokens must be between 0 and 39, got -1"),
    ({"begin_suppress_tokens": "the"}, "begin_suppress_tokens must be a token id or a list of them, got 'the'"),
    ({"exponential_decay_length_penalty": 2}, r"exponential_decay_length_penalty must be \(first step, factor\) of at"),
    ({"guidance_scale": 2.0}, "generation option guidance_scale=2.0 is not supported; supported are "),
    ({"prompt_lookup_num_tokens": 2}, "generation option prompt_lookup_num_tokens=2 is not supported; supported are "),
    ({"logits_processor": []}, "generation option 'logits_processor' is not known"),
    ({"token_type_ids": np.ones((3, 5), int)}, "token_type_ids must be 0 where text is generated, got others"),
]


@pytest.mark.parametrize(
    ("options", "sentence"), OUT_OF_RANGE, ids=[str(next(iter(o.items()))) for o, _ in OUT_OF_RANGE]
)
def test_options_out_of_range_are_one_sentence(gpt2, options, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        gpt2.generate(IDS, **options)
    assert "\n" not in str(caught.value)


BAD_PROMPTS = [
    ({"inputs": IDS + 40}, "input_ids must be between 0 and 39, got 7"),
    ({"inputs": IDS - 50}, "input_ids must be between 0 and 39, got -"),
    ({"inputs": IDS.astype("int64") + 2**32}, "input_ids must be between 0 and 39, got 2147483647"),
    ({"inputs": IDS[0]}, r"input_ids must be whole numbers \[batch, time\] in rows of one length"),
    ({"inputs": [[1, 2], [3]]}, r"input_ids must be whole numbers \[batch, time\] in rows of one length"),
    ({"inputs": IDS + 0.5}, r"input_ids must be whole numbers \[batch, time\] in rows of one length"),
    ({"inputs": ["text"]}, r"input_ids must be whole numbers \[batch, time\] in rows of one length"),
    ({"inputs": IDS, "attention_mask": np.ones((3, 4))}, r"attention_mask must have the shape of input_ids \(3, 5\)"),
    ({"inputs": IDS, "attention_mask": np.full((3, 5), 2)}, "attention_mask must be 1 for real tokens and 0 for pad"),
    ({"inputs": IDS, "attention_mask": np.zeros((3, 5))}, "input_ids must have a real token in every row"),
    ({"inputs": {"input_ids": IDS, "atention_mask": IDS}}, "'atention_mask' is not known"),
    ({"inputs": IDS, "generation_config": transformers.GenerationConfig(guidance_scale=2.0)}, "=2.0 is not supported"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD_PROMPTS, ids=range(len(BAD_PROMPTS)))
def test_bad_prompts_are_one_sentence(gpt2, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        gpt2.generate(**arguments)
    assert "\n" not in str(caught.value)


def test_models_that_cannot_generate_say_so():
    with pytest.warns(UserWarning, match="sees the tokens it is to predict: set is_decoder=True"):
        model = tfheads.AutoModelForCausalLM.from_config(bert_config())
    with pytest.raises(ValueError, match="BertLMHeadModel cannot generate: set is_decoder=True in its config"):
        model.generate(IDS)
    assert not hasattr(tfheads.BertForMaskedLM, "generate")


# Tokens; without XLA unless a test is about it.


def test_the_end_and_what_follows_it(gpt2):
    free = [by_hand(gpt2, row, 8) for row in IDS]
    ends = {free[0][2], free[1][4]}
    expected = [by_hand(gpt2, row, 8, ends) for row in IDS]
    assert len({len(row) for row in expected}) > 1
    width = max(map(len, expected))
    made = gpt2.generate(IDS, max_new_tokens=8, eos_token_id=sorted(ends), pad_token_id=-7, jit_compile=False)
    assert made.dtype == np.int32 and made.shape == (3, 5 + width)
    for row, tokens in zip(made, expected, strict=True):
        assert row[5:].tolist() == tokens + [-7] * (width - len(tokens))
    one = free[0][2]
    filled = gpt2.generate(IDS[:1], max_new_tokens=8, eos_token_id=one, jit_compile=False)[0, 5:]
    assert filled.tolist() == by_hand(gpt2, IDS[0], 8, {one})
    # Padding is by default the first end.
    both = gpt2.generate(IDS, max_new_tokens=8, eos_token_id=sorted(ends), jit_compile=False)
    assert set(both[made == -7]) == {min(ends)}


def test_no_end_before_the_least_number_of_tokens(gpt2):
    end = by_hand(gpt2, IDS[0], 1)[0]
    options = {"max_new_tokens": 8, "eos_token_id": end, "jit_compile": False}
    assert gpt2.generate(IDS[:1], **options).shape == (1, 6)
    expected = by_hand(gpt2, IDS[0], 8, {end}, least=3)
    assert gpt2.generate(IDS[:1], min_new_tokens=3, **options)[0, 5:].tolist() == expected and len(expected) > 3
    assert gpt2.generate(IDS[:1], min_length=8, **options)[0, 5:].tolist() == expected


def test_without_a_prompt_it_begins_with_bos(gpt2):
    made = gpt2.generate(max_new_tokens=4, jit_compile=False)
    assert made.tolist() == [[1, *by_hand(gpt2, [1], 4, {2})]]
    with pytest.raises(ValueError, match="inputs must be given: the generation config has no bos_token_id"):
        gpt2.generate(generation_config=transformers.GenerationConfig())


def test_padding_may_stand_on_either_side(gpt2):
    prompts = [IDS[0], IDS[1][:2], IDS[2][:4]]
    expected = [by_hand(gpt2, prompt, 6, {2}) for prompt in prompts]
    for left in (True, False):
        rows, masks = [], []
        for prompt in prompts:
            padding, real = [0] * (5 - len(prompt)), [1] * len(prompt)
            rows.append([*padding, *prompt] if left else [*prompt, *padding])
            masks.append([*padding, *real] if left else [*real, *padding])
        encoding = transformers.BatchEncoding({"input_ids": rows, "attention_mask": masks})
        made = gpt2.generate(encoding, max_new_tokens=6, jit_compile=False)
        assert made[:, :5].tolist() == np.array(rows).tolist()
        for row, tokens in zip(made, expected, strict=True):
            assert row[5 : 5 + len(tokens)].tolist() == tokens


def test_the_last_position_can_be_used(gpt2):
    prompt = token_ids(1, 20)
    options = {"eos_token_id": [], "jit_compile": False}
    assert gpt2.generate(prompt, max_length=32, **options)[0, 20:].tolist() == by_hand(gpt2, prompt[0], 12)
    assert gpt2.generate(token_ids(1, 31), **options).shape == (1, 32)  # the default gives way to the table


# Settings that are stored.


def test_the_generation_config_of_a_checkpoint_is_honoured(tmp_path, gpt2):
    gpt2.save_pretrained(tmp_path)
    stored = {"max_new_tokens": 3, "eos_token_id": [0, 1], "pad_token_id": 5, "transformers_version": "4.40.0"}
    (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    model = tfheads.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.generate(IDS, jit_compile=False)[0, 5:].tolist() == by_hand(gpt2, IDS[0], 3, {0, 1})
    # The call's own come first, whichever of the two names they have.
    assert model.generate(IDS, max_length=7, eos_token_id=[], jit_compile=False).shape == (3, 7)
    assert model.generate(IDS, max_new_tokens=1, jit_compile=False).shape == (3, 6)


def test_beams_of_a_generation_config_are_honoured(tmp_path, gpt2):
    options = {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5, "no_repeat_ngram_size": 2}
    expected = gpt2.generate(IDS, max_new_tokens=6, jit_compile=False, **options)
    gpt2.save_pretrained(tmp_path)
    transformers.GenerationConfig(max_new_tokens=6, eos_token_id=2, **options).save_pretrained(tmp_path)
    model = tfheads.AutoModelForCausalLM.from_pretrained(tmp_path)
    np.testing.assert_array_equal(model.generate(IDS, jit_compile=False), expected)
    assert model.generate(IDS, jit_compile=False, num_return_sequences=1).shape == (3, expected.shape[1])
    # What only samples and beams read may stand there, as in transformers.
    config = transformers.GenerationConfig(max_new_tokens=6, eos_token_id=2, temperature=0.5, length_penalty=2.0)
    greedy = gpt2.generate(IDS, max_new_tokens=6, jit_compile=False)
    np.testing.assert_array_equal(gpt2.generate(IDS, generation_config=config, jit_compile=False), greedy)
    # Ends of a stored config that the vocabulary lacks end nothing.
    config = transformers.GenerationConfig(max_new_tokens=6, eos_token_id=[2, 50256])
    np.testing.assert_array_equal(gpt2.generate(IDS, generation_config=config, jit_compile=False), greedy)


def test_what_comes_back_on_request(gpt2):
    options = {"max_new_tokens": 4, "eos_token_id": [], "jit_compile": False}
    plain = gpt2.generate(IDS, **options)
    made = gpt2.generate(IDS, return_dict_in_generate=True, **options)
    assert list(made) == ["sequences"]
    np.testing.assert_array_equal(made.sequences, plain)
    np.testing.assert_array_equal(gpt2.generate(IDS, output_scores=True, **options), plain)  # as in transformers
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "suppress_tokens": [7]}
    made = gpt2.generate(IDS, **asked, **options)
    assert len(made.scores) == len(made.logits) == 4 and made.scores[0].shape == (3, 40)
    assert np.isneginf(np.stack(made.scores)[..., 7]).all() and np.isfinite(np.stack(made.logits)).all()
    full = gpt2(made.sequences[:, :-1]).logits.numpy()[:, 4:]
    np.testing.assert_allclose(np.stack(made.logits, 1), full, atol=1e-5)
    beams = gpt2.generate(IDS, num_beams=2, return_dict_in_generate=True, **options)
    assert list(beams) == ["sequences", "beam_indices"]


def test_several_rows_are_drawn_of_each_prompt(gpt2):
    options = {"do_sample": True, "max_new_tokens": 6, "eos_token_id": [], "seed": 3, "jit_compile": False}
    made = gpt2.generate(IDS, num_return_sequences=4, **options)
    np.testing.assert_array_equal(made[:, :5], np.repeat(IDS, 4, axis=0))
    assert len({tuple(row) for row in made[:4].tolist()}) > 1


# Sampling.


def test_a_seed_decides_what_is_drawn(gpt2):
    options = {"max_new_tokens": 12, "do_sample": True, "eos_token_id": [], "temperature": 3.0}
    first = gpt2.generate(IDS, seed=1, **options)
    np.testing.assert_array_equal(first, gpt2.generate(IDS, seed=1, **options))
    assert (first != gpt2.generate(IDS, seed=2, **options)).any()
    tf.keras.utils.set_random_seed(4)
    drawn = [gpt2.generate(IDS, **options), gpt2.generate(IDS, **options)]
    tf.keras.utils.set_random_seed(4)
    np.testing.assert_array_equal(drawn[0], gpt2.generate(IDS, **options))
    assert (drawn[0] != drawn[1]).any()
    greedy = gpt2.generate(IDS, max_new_tokens=12, eos_token_id=[])
    np.testing.assert_array_equal(gpt2.generate(IDS, top_k=1, seed=3, **options), greedy)
    np.testing.assert_array_equal(gpt2.generate(IDS, top_p=1e-6, seed=3, **options), greedy)
    assert (first != greedy).any()
    # XLA or not: the same greedy tokens.
    np.testing.assert_array_equal(gpt2.generate(IDS, max_new_tokens=12, eos_token_id=[], jit_compile=False), greedy)


# Compilation.


def test_prompts_of_many_lengths_share_few_traces(monkeypatch):
    model = tfheads.AutoModelForCausalLM.from_config(gpt2_config(n_positions=64), seed=0)
    traces = []
    extend = type(model.backbone).extend

    def counted(self, inputs, state, slot):
        traces.append(inputs["input_ids"].shape[1])
        return extend(self, inputs, state, slot)

    monkeypatch.setattr(type(model.backbone), "extend", counted)
    for length in range(1, 33, 3):
        for new in (1, 5, 16):
            options = {"eos_token_id": [1, 2][: 1 + new % 2], "temperature": 1 / new, "top_k": new}
            model.generate(token_ids(2, length), max_new_tokens=new, jit_compile=False, **options)
    assert sorted(traces) == [1, 1, 16, 32]  # a prefill and a step for each of the two buckets


MODES = [
    {
        "num_beams": 3,
        "no_repeat_ngram_size": [1, 2, 3],
        "length_penalty": [0.5, 1.0, -1.0],
        "max_new_tokens": [2, 9, 5],
    },
    {"num_beams": 3, "early_stopping": [True, False, "never"], "suppress_tokens": [[1], [2, 3], list(range(20))]},
    {"penalty_alpha": [0.2, 0.9, 0.5], "top_k": 4, "repetition_penalty": [1.5, 0.5, 2.0]},
    {"do_sample": True, "min_p": [0.1, 0.2, 0.3], "temperature": [1.0, 2.0, 0.5], "top_p": [1.0, 0.5, 0.9]},
    {
        "bad_words_ids": [[[1, 2]], [[3], [4, 5]], [[6, 7]]],
        "min_new_tokens": [1, 2, 3],
        "forced_eos_token_id": [2, 3, 4],
    },
]


@pytest.mark.parametrize("options", slow_but_these(MODES[1:4:2], MODES), ids=[next(iter(options)) for options in MODES])
def test_values_of_options_change_no_trace(gpt2, monkeypatch, options):
    traces = []
    extend = type(gpt2.backbone).extend

    def counted(self, inputs, state, slot):
        traces.append(inputs["input_ids"].shape[1])
        return extend(self, inputs, state, slot)

    monkeypatch.setattr(type(gpt2.backbone), "extend", counted)
    made = []
    for index, length in enumerate((4, 9, 14)):
        chosen = {name: value[index] if isinstance(value, list) else value for name, value in options.items()}
        made.append(gpt2.generate(token_ids(2, length), jit_compile=False, seed=1, **{"max_new_tokens": 9, **chosen}))
    assert sorted(traces) == [1, 16] and all(tokens.shape[1] > 5 for tokens in made)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_found_without_a_mask(side):
    """As in transformers, where there is a padding token that does not end texts too."""
    model = tfheads.AutoModelForCausalLM.from_config(gpt2_config(n_layer=1, initializer_range=0.5), seed=0)
    ids = np.array([[0, 0, 0, 7, 9], [5, 6, 8, 7, 9]] if side == "left" else [[7, 9, 0, 0, 0], [5, 6, 8, 7, 9]])
    options = {"max_new_tokens": 5, "eos_token_id": 2, "jit_compile": False}
    masked = model.generate(ids, attention_mask=(ids != 0).astype("int32"), pad_token_id=0, **options)
    unmasked = model.generate(ids, attention_mask=np.ones_like(ids), pad_token_id=0, **options)
    assert masked[0].tolist() != unmasked[0].tolist()
    np.testing.assert_array_equal(model.generate(ids, pad_token_id=0, **options), masked)
    np.testing.assert_array_equal(model.generate(ids, **options)[0], unmasked[0])
    also_ends = {**options, "eos_token_id": [2, 0], "pad_token_id": 0}
    np.testing.assert_array_equal(
        model.generate(ids, **also_ends), model.generate(ids, attention_mask=np.ones_like(ids), **also_ends)
    )


def test_padding_of_a_source_is_found_without_a_mask():
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model = tfheads.T5ForConditionalGeneration(config, seed=0)
    ids = np.array([[7, 9, 0, 0, 0], [5, 6, 8, 7, 9]])
    options = {"max_new_tokens": 4, "jit_compile": False, "return_dict_in_generate": True, "output_scores": True}
    masked = model.generate(ids, attention_mask=(ids != 0).astype("int32"), **options)
    unmasked = model.generate(ids, attention_mask=np.ones_like(ids), **options)
    found = model.generate(ids, **options)
    np.testing.assert_array_equal(found.scores[0], masked.scores[0])
    assert np.abs(np.asarray(found.scores[0][0]) - np.asarray(unmasked.scores[0][0])).max() > 1e-6
