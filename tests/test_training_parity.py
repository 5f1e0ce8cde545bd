"""Fifty steps of AdamW follow PyTorch's loss curve: same weights, same batches, XLA on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures import batches, reference, weights
from tests.quick_cases import slow_but_these
from tfheads.checkpoints.loading import load
from tfheads.optimizers import create_optimizer


class RebuiltTensors:
    """A checkpoint whose tensors follow from their names."""

    def __init__(self, parameters: dict, scale: float):
        self.shapes = {name: entry["shape"] for name, entry in parameters.items()}
        self.sources = {name: entry["tied_to"] or name for name, entry in parameters.items()}
        self.scale = scale

    def names(self):
        return list(self.shapes)

    def shape(self, name):
        return tuple(self.shapes[name])

    def read(self, name):
        return weights.weight(self.sources[name], self.shapes[name], self.scale)

    def read_rows(self, name, start, stop):
        return self.read(name)[start:stop]


class EachBatch(keras.callbacks.Callback):
    """The loss of every batch by itself, and the learning rate of its update."""

    def __init__(self):
        super().__init__()
        self.losses, self.learning_rates = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()
        self.learning_rates.append(float(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


@pytest.mark.parametrize("name", slow_but_these(["gpt2/training"], ["gpt2/training", "bert/training"]))
def test_loss_curve(name):
    record = reference.load(name)
    recipe = record["recipe"]
    config = transformers.AutoConfig.for_model(**record["config"])
    model = getattr(tfheads, record["class"]).from_config(config)
    load(model, RebuiltTensors(record["parameters"], recipe["initial_scale"]))
    optimizer = create_optimizer(
        recipe["learning_rate"],
        num_train_steps=recipe["steps"],
        warmup_steps=recipe["warmup_steps"],
        weight_decay=recipe["weight_decay"],
        adam_beta1=recipe["beta_1"],
        adam_beta2=recipe["beta_2"],
        adam_epsilon=recipe["epsilon"],
        max_grad_norm=recipe["clip_norm"],
    )
    model.compile(optimizer=optimizer, jit_compile=True)
    make = batches.causal_batch if record["objective"] == "causal" else batches.masked_batch

    steps = [make(step, recipe["batch"], recipe["length"], config.vocab_size) for step in range(recipe["steps"])]
    data = {key: np.stack([step[key] for step in steps]).astype("int32") for key in steps[0]}
    curve = EachBatch()
    model.fit(tf.data.Dataset.from_tensor_slices(data), shuffle=False, verbose=0, callbacks=[curve])
    np.testing.assert_allclose(curve.learning_rates, record["learning_rates"], rtol=1e-6)
    np.testing.assert_allclose(curve.losses, record["losses"], rtol=1e-3)
    decayed = [variable for variable in model.trainable_variables if optimizer._use_weight_decay(variable)]
    expected = [record["parameters"][name]["shape"] for name in record["decayed"]]
    assert sum(np.prod(variable.shape) for variable in decayed) == sum(np.prod(shape) for shape in expected)
    squares = sum(float((variable.numpy().astype("float64") ** 2).sum()) for variable in model.trainable_variables)
    assert squares == pytest.approx(sum(record["final_sums_of_squares"].values()), rel=1e-4)
