"""Every way of generation against what PyTorch gave: token ids, scores, which rows beams came from."""

import json
from collections.abc import Collection

import numpy as np
import pytest

from tests.fixtures import generation_cases, pipeline_cases, tiny_tokenizers
from tests.fixtures.reference import FOLDER, load
from tests.quick_cases import slow_but_these
from tests.rebuilt_models import rebuilt

STORED = json.loads((FOLDER / "generation.json").read_text())
PROMPTS = generation_cases.PROMPTS
WIDTH = max(map(len, PROMPTS))
UNDER_XLA = ("all at once", "beams, all returned", "contrastive, processors")
SLOW = {
    *("greedy", "greedy with scores", "repetition penalty", "no repeated pairs", "no repeated tokens"),
    *("least number", "forced end", "suppressed"),
    *("beams", "beams, early stopping", "beams, short", "beams, no penalty of length", "beams, source"),
    *("groups", "groups, early stopping", "groups, short", "contrastive", "contrastive, ends", "forced begin"),
    *("paired, source", "paired, a beginning", "groups, paired", "contrastive, paired"),
}
"""Options that other cases have among theirs, and searches that are quick for one of the two kinds of models."""


def quick_and_slow(names: Collection[str]) -> list:
    return slow_but_these(set(names) - SLOW, names)


@pytest.fixture(scope="module")
def gpt2():
    return rebuilt("GPT2LMHeadModel", generation_cases.GPT2)


def batch() -> dict:
    ids = [[58] * (WIDTH - len(row)) + list(row) for row in PROMPTS]
    mask = [[0] * (WIDTH - len(row)) + [1] * len(row) for row in PROMPTS]
    return {"input_ids": ids, "attention_mask": mask}


def same(values, stored) -> None:
    """Fails unless numbers are within 1e-5; None stands for minus infinity and what takes its place."""
    stored = np.array(stored, float)
    excluded = np.isnan(stored)
    assert values.shape == stored.shape and (values[excluded] < -1e8).all()
    np.testing.assert_allclose(values[~excluded], stored[~excluded], rtol=0, atol=1e-5)


def check(made, stored, name, width=WIDTH, ends=(58, 59)) -> None:
    """Compares what came back of a batch behind its first `width` tokens."""
    new = np.asarray(getattr(made, "sequences", made))
    assert new[:, width:].tolist() == stored["new"]
    for kept in {"scores", "logits"} & stored.keys():
        assert len(made[kept]) == len(stored[kept])
        for step, expected in enumerate(stored[kept]):  # of rows that go on; what stands behind an end is nobody's
            going_on = np.ones(len(expected), bool)
            if "sequences_scores" not in stored:
                going_on = ~np.isin(new[:, width : width + step], ends).any(1)
            same(made[kept][step][going_on, ::5], np.array(expected, float)[going_on])
    assert {"scores", "logits"} & stored.keys() == {"scores", "logits"} & set(getattr(made, "keys", tuple)())
    if "sequences_scores" in stored:
        same(made["sequences_scores"], stored["sequences_scores"])
    if "beam_indices" in stored and "groups" not in name:  # there 4.49 mixes rows and groups
        assert made["beam_indices"].tolist() == stored["beam_indices"]


@pytest.mark.parametrize("name", quick_and_slow(generation_cases.CASES))
def test_a_padded_batch_gives_what_pytorch_gives(gpt2, name):
    made = gpt2.generate(batch(), jit_compile=name in UNDER_XLA, **generation_cases.CASES[name])
    check(made, STORED[name]["batch"], name)
    new = np.asarray(getattr(made, "sequences", made))[:, WIDTH:].tolist()
    for row, alone in enumerate(STORED[name]["alone"]):  # PyTorch's rows without padding
        for tokens, expected in zip(new[row * len(alone) :], alone, strict=False):
            assert tokens[: len(expected)] == expected and set(tokens[len(expected) :]) <= {58}


@pytest.mark.parametrize("name", quick_and_slow(generation_cases.ALONE_ONLY))
def test_options_that_read_the_prompt(gpt2, name):
    for prompt, expected in zip(PROMPTS, STORED[name]["alone"], strict=True):
        made = gpt2.generate([prompt], jit_compile=False, **generation_cases.ALONE_ONLY[name])
        assert made[:, len(prompt) :].tolist() == expected


@pytest.mark.parametrize("name", quick_and_slow(generation_cases.FORCED_BEGIN))
def test_a_forced_first_token(gpt2, name):
    made = gpt2.generate([[7]], jit_compile=False, **generation_cases.FORCED_BEGIN[name])
    assert made[:, 1:].tolist() == STORED[name]["alone"][0]


def test_a_padded_row_generates_what_it_generates_alone(gpt2):
    options = {
        **generation_cases.CASES["beams, all returned"],
        "return_dict_in_generate": False,
        "output_scores": False,
    }
    together = gpt2.generate(batch(), jit_compile=False, **options)[:, WIDTH:].tolist()
    count = len(together) // len(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone = gpt2.generate([prompt], jit_compile=False, **options)[:, len(prompt) :].tolist()
        assert len(alone) == count
        for tokens, expected in zip(together[row * count :], alone, strict=False):
            assert tokens[: len(expected)] == expected and set(tokens[len(expected) :]) <= {58}


@pytest.mark.parametrize("name", generation_cases.STOP_STRINGS)
def test_stop_strings_end_rows_where_they_end_in_pytorch(name):
    model = rebuilt("GPT2LMHeadModel", pipeline_cases.GPT2)
    stored = STORED[f"stop strings: {name}"]
    tokenizer, options = tiny_tokenizers.byte_level_bpe(), generation_cases.STOP_STRINGS[name]
    for prompt, expected in zip(stored["prompts"], stored["alone"], strict=True):
        made = model.generate([prompt], tokenizer=tokenizer, jit_compile=False, **options)
        assert made[:, len(prompt) :].tolist() == expected


@pytest.fixture(scope="module")
def paired():
    config = load("encoder-decoder/bert_gpt2")["config"]
    model = rebuilt("EncoderDecoderModel", {name: value for name, value in config.items() if name != "model_type"})
    model.generation_config.update(
        decoder_start_token_id=2, eos_token_id=1, pad_token_id=generation_cases.PAIRED_PADDING
    )
    return model


@pytest.mark.parametrize("name", quick_and_slow(generation_cases.PAIRED))
def test_what_encoder_decoders_write(paired, name):
    ids = [[*row, *[0] * (WIDTH - len(row))] for row in PROMPTS]
    mask = [[1] * len(row) + [0] * (WIDTH - len(row)) for row in PROMPTS]
    options = generation_cases.PAIRED[name]
    made = paired.generate(ids, mask, jit_compile=name == "paired, beams", **options)
    check(made, STORED[name]["batch"], name, width=0, ends=[1])
    if name == "paired, greedy":
        alone = paired.generate([PROMPTS[0]], jit_compile=False, **options)
        alone = np.asarray(getattr(alone, "sequences", alone))[0].tolist()
        assert STORED[name]["batch"]["new"][0][: len(alone)] == alone


def test_the_reference_is_about_all_cases():
    tables = "CASES", "ALONE_ONLY", "FORCED_BEGIN", "PAIRED"
    names = {name for table in tables for name in getattr(generation_cases, table)}
    assert STORED.keys() == names | {f"stop strings: {name}" for name in generation_cases.STOP_STRINGS}
