"""tf_keras over the same variables: its fit learns what Keras 3's does; parameter servers train."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfheads
from tests import tiny_models
from tests.forked_processes import ended, forked, free_ports
from tfheads.legacy import as_tf_keras


def batches() -> tf.data.Dataset:
    """Three batches with padding, labels among the inputs."""
    ids = tiny_models.token_ids(12, 9)
    mask = np.ones_like(ids)
    mask[::3, 5:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": np.where(mask == 1, ids, -100)}
    return tf.data.Dataset.from_tensor_slices(inputs).batch(4)


def test_tf_keras_learns_what_keras_3_learns():
    ours = tfheads.GPT2LMHeadModel(tiny_models.gpt2_config(), seed=0)
    ours.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    ours.fit(batches(), epochs=2, verbose=0)
    model = tfheads.GPT2LMHeadModel(tiny_models.gpt2_config(), seed=0)
    legacy = as_tf_keras(model)
    legacy.compile(optimizer=tf_keras.optimizers.SGD(0.1), metrics=["accuracy"])
    history = legacy.fit(batches(), epochs=2, verbose=0).history
    for one, other in zip(ours.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)
    assert history["loss"][1] < history["loss"][0] and 0 <= history["accuracy"][0] <= 1
    results = dict(zip(legacy.metrics_names, legacy.evaluate(batches(), verbose=0), strict=True))
    np.testing.assert_allclose(results["loss"], ours.evaluate(batches(), verbose=0, return_dict=True)["loss"], 1e-5)
    np.testing.assert_allclose(
        legacy.predict(batches(), verbose=0)["logits"], ours.predict(batches(), verbose=0)["logits"], atol=1e-5
    )


def test_tf_keras_losses_optimizers_and_checkpoints(tmp_path):
    config = tiny_models.bert_config(num_labels=3)
    model = tfheads.BertForSequenceClassification(config, seed=0)
    legacy = as_tf_keras(model)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    legacy.compile(optimizer=tf_keras.optimizers.Adam(1e-2), loss=loss, metrics=["accuracy"])
    ids, labels = tiny_models.token_ids(8, 6), np.arange(8) % 3
    history = legacy.fit({"input_ids": ids}, labels, epochs=12, batch_size=8, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    legacy.save_weights(tmp_path / "weights")
    expected = model({"input_ids": ids})["logits"].numpy()
    fresh = as_tf_keras(tfheads.BertForSequenceClassification(config, seed=1))
    fresh.load_weights(tmp_path / "weights").expect_partial()
    np.testing.assert_allclose(fresh({"input_ids": ids})["logits"], expected, atol=1e-6)
    for name in ("weights.h5", "model.keras"):
        with pytest.raises(ValueError, match="TensorFlow's format"):
            legacy.save_weights(tmp_path / name)
    with pytest.raises(ValueError, match="save_pretrained"):
        legacy.save(tmp_path / "model")
    with pytest.raises(TypeError, match="must be a model of tfheads, got Sequential"):
        as_tf_keras(keras.Sequential())


def test_frozen_weights_stay(tmp_path):
    model = tfheads.GPT2LMHeadModel(tiny_models.gpt2_config(), seed=0)
    model.enable_lora(rank=2, seed=0)
    before = [weight.numpy() for weight in model.backbone.embeddings.weights]
    legacy = as_tf_keras(model)
    assert len(legacy.trainable_weights) == len(model.trainable_variables)
    legacy.compile(optimizer=tf_keras.optimizers.Adam(1e-2))
    losses = legacy.fit(batches(), epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for old, new in zip(before, model.backbone.embeddings.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


@pytest.mark.slow
def test_parameter_servers_train(tmp_path):
    """Two servers hold a table in parts, two workers train; the chief evaluates and saves."""
    places = [f"127.0.0.1:{port}" for port in free_ports(5)]
    cluster = {"worker": places[:2], "ps": places[2:4], "chief": places[4:]}
    roles = [("worker", 0), ("worker", 1), ("ps", 0), ("ps", 1), ("chief", 0)]
    function, given = "tests.parameter_server_run.main", json.dumps(cluster)
    processes = [forked(function, tmp_path / "log", given, *role, str(tmp_path)) for role in roles]
    try:
        codes = ended(processes[-1:], 400)
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert codes == [0], (tmp_path / "log").read_text()[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["loss"][-1] < 0.8 * result["loss"][0]
    assert result["parts_of_the_table"] == 2
    model = tfheads.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = tiny_models.token_ids(4, 9)
    np.testing.assert_allclose(float(model(input_ids=ids, labels=ids).loss), result["final"], rtol=1e-5)
