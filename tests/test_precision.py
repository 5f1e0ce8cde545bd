"""Low precision: every family is near float32 in it, finite where nothing is to be seen, and trains in it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfheads
from tests.fixtures import reference
from tests.quick_cases import slow_but_these
from tests.test_families import Stored, config_of, tensors_of
from tfheads import registry
from tfheads.checkpoints.loading import load
from tfheads.optimizers import AdamW

OWN = {"make_embeddings", "make_stack", "make_encoder", "make_decoder", "heads", "table"}
FAMILIES = [name for name, family in registry.FAMILIES.items() if OWN & vars(family).keys()]
"""All but those that are another one under another name."""

QUICK = ("t5",)
"""A family with norms, positions and scores of its own; the others wait for `make test-slow`."""

LANGUAGE_MODELS = ("causal-lm", "masked-lm", "seq2seq-lm")
STEPS = 10
UNIT = {"bfloat16": 2.0**-9, "float16": 2.0**-12}
"""By how much a number changes at most when it is rounded, as a part of itself."""

ROUNDINGS = 32
"""How many units the largest logit may be off: a token's way through two blocks stores some thirty values; what is
added up on it, and the sums inside of products, are float32 or average out. Seen are 4 to 11, in T5, whose residuals
are not normed and whose scores are not scaled, 25."""


def record_of(model_type: str) -> dict:
    """The first of a family's stored cases that is a language model and has padding."""
    family = registry.FAMILIES[model_type]
    names = {name for task in LANGUAGE_MODELS if task in family.heads for name in registry.class_names(family, task)}
    records = map(reference.load, reference.names(model_type))
    return next(one for one in records if one["class"] in names and "right_padded" in one["forward"])


def made(record: dict, policy: str):
    model = getattr(tfheads, record["class"]).from_config(config_of(record), dtype=policy)
    load(model, Stored(tensors_of(record)))
    return model


def logits(model, inputs) -> np.ndarray:
    return tf.cast(model(inputs)["logits"], "float32").numpy()


@pytest.mark.parametrize("model_type", slow_but_these(QUICK, FAMILIES))
def test_a_family_in_low_precision(model_type):
    record = record_of(model_type)
    inputs = {name: np.asarray(value, "int32") for name, value in record["forward"]["right_padded"]["inputs"].items()}
    real = inputs["labels"] != -100
    exact = logits(made(record, "float32"), inputs)[real]
    for policy in ("mixed_bfloat16", "bfloat16", "float16", "mixed_float16"):
        model = made(record, policy)
        bound = ROUNDINGS * UNIT[policy.removeprefix("mixed_")] * np.abs(exact).max()
        assert 0 < np.abs(logits(model, inputs)[real] - exact).max() < bound, policy
        nothing = {name: np.zeros_like(value) if "mask" in name else value for name, value in inputs.items()}
        assert np.isfinite(logits(model, nothing)).all(), policy
        if policy in ("bfloat16", "mixed_float16"):
            train(model, inputs)


def train(model, inputs) -> None:
    """Requires that ten steps are finite, that none is left out for a gradient that is not, and that they teach."""
    model.compile(AdamW(1e-3), jit_compile=False)
    losses = [model.train_on_batch(inputs, return_dict=True)["loss"] for _ in range(STEPS)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert int(model.optimizer.iterations) == STEPS
    assert all(np.isfinite(tf.cast(variable.value, "float32")).all() for variable in model.trainable_variables)


def test_an_optimizer_that_would_move_nothing_is_an_error():
    record = record_of("gpt2")
    model, ids = made(record, "bfloat16"), np.full((2, 5), 7)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    assert np.isfinite(model.evaluate({"input_ids": ids, "labels": ids}, verbose=0)).all()
    with pytest.raises(ValueError, match="beta_2 must be less than 1 in bfloat16, .* got 0.999 of Adam"):
        model.fit({"input_ids": ids, "labels": ids}, verbose=0)
