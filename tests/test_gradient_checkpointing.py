"""Training that computes inner values again: the same losses and weights, for every wiring, with dropout."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests import tiny_models

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def models(name: str):
    """A model with dropout, of a kind of its own."""
    if name == "decoder":
        drops = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.2)
        return tfheads.GPT2LMHeadModel(tiny_models.gpt2_config(n_layer=2, **drops), seed=0)
    if name == "encoder-decoder":
        sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
        config = transformers.T5Config(**sizes, dropout_rate=0.2, decoder_start_token_id=0)
        return tfheads.T5ForConditionalGeneration(config, seed=0)
    return tfheads.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, attention_dropout=0.2), seed=0)


def trained(name: str, checkpointing: bool, jit_compile: bool) -> tuple[list[float], list[np.ndarray]]:
    keras.utils.set_random_seed(1)
    model = models(name)
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.compile(keras.optimizers.SGD(0.1), jit_compile=jit_compile)
    ids = tiny_models.token_ids(4, 9)
    mask = np.ones_like(ids)
    mask[0, 5:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": np.where(mask == 1, ids, -100)}
    losses = [float(np.ravel(model.train_on_batch(batch))[0]) for _ in range(3)]
    return losses, [weight.numpy() for weight in model.trainable_variables]


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        ("decoder", True),
        pytest.param("encoder-decoder", False, marks=pytest.mark.slow),
        pytest.param("decoder", False, marks=pytest.mark.slow),
        pytest.param("rotary", False, marks=pytest.mark.slow),
    ],
)
def test_the_result_is_the_same(name, jit_compile):
    losses, weights = trained(name, False, jit_compile)
    again, weights_again = trained(name, True, jit_compile)
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    for one, other in zip(weights, weights_again, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)
    assert losses[0] != losses[1]


def test_blocks_run_twice():
    """Once more for the gradient: XLA has not joined the two, which would keep everything."""

    def widened(checkpointing: bool) -> int:
        """How many values of the inner width are computed."""
        model = tfheads.GPT2LMHeadModel(tiny_models.gpt2_config(n_layer=4, n_inner=640), seed=0)
        if checkpointing:
            model.gradient_checkpointing_enable()
        ids = tf.constant(tiny_models.token_ids(2, 16))

        @tf.function(jit_compile=True)
        def step(ids):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model({"input_ids": ids}, training=True)["logits"])
            return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

        text = step.experimental_get_compiler_ir(ids)(stage="optimized_hlo")
        return len(re.findall(r"= f32\[(?:2,16|32),640\]\S* dot\(", text))

    once, twice = widened(False), widened(True)
    assert once > 0 and twice >= once + 3  # the last block's may be joined
