"""`from_pretrained`, `save_pretrained`, `push_to_hub`, weight tables and operations."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tokenizers
import transformers
from huggingface_hub import constants

import tfheads
from benchmarks import loading_memory
from tests.fake_hub import fake_hub
from tests.tiny_models import VOCABULARY, bert_config, gpt2_config, token_ids
from tfheads.checkpoints import loading, operations
from tfheads.checkpoints.rules import Binding, Conv1D, expanded
from tfheads.checkpoints.safetensors_files import TensorSource, write_shards
from tfheads.checkpoints.saving import tensor_sources
from tfheads.checkpoints.tables import Table
from tfheads.checkpoints.tensor_files import open_tensors

IDS = token_ids()


@pytest.fixture(scope="module")
def gpt2():
    return tfheads.GPT2LMHeadModel.from_config(gpt2_config(n_layer=2), seed=0)


@pytest.fixture(scope="module")
def bert():
    return tfheads.BertForMaskedLM.from_config(bert_config(), seed=0)


def tensors_of(model, dtype="float32") -> dict[str, np.ndarray]:
    return {source.name: source.read().astype(dtype) for source in tensor_sources(model)}


def write(directory: Path, config, tensors: dict[str, np.ndarray], max_shard_size="5GB") -> Path:
    directory.mkdir(exist_ok=True)
    write_shards([TensorSource.of(*item) for item in tensors.items()], directory, max_shard_size)
    (directory / "config.json").write_text(config.to_json_string())
    return directory


def logits(model) -> np.ndarray:
    return np.asarray(model(IDS).logits, "float32")


# Precision and shards.


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_dtypes_are_kept_or_cast(tmp_path, gpt2, stored):
    tensors = tensors_of(gpt2, keras.backend.standardize_dtype(stored) if stored != "bfloat16" else bfloat16())
    write(tmp_path / "model", gpt2.config, tensors)
    kept = tfheads.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    cast = tfheads.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    mixed = tfheads.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="mixed_bfloat16")
    assert {weight.dtype for weight in kept.trainable_variables} == {stored}
    assert {weight.dtype for weight in (*cast.trainable_variables, *mixed.trainable_variables)} == {"float32"}
    table = tensors["transformer.wte.weight"].astype("float32")
    for model in (kept, cast, mixed):
        np.testing.assert_array_equal(np.asarray(model.backbone.token_table, "float32"), table)
    kept.save_pretrained(tmp_path / "again")
    with open_tensors(tmp_path / "again") as again:
        for name in again.names():
            np.testing.assert_array_equal(again.read(name), tensors[name])
            assert again.dtype(name) == stored
    assert json.loads((tmp_path / "again/config.json").read_text())["dtype"] == stored


def bfloat16() -> np.dtype:
    return np.dtype(keras.ops.zeros((), "bfloat16").numpy().dtype)


def test_shards(tmp_path, gpt2):
    gpt2.save_pretrained(tmp_path, max_shard_size=4000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 3
    np.testing.assert_array_equal(logits(tfheads.GPT2LMHeadModel.from_pretrained(tmp_path)), logits(gpt2))


# Names.


@pytest.mark.parametrize("head", [True, False])
def test_the_base_prefix_may_be_absent(tmp_path, gpt2, head):
    tensors = {name.removeprefix("transformer."): value for name, value in tensors_of(gpt2).items()}
    if head:
        tensors["lm_head.weight"] = tensors["wte.weight"]
    write(tmp_path, gpt2.config, tensors)
    np.testing.assert_array_equal(logits(tfheads.GPT2LMHeadModel.from_pretrained(tmp_path)), logits(gpt2))
    hidden = tfheads.GPT2Model.from_pretrained(tmp_path)(IDS).last_hidden_state
    np.testing.assert_array_equal(hidden, gpt2(IDS, output_hidden_states=True).hidden_states[-1])


def test_tied_weights_may_be_there_once_twice_or_as_the_copy_alone(tmp_path, gpt2):
    tensors = tensors_of(gpt2)
    table = tensors.pop("transformer.wte.weight")
    present = [
        {"transformer.wte.weight": table},
        {"transformer.wte.weight": table, "lm_head.weight": table},
        {"lm_head.weight": table},
    ]
    for index, tied in enumerate(present):
        write(tmp_path / str(index), gpt2.config, {**tensors, **tied})
        loaded = tfheads.GPT2LMHeadModel.from_pretrained(tmp_path / str(index))
        np.testing.assert_array_equal(logits(loaded), logits(gpt2))
    write(tmp_path / "other", gpt2.config, {**tensors, "transformer.wte.weight": table, "lm_head.weight": table + 1})
    with pytest.raises(
        ValueError, match="lm_head.weight differs from transformer.wte.weight.*tie_word_embeddings=False"
    ):
        tfheads.GPT2LMHeadModel.from_pretrained(tmp_path / "other")
    untied = tfheads.GPT2LMHeadModel.from_pretrained(tmp_path / "other", tie_word_embeddings=False)
    np.testing.assert_array_equal(untied.head.decoder.kernel, table.T + 1)


def test_old_names_of_norms(tmp_path, bert):
    tensors = tensors_of(bert)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    assert set(old) != set(tensors)
    write(tmp_path / "old", bert.config, old)
    np.testing.assert_array_equal(logits(tfheads.BertForMaskedLM.from_pretrained(tmp_path / "old")), logits(bert))
    write(tmp_path / "both", bert.config, {**tensors, **old})
    with pytest.raises(ValueError, match="two names of one tensor"):
        tfheads.BertForMaskedLM.from_pretrained(tmp_path / "both")


# Heads.


def test_a_new_head_is_said_once_and_drawn_from_the_seed(tmp_path, caplog, bert):
    bare = tfheads.BertModel.from_config(bert_config(), seed=1)
    bare.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, "tfheads"):
        model = tfheads.BertForMaskedLM.from_pretrained(tmp_path, seed=5)
    (said,) = [record.getMessage() for record in caplog.records if "must be trained" in record.getMessage()]
    assert said.startswith("BertForMaskedLM: the checkpoint lacks weights") and "transform.dense.weight" in said
    again = tfheads.BertForMaskedLM.from_pretrained(tmp_path, seed=5)
    other = tfheads.BertForMaskedLM.from_pretrained(tmp_path, seed=6)
    np.testing.assert_array_equal(model.head.transform.kernel, again.head.transform.kernel)
    assert not np.array_equal(model.head.transform.kernel, other.head.transform.kernel)
    assert 0.01 < np.std(model.head.transform.kernel) < 0.03
    np.testing.assert_array_equal(model.backbone.token_table, bare.backbone.token_table)


def test_tensors_of_other_heads_are_left_out(tmp_path, bert, caplog):
    tensors = tensors_of(bert)
    tensors |= {
        "cls.seq_relationship.weight": np.zeros((2, 16), "float32"),
        "bert.embeddings.position_ids": np.arange(32),
    }
    tensors["bert.pooler.dense.weight"] = np.zeros((16, 16), "float32")
    tensors["bert.pooler.dense.bias"] = np.zeros(16, "float32")
    write(tmp_path, bert.config, tensors)
    with caplog.at_level(logging.WARNING, "tfheads"):
        np.testing.assert_array_equal(logits(tfheads.BertForMaskedLM.from_pretrained(tmp_path)), logits(bert))
        tfheads.BertModel.from_pretrained(tmp_path)
    assert not [record for record in caplog.records if record.name == "tfheads"]


def test_half_of_a_head_is_no_new_head(tmp_path, bert):
    tensors = tensors_of(bert)
    del tensors["cls.predictions.transform.dense.weight"]
    write(tmp_path, bert.config, tensors)
    with pytest.raises(
        ValueError, match="does not fit BertForMaskedLM: missing cls.predictions.transform.dense.weight"
    ):
        tfheads.BertForMaskedLM.from_pretrained(tmp_path)


# Configs.


def test_config_values_may_be_replaced(tmp_path, gpt2):
    gpt2.save_pretrained(tmp_path)
    load = tfheads.AutoModelForCausalLM.from_pretrained
    assert load(tmp_path, num_labels=3).config.num_labels == 3
    assert load(tmp_path, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1}).config.id2label[1] == "yes"
    assert load(tmp_path, resid_pdrop=0.5).backbone.stack.blocks[0].dropout == 0.5
    given = gpt2_config(n_layer=2, resid_pdrop=0.25)
    assert load(tmp_path, config=given, attn_pdrop=0.5, from_pt=True).config.attn_pdrop == 0.5
    assert given.attn_pdrop == 0.0 and not given.name_or_path
    with pytest.raises(ValueError, match="GPT2Config has no 'num_lables', did you mean 'num_labels'"):
        load(tmp_path, num_lables=3)


def test_another_architecture(tmp_path, gpt2):
    gpt2.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="config must be of model_type 'bert' for BertForMaskedLM, got 'gpt2'"):
        tfheads.BertForMaskedLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="GPT2 has no AutoModelForMaskedLM"):
        tfheads.AutoModelForMaskedLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"transformer.wpe.weight has the shape \(32, 16\), the config says \(9, 16\)"):
        tfheads.GPT2LMHeadModel.from_pretrained(tmp_path, n_positions=9)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "config.json is not valid JSON"),
        ("[]", "config.json has no model_type"),
        ('{"n_embd": 16}', "config.json has no model_type"),
        ('{"model_type": "gtp2"}', "model_type 'gtp2' is not supported, the nearest is 'gpt2'"),
    ],
)
def test_bad_configs(tmp_path, gpt2, content, sentence):
    gpt2.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        tfheads.AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "key", "sentence"),
    [
        ("gpt2", "n_embd", r"transformer.wte.weight has the shape \(40, 16\), the config says \(40, 768\)"),
        ("bert", "hidden_size", r"embeddings.LayerNorm.weight has the shape \(16,\), the config says \(768,\)"),
    ],
)
def test_a_config_without_a_size_names_the_tensor(tmp_path, name, key, sentence, request):
    model = request.getfixturevalue(name)
    config = json.loads(model.config.to_json_string(use_diff=False))
    del config[key]
    write(tmp_path, model.config, tensors_of(model))
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=sentence):
        type(model).from_pretrained(tmp_path)


def test_missing_or_damaged_files(tmp_path, gpt2):
    gpt2.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ValueError, match="model.safetensors.*truncated"):
        tfheads.AutoModel.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        tfheads.AutoModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        tfheads.AutoModel.from_pretrained(tmp_path)


# Tables and operations.


def test_names_do_not_depend_on_how_a_model_was_made(tmp_path, gpt2):
    with keras.name_scope("somewhere"):
        keras.layers.Dense(3).build((None, 3))
        inner = tfheads.GPT2LMHeadModel.from_config(gpt2_config(n_layer=2), seed=0)
    keras.Model(ids := keras.Input((None,), dtype="int32"), inner({"input_ids": ids})["logits"])
    first, second = tensors_of(gpt2), tensors_of(inner)
    assert list(first) == list(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_table_binds_each_variable_once(gpt2):
    rules = dict(gpt2.family.table(gpt2.config).backbone)
    whole = Table(backbone=rules)
    assert len(whole.bindings(gpt2, "")) == len(tensors_of(gpt2))
    without = {path: rule for path, rule in rules.items() if path != "stack.final_norm"}
    with pytest.raises(
        ValueError, match=r"never: \['backbone.stack.final_norm.beta', 'backbone.stack.final_norm.gamma'"
    ):
        Table(backbone=without).bindings(gpt2, "")
    twice = {
        **rules,
        "stack.blocks.{i}.feed_forward.up": Conv1D("a.{i}"),
        "stack.blocks.0.feed_forward.up": Conv1D("b"),
    }
    with pytest.raises(ValueError, match=r"twice: \['backbone.stack.blocks.0.feed_forward.up.bias', "):
        Table(backbone=twice).bindings(gpt2, "")
    with pytest.raises(TypeError, match="cannot bind Attention by name, give a rule object for x"):
        Table(backbone={**rules, "stack.blocks.0.attention": "x"}).bindings(gpt2, "")


def test_lists_of_a_table_are_paired():
    pairs = [(path, rule.name) for path, rule in expanded({"a.{x,y}.{i}": "{u,v}.{i}.w", "{b,c}": "same"})]
    assert pairs == [("a.x.{i}", "u.{i}.w"), ("a.y.{i}", "v.{i}.w"), ("b", "same"), ("c", "same")]
    with pytest.raises(ValueError, match="list different numbers of names"):
        list(expanded({"a.{x,y}": "{u,v,w}"}))


class OneTensor:
    """A checkpoint of one tensor, of which all rows are read, never all at once where that can be avoided."""

    def __init__(self, tensor: np.ndarray):
        self.tensor = tensor

    def shape(self, name):
        return self.tensor.shape

    def read_rows(self, name, start, stop):
        return self.tensor[start:stop]


@pytest.mark.parametrize(
    ("operation", "shapes"),
    [
        (operations.Same(), [(3, 4)]),
        (operations.Transposed(), [(3, 4)]),
        (operations.Fused((2, 5, 1)), [(3, 8)]),
        (operations.Fused((2, 5, 1)), [(8,)]),
        (operations.Row(), [(1, 5)]),
        (operations.TransposedPairs(width=6, rotated=4), [(12, 3)]),
        (operations.TransposedPairs(width=6, rotated=4), [(12,)]),
        (operations.FusedByHead(width=2, parts=3), [(18, 4)]),
        (operations.FusedByHead(width=2, parts=3), [(18,)]),
    ],
)
def test_operations_invert_exactly_and_load_piece_by_piece(operation, shapes, monkeypatch):
    generator = np.random.RandomState(0)
    tensors = [generator.standard_normal(shape).astype("float32") for shape in shapes]
    values = operation.to_variables(tensors)
    variables = tuple(keras.Variable(np.zeros_like(value)) for value in values)
    monkeypatch.setattr(loading, "PIECE", 1)
    loading._fill(Binding(("tensor",), variables, operation), OneTensor(*tensors))
    for variable, value in zip(variables, values, strict=True):
        np.testing.assert_array_equal(variable, value)
    for before, after in zip(tensors, operation.to_tensors(values), strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(values, operation.to_variables(operation.to_tensors(values)), strict=True):
        np.testing.assert_array_equal(before, after)


# What is saved.


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = {f"w{index}": index for index in range(VOCABULARY)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0")


def test_files_of_a_save(tmp_path):
    model = tfheads.GPT2LMHeadModel.from_config(gpt2_config(), seed=0)
    model.generation_config.temperature = 0.7  # has no effect without do_sample, and must not make a save fail
    model.generation_config.max_new_tokens = 5
    tmp_path.joinpath("README.md").write_text("# Mine\n")
    tmp_path.joinpath("notes.txt").write_text("mine")
    model.save_pretrained(tmp_path, tokenizer=tokenizer())
    names = {path.name for path in tmp_path.iterdir()}
    expected = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names - expected == {"README.md", "notes.txt"} and expected <= names
    assert (tmp_path / "README.md").read_text() == "# Mine\n"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"] and config["model_type"] == "gpt2"
    assert model.config.architectures is None
    loaded = tfheads.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is tfheads.GPT2LMHeadModel
    assert loaded.generation_config.temperature == 0.7 and loaded.generation_config.max_new_tokens == 5
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("w5 w6")["input_ids"] == [5, 6]


def test_models_that_do_not_generate_have_no_generation_config(tmp_path, bert):
    bert.save_pretrained(tmp_path)
    assert not (tmp_path / "generation_config.json").exists() and (tmp_path / "README.md").is_file()


# Memory.


def test_loading_holds_the_weights_once():
    """Tied and untied, cast or not, in one file or several; in the memory of a process that loads nothing else."""
    peaks = {case: peak / weights for case, (weights, peak) in loading_memory.measured(tiny=True).items()}
    assert all(0.9 < peak < 1.3 for peak in peaks.values()), peaks


# The Hub.


def test_push_and_load_by_id(gpt2, caplog):
    with fake_hub() as hub:
        address = gpt2.push_to_hub("tester/tiny", tokenizer=tokenizer(), commit_message="First", max_shard_size=4000)
        assert address.startswith(hub.endpoint)
        files = hub.files("tester/tiny")
        assert {"config.json", "generation_config.json", "tokenizer.json", "README.md"} <= set(files)
        assert hub.repositories["tester/tiny"].history()[0].title == "First"
        loaded = tfheads.AutoModelForCausalLM.from_pretrained("tester/tiny")
        np.testing.assert_array_equal(logits(loaded), logits(gpt2))
        assert loaded.config.name_or_path == "tester/tiny"
        gets = sum(method == "GET" and "/resolve/" in path for method, path in hub.requests)
        tfheads.AutoModelForCausalLM.from_pretrained("tester/tiny", local_files_only=True)
        assert gets == sum(method == "GET" and "/resolve/" in path for method, path in hub.requests)
        assert hub.token not in caplog.text


def test_revisions_and_tokens(gpt2, tmp_path):
    other = tfheads.GPT2LMHeadModel.from_config(gpt2_config(), seed=9)
    with fake_hub(logged_in=False) as hub:
        gpt2.push_to_hub("tester/private", private=True, token=hub.token)
        first = hub.repositories["tester/private"].history()[0].oid
        other.push_to_hub("tester/private", token=hub.token)
        load = tfheads.AutoModelForCausalLM.from_pretrained
        np.testing.assert_array_equal(logits(load("tester/private", token=hub.token)), logits(other))
        np.testing.assert_array_equal(logits(load("tester/private", token=hub.token, revision=first)), logits(gpt2))
        with pytest.raises(FileNotFoundError, match="tester/private"):
            load("tester/private", cache_dir=tmp_path)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load("tester/private", revision="nowhere", token=hub.token, cache_dir=tmp_path)


def test_offline_and_endpoint_of_the_environment(gpt2, monkeypatch):
    with fake_hub() as hub:
        gpt2.push_to_hub("tester/tiny")
        code = "import tfheads; print(tfheads.AutoModelForCausalLM.from_pretrained('tester/tiny').config.n_embd)"
        environment = {**os.environ, **hub.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.stdout.split() == ["16"], done.stderr
        asked = len(hub.requests)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert tfheads.AutoModelForCausalLM.from_pretrained("tester/tiny").config.n_embd == 16
        assert len(hub.requests) == asked
        with pytest.raises(ConnectionError):
            tfheads.AutoModelForCausalLM.from_pretrained("tester/other")
