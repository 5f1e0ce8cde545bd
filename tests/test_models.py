"""Public names, calls, outputs, files, seeds and bad input of task models."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.tiny_models import VOCABULARY, bert_config, gpt2_config, token_ids
from tfheads import heads, layers
from tfheads.checkpoints.attribute_walk import layers_by_path

IDS = token_ids()


@pytest.fixture(scope="module")
def gpt2():
    return tfheads.AutoModelForCausalLM.from_config(gpt2_config(), seed=0)


@pytest.fixture(scope="module")
def bert():
    return tfheads.AutoModelForMaskedLM.from_config(bert_config(), seed=0)


def python(code: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """Runs code in a new process."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


# Names.


def test_old_spellings_are_the_same_classes():
    assert tfheads.TFAutoModelForCausalLM is tfheads.AutoModelForCausalLM
    assert tfheads.TFGPT2LMHeadModel is tfheads.GPT2LMHeadModel is tfheads.GPT2ForCausalLM
    assert tfheads.TFBertForMaskedLM is tfheads.BertForMaskedLM
    assert tfheads.TFBertLMHeadModel is tfheads.BertLMHeadModel


def test_all_names_of_dir_exist_and_none_is_private():
    names = dir(tfheads)
    assert {"AutoModel", "AutoModelForCausalLM", "GPT2LMHeadModel", "BertModel", "pipeline"} <= set(names)
    assert all(hasattr(tfheads, name) for name in names)
    assert [name for name in names if name.startswith("_")] == ["__version__"]


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'GPT2LMHeadModel'"):
        tfheads.GPT2LMHeadModl  # noqa: B018
    assert not hasattr(tfheads, "Qqqq")


def test_named_classes_are_ordinary_classes(gpt2):
    from tfheads.families.gpt2 import GPT2LMHeadModel

    assert GPT2LMHeadModel is tfheads.GPT2LMHeadModel is type(gpt2)
    assert repr(GPT2LMHeadModel) == "<class 'tfheads.families.gpt2.GPT2LMHeadModel'>"
    assert pickle.loads(pickle.dumps(GPT2LMHeadModel)) is GPT2LMHeadModel
    assert issubclass(GPT2LMHeadModel, tfheads.AutoModelForCausalLM)
    assert "Family: GPT-2's decoder" in GPT2LMHeadModel.__doc__
    assert "predicts the next token" in GPT2LMHeadModel.__doc__


def test_automatic_classes_choose_the_family(bert):
    assert type(bert) is tfheads.BertForMaskedLM
    assert type(tfheads.AutoModel.from_config(bert_config())) is tfheads.BertModel
    with pytest.raises(TypeError, match="made by from_config or from_pretrained"):
        tfheads.AutoModel(bert_config())
    with pytest.raises(ValueError, match="config must be of model_type 'gpt2' for GPT2LMHeadModel, got 'bert'"):
        tfheads.GPT2LMHeadModel.from_config(bert_config())
    with pytest.raises(ValueError, match="GPT2 has no AutoModelForMaskedLM, it has .*AutoModelForCausalLM"):
        tfheads.AutoModelForMaskedLM.from_config(gpt2_config())
    unknown = transformers.PreTrainedConfig()
    unknown.model_type = "gpt2-large"
    with pytest.raises(ValueError, match="model_type 'gpt2-large' is not supported, the nearest is 'gpt2'"):
        tfheads.AutoModel.from_config(unknown)
    with pytest.raises(TypeError, match="config must be a transformers config such as .*, got str"):
        tfheads.GPT2LMHeadModel("gpt2")


def test_another_backend_is_refused_in_one_sentence():
    done = python("import tfheads", KERAS_BACKEND="numpy")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode and last.startswith("ImportError: tfheads needs Keras' tensorflow backend, got 'numpy'")


# Calls and outputs.


