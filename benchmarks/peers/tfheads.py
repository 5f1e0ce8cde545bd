"""tfheads, as a user calls it."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import transformers

import tfheads
from benchmarks.peers import measuring, shapes
from tfheads.optimizers import AdamW


def build(arguments) -> keras.Model:
    """The model with random weights."""
    shape = shapes.SHAPES[arguments.model]
    config = getattr(transformers, shape.config)(**shape.arguments(arguments.tiny, arguments.dropout))
    return getattr(tfheads, shape.model).from_config(config)


def prepare(arguments):
    """One repeat of the task, and the number of parameters."""
    keras.utils.set_random_seed(0)
    model = build(arguments)
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    ids = tf.constant(measuring.token_ids(arguments, model.config.vocab_size))
    inputs = {"input_ids": ids, "attention_mask": tf.ones_like(ids)}
    target = {"decoder_input_ids": ids} if arguments.model in shapes.ENCODER_DECODERS else {}
    begins = 1 if target else arguments.length  # the start token, or the prompt
    model.compile(optimizer=AdamW(5e-5, weight_decay=0.01))
    compiled_forward = tf.function(lambda given: model(given, training=False)["logits"], jit_compile=True)

    def train_step() -> float:
        return float(np.ravel(model.train_on_batch({**inputs, "labels": ids}))[0])

    def forward() -> float:
        return float(tf.reduce_sum(compiled_forward({**inputs, **target})[0, -1]))

    def generate() -> float:
        lengths = {"max_new_tokens": arguments.new_tokens, "do_sample": False, "pad_token_id": 0}
        made = np.asarray(model.generate(ids, attention_mask=inputs["attention_mask"], **lengths)).shape[1] - begins
        if made != arguments.new_tokens:
            raise AssertionError(f"{arguments.new_tokens} tokens were wanted and {made} made")
        return float(made)

    return {"train_step": train_step, "forward": forward, "generate": generate}[arguments.task], model.count_params()


if __name__ == "__main__":
    measuring.run(prepare)
