"""KerasHub, compiled by XLA.

Its masked language model scores chosen positions only: all are chosen, so that it does the same work as the others.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from benchmarks.peers import measuring, shapes


def build(arguments) -> keras.Model:
    """The model with random weights and no preprocessor."""
    if arguments.model == "gpt2":
        shape = shapes.SHAPES["gpt2"].arguments(arguments.tiny, arguments.dropout)
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=shape["vocab_size"],
            num_layers=shape["n_layer"],
            num_heads=shape["n_head"],
            hidden_dim=shape["n_embd"],
            intermediate_dim=4 * shape["n_embd"],
            dropout=arguments.dropout,
            max_sequence_length=shape["n_positions"],
        )
        return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    shape = shapes.SHAPES["bert"].arguments(arguments.tiny, arguments.dropout)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=shape["vocab_size"],
        num_layers=shape["num_hidden_layers"],
        num_heads=shape["num_attention_heads"],
        hidden_dim=shape["hidden_size"],
        intermediate_dim=shape["intermediate_size"],
        dropout=arguments.dropout,
        max_sequence_length=shape["max_position_embeddings"],
    )
    return keras_hub.models.BertMaskedLM(backbone, preprocessor=None)


def inputs_of(arguments, ids: np.ndarray) -> dict:
    """KerasHub's names for ids without padding; for generation, with room for the new tokens."""
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    if arguments.task == "generate":
        inputs = {name: np.pad(array, ((0, 0), (0, arguments.new_tokens))) for name, array in inputs.items()}
    if arguments.model == "bert":
        everywhere = np.broadcast_to(np.arange(ids.shape[1], dtype="int32"), ids.shape)
        inputs |= {"segment_ids": np.zeros_like(ids), "mask_positions": everywhere}
    return {name: tf.constant(array) for name, array in inputs.items()}


def prepare(arguments):
    """One repeat of the task, and the number of parameters."""
    keras.utils.set_random_seed(0)
    model = build(arguments)
    ids = measuring.token_ids(arguments, model.backbone.vocabulary_size)
    inputs = inputs_of(arguments, ids)
    labels = tf.constant(np.roll(ids, -1, axis=1) if arguments.model == "gpt2" else ids)
    model.compile(
        optimizer=keras.optimizers.AdamW(5e-5, weight_decay=0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
        **({"sampler": "greedy"} if arguments.model == "gpt2" else {}),
    )
    compiled_forward = tf.function(lambda given: model(given, training=False), jit_compile=True)

    def train_step() -> float:
        return float(np.ravel(model.train_on_batch(inputs, labels))[0])

    def forward() -> float:
        return float(tf.reduce_sum(compiled_forward(inputs)[0, -1]))

    def generate() -> float:
        made = np.asarray(model.generate(inputs, stop_token_ids=None)["padding_mask"])
        return float(made.all(axis=0).sum() - ids.shape[1])

    return {"train_step": train_step, "forward": forward, "generate": generate}[arguments.task], model.count_params()


if __name__ == "__main__":
    measuring.run(prepare)