def test_inputs_may_come_in_any_form(gpt2):
    expected = gpt2({"input_ids": IDS}).logits.numpy()
    encoding = transformers.BatchEncoding({"input_ids": IDS, "attention_mask": np.ones_like(IDS)})
    boolean = np.ones(IDS.shape, bool)
    forms = [
        gpt2(IDS),
        gpt2(IDS.tolist()),
        gpt2(IDS.astype("int64")),
        gpt2(IDS.astype("uint8")),
        gpt2(tf.constant(IDS, "int64")),
        gpt2(input_ids=IDS, attention_mask=None),
        gpt2(encoding),
        gpt2(**encoding),
        gpt2(IDS, attention_mask=boolean),
        gpt2({"input_ids": IDS.tolist(), "attention_mask": boolean.tolist()}),
    ]
    for output in forms:
        np.testing.assert_allclose(output.logits.numpy(), expected, atol=1e-6)


def test_loops_take_any_form_too(gpt2):
    expected = gpt2(IDS).logits.numpy()
    encoding = transformers.BatchEncoding({"input_ids": IDS.tolist()})
    for form in (IDS.tolist(), encoding):
        np.testing.assert_allclose(gpt2.predict(form, verbose=0).logits, expected, atol=1e-6)
    np.testing.assert_allclose(gpt2.predict_on_batch({"input_ids": IDS}).logits, expected, atol=1e-6)


def test_output_is_a_dictionary_with_attributes(gpt2):
    output = gpt2(IDS, labels=IDS, output_hidden_states=True)
    assert list(output) == ["loss", "logits", "hidden_states"]
    assert output.logits is output["logits"] is output[1]
    assert len(output.hidden_states) == 2 and output.hidden_states[0].shape == (4, 7, 16)
    with pytest.raises(AttributeError, match="no 'pooler_output', it has 'loss', 'logits', 'hidden_states'"):
        output.pooler_output  # noqa: B018
    copy = pickle.loads(pickle.dumps(gpt2.predict(IDS, verbose=0)))
    assert type(copy) is tfheads.outputs.ModelOutput and copy.logits.shape == (4, 7, VOCABULARY)
    traced = tf.function(lambda ids: gpt2(ids), autograph=False)(IDS)
    np.testing.assert_allclose(traced.logits.numpy(), output.logits.numpy(), atol=1e-6)


def test_hidden_states_may_be_asked_for_by_the_config():
    model = tfheads.AutoModel.from_config(gpt2_config(output_hidden_states=True))
    assert len(model(IDS).hidden_states) == 2


def test_weights_exist_when_the_constructor_returns(gpt2):
    assert gpt2.count_params() == sum(np.prod(weight.shape) for weight in gpt2.weights)
    assert gpt2.built and len(gpt2.trainable_variables) == 2 + 16 + 2


# Bad input: one sentence that names the argument, what was given, what is accepted.

