"""`compile`, `fit`, `evaluate` and `predict`: the numbers do not depend on how the work is divided."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfheads
from tests.each_loss import EachLoss
from tests.tiny_models import VOCABULARY, bert_config, gpt2_config, token_ids

ROWS, TIME = 8, 6
IDS = token_ids(ROWS, TIME)
# Rows have 0 to 5 real labels, so that a mean of means is another number.
LABELS = np.where(np.arange(TIME)[None] < np.arange(ROWS)[:, None] % 7, IDS, -100).astype("int32")
BATCH = {"input_ids": IDS, "labels": LABELS}


def gpt2(**changes):
    return tfheads.AutoModelForCausalLM.from_config(gpt2_config(**changes), seed=0)


def sgd(**options):
    return keras.optimizers.SGD(0.5, global_clipnorm=0.3, **options)


def curve(model, batch_size=ROWS, steps=5, **options) -> list[float]:
    """The losses of some steps on the same rows, without XLA unless it is asked for."""
    model.compile(sgd(), **{"jit_compile": False, **options})
    each = EachLoss()
    model.fit(BATCH, batch_size=batch_size, epochs=steps, shuffle=False, verbose=0, callbacks=[each])
    return each.losses


@pytest.fixture(scope="module")
def reference_run():
    """The losses of five steps, and the weights after them."""
    model = gpt2()
    return curve(model), model.get_weights()


@pytest.fixture(scope="module")
def reference_curve(reference_run):
    return reference_run[0]


def numpy_loss(model) -> float:
    logits = model(IDS).logits.numpy()[:, :-1].astype("float64")
    targets = LABELS[:, 1:]
    chosen = np.take_along_axis(logits, np.maximum(targets, 0)[..., None], 2)[..., 0]
    losses = np.log(np.exp(logits).sum(2)) - chosen
    return losses[targets != -100].mean()


# The loss.


def test_loss_is_the_mean_over_real_labels():
    model = gpt2()
    expected = numpy_loss(model)
    assert abs(float(model(**BATCH).loss) - expected) < 1e-5
    model.compile(jit_compile=False)
    for data in (BATCH, tf.data.Dataset.from_tensor_slices(({"input_ids": IDS}, LABELS)).batch(ROWS)):
        assert abs(model.evaluate(data, batch_size=None, verbose=0, return_dict=True)["loss"] - expected) < 1e-5
    assert abs(model.evaluate({"input_ids": IDS}, LABELS, verbose=0, return_dict=True)["loss"] - expected) < 1e-5


def test_perplexity_is_that_of_the_whole_set_with_a_short_last_batch():
    model = gpt2()
    model.compile(jit_compile=False)
    for batch_size in (3, ROWS):
        logs = model.evaluate(BATCH, batch_size=batch_size, verbose=0, return_dict=True)
        assert abs(logs["perplexity"] / math.exp(numpy_loss(model)) - 1) < 1e-5
    history = model.fit(BATCH, validation_data=BATCH, batch_size=3, verbose=0).history
    assert abs(history["val_perplexity"][0] / math.exp(numpy_loss(model)) - 1) < 1e-5


def test_labels_that_are_all_ignored_change_nothing():
    model = gpt2()
    model.compile(keras.optimizers.SGD(0.5), jit_compile=False)
    before = model.get_weights()
    history = model.fit({"input_ids": IDS, "labels": np.full_like(LABELS, -100)}, verbose=0).history
    assert history["loss"] == [0.0]
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_any_keras_loss_sees_labels_as_the_logits_do(reference_curve):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    np.testing.assert_allclose(curve(gpt2(), loss=loss), reference_curve, atol=1e-5)
    weighted = gpt2()
    weighted.compile(loss=loss, jit_compile=False)
    rows = np.array([1, 0, 2, 0, 1, 1, 0, 3], "float32")
    given = weighted.evaluate({"input_ids": IDS}, LABELS, sample_weight=rows, verbose=0, return_dict=True)["loss"]
    alone = [
        weighted.evaluate({"input_ids": IDS[[row]]}, LABELS[[row]], verbose=0, return_dict=True)["loss"]
        for row in range(ROWS)
    ]
    counts = (LABELS[:, 1:] != -100).sum(1)
    assert abs(given - (rows * counts * alone).sum() / counts.sum()) < 1e-5


def test_a_keras_loss_may_take_other_labels():
    model = gpt2()
    model.compile(loss="mse", jit_compile=False)
    wanted = np.random.RandomState(0).standard_normal((ROWS, TIME, VOCABULARY)).astype("float32")
    loss = model.evaluate({"input_ids": IDS}, wanted, verbose=0, return_dict=True)["loss"]
    assert abs(loss - np.square(model(IDS).logits.numpy() - wanted).mean()) < 1e-5


def test_metrics_see_labels_as_the_logits_do():
    model = gpt2()
    model.compile(metrics=["accuracy"], jit_compile=False)
    right = (model(IDS).logits.numpy().argmax(2)[:, :-1] == LABELS[:, 1:])[LABELS[:, 1:] != -100]
    labels = np.where(LABELS == -100, -100, np.roll(model(IDS).logits.numpy().argmax(2), 1, 1)).astype("int32")
    assert model.evaluate({"input_ids": IDS}, labels, verbose=0, return_dict=True)["accuracy"] == 1.0
    given = model.evaluate(BATCH, batch_size=3, verbose=0, return_dict=True)["accuracy"]
    assert abs(given - right.mean()) < 1e-6


def test_masked_language_models_do_not_shift():
    model = tfheads.AutoModelForMaskedLM.from_config(bert_config(), seed=0)
    model.compile(metrics=["accuracy"], jit_compile=False)
    best = model(IDS).logits.numpy().argmax(2).astype("int32")
    labels = np.where(LABELS == -100, -100, best)
    assert model.evaluate({"input_ids": IDS}, labels, verbose=0, return_dict=True)["accuracy"] == 1.0


# How the work is divided.


@pytest.mark.parametrize("options", [{"jit_compile": True, "metrics": ["accuracy"]}, {"run_eagerly": True}])
def test_xla_and_eager_execution_give_the_same_losses(reference_curve, options):
    np.testing.assert_allclose(curve(gpt2(), **options), reference_curve, atol=1e-5)


def test_several_steps_per_execution_give_the_same_weights(reference_curve):
    one, several = gpt2(), gpt2()
    losses = curve(one, batch_size=4, steps=1)
    several.compile(sgd(), jit_compile=False, steps_per_execution=2)
    several.fit(BATCH, batch_size=4, shuffle=False, verbose=0)
    assert len(losses) == 2 == int(several.optimizer.iterations)
    for a, b in zip(one.get_weights(), several.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 8])
def test_accumulated_gradients_equal_the_big_batch(reference_run, parts):
    model, (expected, weights) = gpt2(), reference_run
    losses = curve(model, gradient_accumulation_steps=parts)
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert int(model.optimizer.iterations) == 5


def test_accumulation_refuses_rows_that_cannot_be_divided():
    model = gpt2()
    model.compile(gradient_accumulation_steps=3, jit_compile=False)
    with pytest.raises(ValueError, match="a batch of 8 rows cannot be divided by gradient_accumulation_steps=3"):
        model.fit(tf.data.Dataset.from_tensors(BATCH), verbose=0)
    with pytest.raises(ValueError, match="gradient_accumulation_steps must be at least 1, got 0"):
        model.compile(gradient_accumulation_steps=0)


def test_steps_are_traced_once(monkeypatch):
    model = gpt2()
    traces = []
    forward_backward = type(model)._forward_backward
    monkeypatch.setattr(
        type(model), "_forward_backward", lambda self, *given: traces.append(1) or forward_backward(self, *given)
    )
    model.compile(jit_compile=True)
    model.fit(BATCH, batch_size=4, epochs=2, verbose=0)
    seen = len(traces)
    model.fit(BATCH, batch_size=4, epochs=2, verbose=0)
    assert 1 <= seen <= 2 and len(traces) == seen


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(policy):
    model = tfheads.AutoModelForCausalLM.from_config(gpt2_config(), dtype=policy, seed=0)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    losses = model.fit(BATCH, batch_size=ROWS, epochs=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0] - 0.1
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_predict_keeps_order_and_joins_batches():
    model = gpt2()
    output = model.predict({"input_ids": IDS, "attention_mask": np.ones_like(IDS)}, batch_size=3, verbose=0)
    assert list(output) == ["logits"] and output.logits.shape == (ROWS, TIME, VOCABULARY)
    np.testing.assert_allclose(output.logits, model(IDS).logits.numpy(), atol=1e-5)
    np.testing.assert_array_equal(model.predict(BATCH, batch_size=3, verbose=0).logits, output.logits)


def test_compiling_again_forgets_the_earlier_loss():
    model = gpt2()
    model.compile(jit_compile=False)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    assert model.evaluate(BATCH, verbose=0, return_dict=True)["loss"] > 1
    model.compile(jit_compile=False)
    assert set(model.evaluate(BATCH, verbose=0, return_dict=True)) == {"loss", "perplexity"}


def test_single_batches():
    model = gpt2()
    model.compile(sgd(), jit_compile=False)
    expected = numpy_loss(model)
    assert abs(model.test_on_batch(BATCH, return_dict=True)["loss"] - expected) < 1e-5
    model.reset_metrics()
    assert abs(model.train_on_batch({"input_ids": IDS}, LABELS, return_dict=True)["loss"] - expected) < 1e-5
    assert numpy_loss(model) < expected


# What cannot be.


def test_a_bad_batch_is_a_sentence_and_changes_no_weight():
    model = gpt2()
    model.compile(sgd(), jit_compile=True)
    before = model.get_weights()
    bad = [
        ({"input_ids": IDS + 40, "labels": LABELS}, "input_ids must be between 0 and 39, got 7"),
        ({"input_ids": IDS, "labels": IDS + 40}, "labels must be -100 or between 0 and 39, got 7"),
    ]
    for data, sentence in bad:
        with pytest.raises(ValueError, match=sentence) as caught:
            model.fit(data, verbose=0)
        assert "\n" not in str(caught.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_missing_or_not_used_is_an_error():
    model = gpt2()
    model.compile(jit_compile=False)
    inputs = {"input_ids": IDS}
    for options, sentence in [
        ({"x": inputs}, r"labels are missing: give \(inputs, labels\) or inputs with 'labels'"),
        ({"x": inputs, "y": {"label": LABELS}}, "labels must have the name 'labels', got label"),
        ({"x": inputs, "y": LABELS, "sample_weight": np.ones(ROWS)}, "sample_weight must be None with the model's own"),
        ({"x": inputs, "y": LABELS, "class_weight": {0: 2.0}}, "class_weight must be None"),
        ({"x": inputs, "y": LABELS.astype("float32")}, "labels must be whole numbers, got float32"),
        ({"x": inputs, "y": LABELS[:, 1:]}, r"labels must have the shape of input_ids \(None, 6\), got \(None, 5\)"),
        ({"x": {"input_id": IDS}, "y": LABELS}, "input 'input_id' is not known, did you mean 'input_ids'"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            model.fit(**options, verbose=0)
    bare = tfheads.AutoModel.from_config(gpt2_config())
    with pytest.raises(ValueError, match="loss must be given: GPT2Model has no head to train"):
        bare.compile()


@pytest.mark.parametrize("method", ["compile", "fit", "evaluate", "train_on_batch"])
def test_a_model_made_outside_of_the_scope_is_one_sentence(method):
    model = tfheads.AutoModelForCausalLM.from_config(gpt2_config(), seed=0)
    ids = token_ids(2, 5)
    if method != "compile":
        model.compile("sgd", jit_compile=False)
    arguments = ("sgd",) if method == "compile" else ({"input_ids": ids, "labels": ids},)
    sentence = f"{method} is called in the scope of a MirroredStrategy, and the model was made outside of any"
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope(), pytest.raises(ValueError, match=sentence):
        getattr(model, method)(*arguments)


def test_what_the_own_loss_leaves_out_is_refused():
    """A penalty that is not counted would let `fit` go on as if there were none."""
    ids = token_ids(2, 5)
    model = tfheads.AutoModelForCausalLM.from_config(gpt2_config(), seed=0)
    with pytest.raises(ValueError, match="loss_weights must be None with the model's own loss, got 2.0"):
        model.compile("sgd", loss_weights=2.0)
    kernel = model.backbone.stack.blocks[0].attention.query.kernel
    kernel.regularizer = keras.regularizers.L2(1.0)
    model.compile("sgd", jit_compile=False)
    for method in (model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match="regularizers and add_loss are not part of the task's own loss"):
            method({"input_ids": ids, "labels": ids})
    kernel.regularizer = None
    model.train_on_batch({"input_ids": ids, "labels": ids})


def test_an_overridden_loss_needs_a_loss_of_keras():
    class Weighed(tfheads.GPT2LMHeadModel):
        def compute_loss(self, *arguments, **options):
            return 2 * super().compute_loss(*arguments, **options)

    model = Weighed(gpt2_config(), seed=0)
    with pytest.raises(ValueError, match="Weighed overrides compute_loss, which sees a Keras loss"):
        model.compile("sgd")
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
