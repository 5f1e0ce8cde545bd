"""Rotary positions, and what single decoder families do that the matrix of families does not show."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import transformers

import tfheads
from tests.fixtures.cases import bloom, gpt_neox, gptj, llama, opt
from tests.rebuilt_models import rebuilt
from tfheads.checkpoints.safetensors_files import write_shards
from tfheads.checkpoints.saving import tensor_sources
from tfheads.layers import rotary_positions
from tfheads.layers.rotary import ROPE_TYPES, rotated

PARAMETERS = {
    "rope_theta": 1000.0,
    "factor": 2.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
    "short_factor": [1.0, 1.2],
    "long_factor": [1.0, 3.0],
}


@pytest.mark.parametrize("kind", ROPE_TYPES)
def test_scores_depend_on_distances_and_rows_not_on_their_neighbours(kind):
    rotary = rotary_positions({**PARAMETERS, "rope_type": kind}, width=4, longest=8)
    query, key = np.random.RandomState(0).standard_normal((2, 1, 1, 1, 6)).astype("float32")

    def score(first, second):
        one, other = rotated(query, rotary(np.array([[first]]))), rotated(key, rotary(np.array([[second]])))
        return float((one * other).numpy().sum())

    assert score(2, 5) == pytest.approx(score(0, 3), abs=1e-5)
    assert abs(score(0, 0) - score(0, 3)) > 1e-3
    short, long = np.arange(6), np.arange(6) + 14
    together, alone = rotary(np.stack([short, long])), rotary(short[None])
    np.testing.assert_allclose(together[0][0], alone[0][0], atol=1e-6)


def test_values_behind_the_rotated_width_stay():
    x = np.random.RandomState(0).standard_normal((2, 3, 5, 10)).astype("float32")
    turned = rotated(x, rotary_positions({}, width=4, longest=8)(np.arange(5)[None])).numpy()
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(turned[:, :, 0], x[:, :, 0])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rope_type": "mrope"}, "rope_type of rope_parameters must be one of default, .*, got 'mrope'"),
        ({"rope_type": "linear"}, "of rope_type 'linear' must have 'factor', got none"),
        ({**PARAMETERS, "rope_type": "longrope", "long_factor": [1.0]}, "long_factor must hold 2 numbers, got 1"),
    ],
)
def test_rotary_parameters_that_cannot_be(parameters, message):
    with pytest.raises(ValueError, match=message):
        rotary_positions(parameters, width=4, longest=8)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (transformers.OPTConfig(**opt.OPT), {"layerdrop": 0.1}, "layerdrop must be 0"),
        (transformers.BloomConfig(**bloom.BLOOM), {"slow_but_exact": True, "pretraining_tp": 2}, "slow_but_exact"),
        (
            transformers.LlamaConfig(**llama.LLAMA),
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.4}},
            "partial_rotary_factor",
        ),
        (transformers.GPTJConfig(**gptj.GPTJ), {"rotary_dim": 5}, "rotary_dim must be even .* head's width 10, got 5"),
        (transformers.GPTJConfig(**gptj.GPTJ), {"rotary_dim": 12}, "rotary_dim must be .* got 12"),
        (transformers.GPTJConfig(**gptj.GPTJ), {"rotary_dim": 0}, "rotary_dim must be .* got 0"),
    ],
)
def test_keys_that_families_do_not_honour_are_refused(config, changes, message):
    for key, value in changes.items():
        setattr(config, key, value)
    with pytest.raises(ValueError, match=message):
        tfheads.AutoModel.from_config(config)


def test_the_backbone_of_one_class_loads_into_another_with_another_prefix(tmp_path):
    rebuilt("LlamaForCausalLM", llama.LLAMA).save_pretrained(tmp_path / "lm")
    answers = tfheads.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "lm", seed=0)
    answers.save_pretrained(tmp_path / "answers")
    assert {source.name.split(".")[0] for source in tensor_sources(answers)} == {"transformer", "qa_outputs"}
    again = tfheads.LlamaModel.from_pretrained(tmp_path / "answers")
    ids = np.arange(3, 12)[None]
    hidden = tfheads.LlamaModel.from_pretrained(tmp_path / "lm")(ids).last_hidden_state
    np.testing.assert_array_equal(again(ids).last_hidden_state, hidden)


def test_both_names_of_an_output_table_load(tmp_path):
    model = rebuilt("GPTNeoXForCausalLM", gpt_neox.GPT_NEOX)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    sources = [replace(source, name=source.name.replace("embed_out", "lm_head")) for source in tensor_sources(model)]
    write_shards(sources, tmp_path)
    ids = np.arange(3, 12)[None]
    again = tfheads.GPTNeoXForCausalLM.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("prefix", "base"),
    [
        ("Llama", llama.LLAMA),
        ("GPTNeoX", gpt_neox.GPT_NEOX),
        ("GPTJ", gptj.GPTJ),
        ("OPT", {**opt.OPT, **opt.OF_350M}),
        ("Bloom", bloom.BLOOM),
    ],
)
def test_decoders_survive_keras_files(prefix, base, tmp_path):
    model = rebuilt(f"{prefix}ForCausalLM", base)
    model.save(tmp_path / "model.keras")
    ids = np.arange(3, 12)[None]
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(ids).logits, model(ids).logits)
