"""LoRA: PEFT's adapters in and out with PEFT's logits, training, merging, saving, refusals."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import transformers

import tfheads
from tests.fixtures import adapter_cases, reference
from tests.fixtures.weights import weight
from tests.rebuilt_models import rebuilt
from tfheads import registry
from tfheads.checkpoints.safetensors_files import SafetensorsFiles, TensorSource, write_safetensors

STORED = json.loads(Path(__file__).parent.joinpath("fixtures", "adapters.json").read_text())
TOLERANCE = 1e-5
TOKENS = {name: np.array(values) for name, values in adapter_cases.TOKENS.items()}


def written(case: str, directory: Path, **changes) -> Path:
    """The adapter of a case as PEFT writes it."""
    directory.mkdir(exist_ok=True)
    config = {**STORED[case]["adapter_config"], **changes}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    values = {name: weight(name, shape) for name, shape in STORED[case]["shapes"].items()}
    sources = [TensorSource.of(name, value) for name, value in values.items()]
    write_safetensors(directory / "adapter_model.safetensors", sources)
    return directory


def model_of(case: str) -> keras.Model:
    """The model of a case, without adapters."""
    return rebuilt(adapter_cases.CASES[case]["class"], adapter_cases.CASES[case]["config"])


def logits(model) -> np.ndarray:
    return model(TOKENS)["logits"].numpy()


def greedy(model) -> np.ndarray:
    return np.asarray(model.generate(TOKENS["input_ids"][:1], max_new_tokens=4, do_sample=False))


@pytest.mark.parametrize("case", STORED)
def test_pefts_adapters_come_in_and_go_out(case, tmp_path):
    directory = written(case, tmp_path / "peft")
    model = model_of(case)
    before = logits(model)
    model.load_adapter(directory)
    expected = np.array(STORED[case]["logits"], "float32")
    real = TOKENS["attention_mask"].astype(bool) if expected.ndim == 3 else slice(None)
    np.testing.assert_allclose(logits(model)[real], expected[real], atol=TOLERANCE, rtol=0)
    assert np.abs(before[real] - expected[real]).max() > 0.05, "the adapter must change something"
    assert model.trainable_variables == []
    model.save_adapter(tmp_path / "ours")
    theirs = SafetensorsFiles(directory / "adapter_model.safetensors")
    ours = SafetensorsFiles(tmp_path / "ours" / "adapter_model.safetensors")
    assert set(ours.names()) == set(theirs.names())
    for name in theirs.names():
        assert np.array_equal(ours.read(name), theirs.read(name)), name
    saved = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    for name in ("peft_type", "r", "lora_alpha", "use_rslora", "bias", "task_type", "fan_in_fan_out"):
        assert saved[name] == STORED[case]["adapter_config"][name], name


@pytest.mark.parametrize("case", ["gpt2-fused", "gpt-neox-by-head", "gptj-pairs"])
def test_merging_and_saving_keep_the_outputs(case, tmp_path):
    model = model_of(case)
    plain = logits(model)
    model.load_adapter(written(case, tmp_path / "peft"))
    adapted = logits(model)
    model.save_pretrained(tmp_path / "whole")
    again = type(model).from_pretrained(tmp_path / "whole")
    np.testing.assert_allclose(logits(again), adapted, atol=TOLERANCE)
    model.merge_adapter()
    np.testing.assert_allclose(logits(model), adapted, atol=TOLERANCE)
    model.save_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(logits(type(model).from_pretrained(tmp_path / "merged")), adapted, atol=TOLERANCE)
    model.unmerge_adapter()
    np.testing.assert_allclose(logits(model), adapted, atol=TOLERANCE)
    model.remove_adapter()
    np.testing.assert_allclose(logits(model), plain, atol=TOLERANCE)
    assert model.lora is None and len(model.trainable_variables) == len(model_of(case).trainable_variables)


def test_training_changes_the_adapters_alone(tmp_path):
    model = model_of("llama-grouped")
    labels = np.where(TOKENS["attention_mask"] == 1, TOKENS["input_ids"], -100)
    before, plain = [np.array(weight) for weight in model.get_weights()], logits(model)
    model.enable_lora(rank=4, targets=["q_proj", "down_proj"], alpha=8, dropout=0.1, seed=0)
    np.testing.assert_array_equal(logits(model), plain)  # the new matrices change nothing yet
    assert {variable.shape[-1] for variable in model.trainable_variables} == {4, 16}
    model.compile(tfheads.AdamW(3e-2), jit_compile=False)
    batch = {**TOKENS, "labels": labels}
    losses = [float(np.ravel(model.train_on_batch(batch))[0]) for _ in range(25)]
    assert losses[-1] < 0.6 * losses[0]
    assert any(np.abs(adapter.change()).max() > 0 for _, adapters in model.adapters for adapter in adapters)
    trained = logits(model)
    generated = greedy(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(logits(loaded), trained, atol=TOLERANCE)
    np.testing.assert_array_equal(
        loaded.generate(TOKENS["input_ids"][:1], max_new_tokens=4, do_sample=False), generated
    )
    model.save_adapter(tmp_path / "adapter")
    fresh = model_of("llama-grouped")
    greedy(fresh)  # traced without the adapter
    fresh.load_adapter(tmp_path / "adapter", trainable=True)
    np.testing.assert_allclose(logits(fresh), trained, atol=TOLERANCE)
    np.testing.assert_array_equal(greedy(fresh), generated)
    assert len(fresh.trainable_variables) == len(model.trainable_variables)
    model.remove_adapter()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_classifier_trains_as_a_whole_beside_a_frozen_backbone(tmp_path):
    model = model_of("bert-classifier")
    head = [np.array(weight) for weight in model.head.get_weights()]
    model.enable_lora(rank=2, targets=r".*\.(query|value)")
    model.compile(tfheads.AdamW(1e-2), jit_compile=False)
    batch = {**TOKENS, "labels": np.array([0, 2])}
    losses = [float(np.ravel(model.train_on_batch(batch))[0]) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert all(np.abs(old - new).max() > 0 for old, new in zip(head, model.head.get_weights(), strict=True))
    model.save_adapter(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["modules_to_save"] == ["bert.pooler.dense", "classifier"]
    fresh = model_of("bert-classifier")
    fresh.load_adapter(tmp_path)
    np.testing.assert_allclose(logits(fresh), logits(model), atol=TOLERANCE)
    model.merge_adapter()
    with pytest.raises(ValueError, match="call unmerge_adapter first"):
        model.train_on_batch(batch)


@pytest.mark.parametrize("model_type", registry.FAMILIES)
def test_every_family_takes_adapters(model_type):
    """Adapters stand beside the dense layers of the backbone, by names that a checkpoint has, and beside no others."""
    record = reference.load(next(name for name in reference.names() if name.startswith(f"{model_type}/")))
    config = transformers.AutoConfig.for_model(**record["config"])
    model = getattr(tfheads, record["class"]).from_config(config)
    count = len(model.weights)
    model.enable_lora(rank=1)
    names = [module.name for module, _ in model.adapters]
    assert names and len(set(names)) == len(names)
    assert {f"{name}.weight" for name in names} <= set(record["parameters"])
    head = {id(weight) for weight in (model.head.weights if model.head is not None else ())}
    assert not head & {id(layer.kernel) for module, _ in model.adapters for layer in module.layers}
    model.remove_adapter()
    assert len(model.weights) == count


def test_what_cannot_be_adapted_is_said(tmp_path):
    model = model_of("llama-grouped")
    with pytest.raises(ValueError, match="targets must name dense modules such as self_attn.q_proj.*got 'query'"):
        model.enable_lora(targets=["q_proj", "query"])
    with pytest.raises(ValueError, match="rank must be a whole number from 1, got 0"):
        model.enable_lora(rank=0)
    with pytest.raises(ValueError, match="call enable_lora or load_adapter first"):
        model.save_adapter(tmp_path)
    with pytest.raises(ValueError, match="unexpected transformer.h.0.attn.c_attn.lora_A.weight"):
        model.load_adapter(written("gpt2-fused", tmp_path / "other"))
    with pytest.raises(ValueError, match="use_dora=True, which tfheads does not support"):
        model.load_adapter(written("llama-grouped", tmp_path / "dora", use_dora=True))
    with pytest.raises(ValueError, match="missing or of another shape .*q_proj.lora_A"):
        model.load_adapter(written("llama-grouped", tmp_path / "rank", r=3))
    with pytest.raises(FileNotFoundError, match="no adapter in PEFT's format"):
        model.load_adapter(tmp_path)
    assert model.lora is None and model.trainable_variables
    model.enable_lora()
    with pytest.raises(ValueError, match="call remove_adapter first"):
        model.enable_lora()
    compiled = model_of("llama-grouped")
    compiled.compile()
    with pytest.raises(ValueError, match="before compile"):
        compiled.enable_lora()


def test_the_base_may_be_in_half_precision():
    model = tfheads.LlamaForCausalLM(model_of("llama-grouped").config, dtype="bfloat16", seed=0)
    model.enable_lora(rank=2)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    model.compile(tfheads.AdamW(1e-2))
    labels = np.where(TOKENS["attention_mask"] == 1, TOKENS["input_ids"], -100)
    losses = [float(np.ravel(model.train_on_batch({**TOKENS, "labels": labels}))[0]) for _ in range(8)]
    assert losses[-1] < losses[0]