BAD = {
    "a token id out of range": ({"input_ids": IDS + 40}, "input_ids must be between 0 and 39, got 7[0-9]"),
    "a negative token id": ({"input_ids": -IDS}, "input_ids must be between 0 and 39, got -"),
    "an id that int32 cannot hold": (
        {"input_ids": IDS.astype("int64") + 2**32},
        "input_ids must be between 0 and 39, got 2147483647",
    ),
    "fractions": ({"input_ids": IDS + 0.5}, "input_ids must be whole numbers, got float"),
    "a mask of the wrong shape": (
        {"input_ids": IDS, "attention_mask": np.ones((4, 6))},
        r"attention_mask must have the shape of input_ids \(4, 7\), got \(4, 6\)",
    ),
    "a mask that is added to scores": (
        {"input_ids": IDS, "attention_mask": np.full((4, 7), -1e9)},
        "attention_mask must be 1 for real tokens and 0 for padding, got",
    ),
    "labels of the wrong length": (
        {"input_ids": IDS, "labels": IDS[:, 1:]},
        r"labels must have the shape of input_ids \(4, 7\), got \(4, 6\)",
    ),
    "labels out of range": ({"input_ids": IDS, "labels": IDS + 40}, "labels must be -100 or between 0 and 39, got 7"),
    "labels that are fractions": ({"input_ids": IDS, "labels": IDS + 0.5}, "labels must be whole numbers, got float"),
    "an unknown name": ({"input_ids": IDS, "atention_mask": IDS}, "'atention_mask' .* did you mean 'attention_mask'"),
    "too many tokens": ({"input_ids": token_ids(1, 33)}, "at most 32 tokens in a row, .*, got 33"),
    "positions without a row": ({"input_ids": IDS, "position_ids": IDS + 30}, "position_ids must be between 0 and 31"),
    "types without a row": ({"input_ids": IDS, "token_type_ids": IDS + 40}, "token_type_ids must be between 0 and 39"),
    "ragged lists": ({"input_ids": [[1, 2], [3]]}, "input_ids must be numbers in rows of one length, got list"),
    "a ragged tensor": ({"input_ids": tf.ragged.constant([[1, 2], [3]])}, "rows of one length, got a RaggedTensor"),
    "strings": ({"input_ids": ["a b", "c"]}, "input_ids must be numbers in rows of one length, got list"),
    "one row alone": ({"input_ids": IDS[0]}, r"input_ids must have 2 axes \[batch, time\], got shape \(7,\)"),
    "nothing": ({}, "give input_ids or inputs_embeds, one of them; got nothing"),
    "both": ({"input_ids": IDS, "inputs_embeds": np.ones((4, 7, 16))}, "one of them; got input_ids, inputs_embeds"),
    "an encoder's output": (
        {"input_ids": IDS, "encoder_hidden_states": np.ones((4, 3, 16))},
        "encoder_hidden_states needs a config with add_cross_attention=True",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(gpt2, case):
    inputs, sentence = BAD[case]
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        gpt2(inputs)
    assert "\n" not in str(caught.value)


def test_bad_values_are_found_in_graphs_before_anything_is_computed(gpt2):
    for case in ("a token id out of range", "positions without a row", "a mask that is added to scores"):
        inputs, sentence = BAD[case]
        with pytest.raises(ValueError, match=sentence):
            gpt2.predict(inputs, verbose=0)

    def forget_shape(row):
        ids = tf.py_function(lambda ids: ids, [row], "int32")
        return {"input_ids": tf.ensure_shape(ids, [None, None])}

    unknown_shapes = tf.data.Dataset.from_tensors(token_ids(1, 33)).map(forget_shape)
    with pytest.raises(ValueError, match="at most 32 tokens in a row"):
        gpt2.predict(unknown_shapes, verbose=0)


def test_bad_configs_are_one_sentence():
    with pytest.raises(ValueError, match="output_attentions must be False"):
        tfheads.AutoModel.from_config(gpt2_config(output_attentions=True))
    with pytest.raises(ValueError, match="hidden_size must be a multiple of the number of heads, got 16 and 3"):
        tfheads.AutoModel.from_config(gpt2_config(n_head=3))
    with pytest.raises(ValueError, match="GPT2Config has no 'n_layers', did you mean 'n_layer'"):
        tfheads.AutoModel.from_config(gpt2_config(), n_layers=3)
    assert tfheads.AutoModel.from_config(gpt2_config(), num_hidden_layers=2).config.n_layer == 2


# Files.

RELOAD = """
import sys, keras, numpy as np
import tfheads
folder = sys.argv[1]
def load(name):
    return keras.saving.load_model(f"{folder}/{name}.keras")
ids = np.load(f"{folder}/ids.npy")
functional, bert = load("functional")(ids), load("bert")(ids).logits
model = load("gpt2")
assert model.compiled_by_xla is False and model.gradient_accumulation_steps == 2
assert int(model.optimizer.iterations) == 3
logits = model.predict(ids, verbose=0).logits
losses = model.fit({"input_ids": ids, "labels": ids}, batch_size=4, epochs=2, verbose=0).history["loss"]
np.savez(f"{folder}/result.npz", bert=bert, functional=functional, logits=logits, losses=losses)
"""


def test_keras_files_are_loaded_in_a_new_process_and_go_on_training(tmp_path, bert):
    """A functional model with BERT's backbone inside, first; a BERT; a compiled GPT-2."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    hidden = bert.backbone({"input_ids": ids})["last_hidden_state"]
    functional = keras.Model(ids, keras.layers.Dense(3)(hidden[:, 0]))
    model = tfheads.AutoModelForCausalLM.from_config(gpt2_config(), seed=0)
    data = {"input_ids": IDS, "labels": IDS}
    model.compile(keras.optimizers.Adam(0.01), gradient_accumulation_steps=2, jit_compile=False)
    model.fit(data, batch_size=4, epochs=3, verbose=0)
    for name, saved in {"gpt2": model, "bert": bert, "functional": functional}.items():
        saved.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "ids.npy", IDS)
    done = python(RELOAD, tmp_path)
    assert done.returncode == 0, done.stderr
    result = np.load(tmp_path / "result.npz")
    np.testing.assert_allclose(result["logits"], model(IDS).logits.numpy(), atol=1e-6)
    losses = model.fit(data, batch_size=4, epochs=2, verbose=0).history["loss"]
    np.testing.assert_allclose(result["losses"], losses, atol=1e-5)
    np.testing.assert_allclose(result["bert"], bert(IDS).logits.numpy(), atol=1e-6)
    assert result["functional"].shape == (4, 3)
    np.testing.assert_allclose(result["functional"], functional(IDS).numpy(), atol=1e-6)


def test_a_task_model_inside_a_functional_model(gpt2):
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, gpt2({"input_ids": ids})["logits"])
    np.testing.assert_allclose(model(IDS).numpy(), gpt2(IDS).logits.numpy(), atol=1e-6)


X = np.random.RandomState(0).standard_normal((2, 5, 8)).astype("float32")
CONTEXT = layers.BlockContext(views={"full": layers.ViewContext()})


def block(cls, **arguments):
    return cls(
        layers.Attention(8, 2),
        layers.FeedForward(8, 12, "gelu_new"),
        layers.LayerNorm(8),
        layers.RMSNorm(8),
        **arguments,
    )


ENCODED = {"last_hidden_state": X}


def pooler():
    return heads.DensePooler(heads.FirstToken(), 8, "relu", dropout=0.2)


def language_head():
    return heads.LanguageModelHead(8, 40, tied=False, activation="gelu", norm=layers.LayerNorm(8))


PARTS = {
    "layer norm": (lambda: layers.LayerNorm(8, epsilon=0.1), lambda part: part(X)),
    "rms norm": (lambda: layers.RMSNorm(8, epsilon=0.1), lambda part: part(X)),
    "attention": (
        lambda: layers.Attention(8, 4, 2, 6, output_bias=False, scale=0.3),
        lambda part: part(X, context=CONTEXT)[0],
    ),
    "feed-forward": (lambda: layers.FeedForward(8, 12, "relu", use_bias=False), lambda part: part(X)[0]),
    "gated": (lambda: layers.GatedFeedForward(8, 12, "silu"), lambda part: part(X)[0]),
    "pre-norm block": (lambda: block(layers.PreNormBlock), lambda part: part(X, context=CONTEXT)[0]),
    "post-norm block": (lambda: block(layers.PostNormBlock, dropout=0.1), lambda part: part(X, context=CONTEXT)[0]),
    "stack": (
        lambda: layers.Stack([block(layers.PreNormBlock)], layers.View(causal=True), final_norm=layers.LayerNorm(8)),
        lambda part: part(X, positions=np.arange(5)[None])[0],
    ),
    "embeddings": (
        lambda: layers.TextEmbeddings(40, 8, num_positions=9, position_offset=2, num_types=2, norm=layers.LayerNorm(8)),
        lambda part: part({"input_ids": IDS}, positions=np.arange(7)[None]),
    ),
    "language head": (language_head, lambda part: part(ENCODED)["logits"]),
    "pooler": (pooler, lambda part: part(ENCODED)),
    "pooled": (lambda: heads.PooledModelHead(pooler()), lambda part: part(ENCODED)["pooler_output"]),
    "classification": (lambda: heads.ClassificationHead(pooler(), 8, 3), lambda part: part(ENCODED)["logits"]),
    "choice": (lambda: heads.ChoiceHead(pooler(), 8, use_bias=False), lambda part: part(ENCODED)["logits"]),
    "tokens": (lambda: heads.TokenClassificationHead(8, 3, 0.1), lambda part: part(ENCODED)["logits"]),
    "answers": (lambda: heads.QuestionAnsweringHead(8), lambda part: part(ENCODED)["end_logits"]),
    "pre-training": (
        lambda: heads.PreTrainingHead(language_head(), pooler(), 8, logits="pairs", labels="pair"),
        lambda part: part(ENCODED)["pairs"],
    ),
    "double head": (
        lambda: heads.DoubleHead(language_head(), heads.SequenceSummary(heads.ChosenToken("mc_token_ids"), 8)),
        lambda part: part(ENCODED, inputs={"mc_token_ids": np.array([2] * len(X))})["mc_logits"],
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_each_part_serialises_by_itself(name):
    make, run = PARTS[name]
    part = make()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(part))
    again.set_weights(part.get_weights())
    assert type(again) is type(part) and len(part.get_weights()) > 0
    np.testing.assert_array_equal(run(again), run(part))


# Precision and seeds.


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16", np.float16, tf.bfloat16])
def test_dtype_policies(dtype):
    model = tfheads.AutoModelForCausalLM.from_config(gpt2_config(), dtype=dtype, seed=0)
    mixed = str(dtype).startswith("mixed_")
    name = "mixed_bfloat16" if mixed else keras.backend.standardize_dtype(dtype)
    variable, compute = ("float32", "bfloat16") if mixed else (name, name)
    assert model.dtype_policy.name == name and keras.config.dtype_policy().name == "float32"
    assert {weight.dtype for weight in model.trainable_variables} == {variable}
    assert model(IDS).logits.dtype == compute


def weights_of(model) -> dict[str, np.ndarray]:
    """Kernels and tables (0) and biases (1) by attribute path."""
    return {
        f"{path}:{index}": weight.numpy()
        for path, layer in layers_by_path(model)
        if isinstance(layer, (keras.layers.Dense, keras.layers.Embedding))
        for index, weight in enumerate(layer.trainable_variables)
    }


def test_seeds_decide_the_weights():
    first, same, other = (
        weights_of(tfheads.AutoModelForCausalLM.from_config(gpt2_config(), seed=s)) for s in (3, 3, 4)
    )
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first if name.endswith(":0"))
    query, key = (first[f"backbone.stack.blocks.0.attention.{name}:0"] for name in ("query", "key"))
    assert not np.array_equal(query, key)
    keras.utils.set_random_seed(7)
    drawn = weights_of(tfheads.AutoModelForCausalLM.from_config(gpt2_config()))
    next_one = weights_of(tfheads.AutoModelForCausalLM.from_config(gpt2_config()))
    keras.utils.set_random_seed(7)
    again = weights_of(tfheads.AutoModelForCausalLM.from_config(gpt2_config()))
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    assert not np.array_equal(*(weights["backbone.embeddings.token:0"] for weights in (drawn, next_one)))


def test_initial_deviations_are_those_of_transformers():
    config = gpt2_config(n_embd=128, n_layer=2, vocab_size=500, initializer_range=0.05)
    for name, weight in weights_of(tfheads.AutoModelForCausalLM.from_config(config, seed=0)).items():
        residual = re.search(r"output_dense|feed_forward\.down", name)
        expected = 0.05 / 2 if residual else 0.05  # GPT-2 divides by sqrt(2 n_layer)
        if name.endswith(":1"):
            assert not weight.any()
        else:
            assert abs(weight.std() / expected - 1) < 0.05 and abs(weight.mean()) < 0.1 * expected, name


@pytest.mark.parametrize(
    ("heads", "key_heads"), [(5, 2), (4, 3), (4, 8), (4, 0)], ids=["not a multiple", "nor this", "more", "none"]
)
def test_query_heads_are_a_multiple_of_key_heads(heads, key_heads):
    with pytest.raises(ValueError, match=f"must be a multiple of num_key_value_heads, got {heads} and {key_heads}"):
        layers.Attention(40, heads, key_heads, head_dim=8)
