"""`ForDocumentClassification`: windows, pooling, bounded encoding with exact gradients, training, files, bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures.cases import EFFECTS
from tests.quick_cases import slow_but_these
from tests.tiny_models import gpt2_config, token_ids
from tfheads import registry
from tfheads.tasks import windows

LONG = token_ids(4, 43)
MASK = np.ones_like(LONG)
MASK[0, 12:] = 0  # fits into one window
MASK[1, 30:] = 0
LABELS = np.array([0, 1, 2, 1])
DECODERS = [kind for kind, family in registry.FAMILIES.items() if "document-classification" in family.heads]


def make(seed: int = 0, **changes):
    values = {"num_labels": 3, "n_positions": 16, "n_layer": 1}
    own = {name: changes.pop(name) for name in tfheads.GPT2ForDocumentClassification.config_keys if name in changes}
    return tfheads.GPT2ForDocumentClassification.from_config(gpt2_config(**{**values, **changes}), seed=seed, **own)


def sequence_classifier():
    return tfheads.GPT2ForSequenceClassification.from_config(gpt2_config(num_labels=3, n_positions=16), seed=0)


def vectors(model, ids) -> np.ndarray:
    """The vectors of one document's windows, each made alone."""
    starts = range(0, max(1, len(ids) - model.window_length + model.window_stride), model.window_stride)
    pieces = [ids[None, start : start + model.window_length] for start in starts]
    encoded = [model.backbone({"input_ids": tf.constant(piece)}) for piece in pieces]
    return np.concatenate([one["last_hidden_state"].numpy()[:, -1] for one in encoded])


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_windows_are_encoded_alone_and_pooled(pooling):
    model, kernel = make(window_stride=6, window_budget=3, window_pooling=pooling), None
    if pooling == "attention":
        kernel = model.head.windows.score.kernel
        kernel.assign(np.random.RandomState(0).normal(size=kernel.shape))
    logits = model(LONG, attention_mask=MASK).logits.numpy()
    for row in range(4):
        each = vectors(model, LONG[row][MASK[row] == 1])
        assert len(each) == (1, 4, 6, 6)[row]
        scores = np.exp(each @ kernel.numpy()) if pooling == "attention" else np.ones((len(each), 1))
        pooled = each.max(0) if pooling == "max" else (each * scores / scores.sum()).sum(0)
        np.testing.assert_allclose(logits[row], pooled @ model.head.classifier.kernel.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", slow_but_these(["llama"], [kind for kind in DECODERS if kind != "gpt2"]))
def test_every_decoder_reads_documents(kind):
    sizes = {**next(iter(EFFECTS[kind].values())), "num_labels": 3, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    plain = tfheads.AutoModelForSequenceClassification.from_config(config, seed=0)
    model = tfheads.AutoModelForDocumentClassification.from_config(config, seed=0, window_length=8, window_stride=8)
    np.testing.assert_allclose(model(LONG[:, :8]).logits, plain(LONG[:, :8]).logits, atol=1e-6)
    windowed = np.mean([plain(LONG[:, start : start + 8]).logits for start in range(0, 40, 8)], axis=0)
    np.testing.assert_allclose(model(LONG[:, :40]).logits, windowed, atol=1e-6)
    assert len(model.trainable_variables) == len(plain.trainable_variables)


def test_a_short_document_gives_exactly_what_the_sequence_classifier_gives():
    model, plain, short = make(), sequence_classifier(), token_ids(5, 16)
    np.testing.assert_array_equal(model(short).logits, plain(short).logits)
    mixed = model(LONG, attention_mask=MASK).logits[0]
    np.testing.assert_allclose(mixed, plain(LONG[:1, :12]).logits[0], atol=1e-6)
    left = np.roll(np.where(MASK == 1, LONG, 0), 13, axis=1)[1:2], np.roll(MASK, 13, axis=1)[1:2]
    np.testing.assert_allclose(model(left[0], attention_mask=left[1]).logits, model(LONG[1:2, :30]).logits, atol=1e-6)


def test_padding_without_a_mask_is_that_of_the_config():
    model = make(pad_token_id=0)
    padded = np.where(MASK == 1, LONG, 0)
    np.testing.assert_allclose(model(padded).logits, model(padded, attention_mask=MASK).logits, atol=1e-6)


def gradients(model, training: bool = False):
    with tf.GradientTape() as tape:
        loss = model(LONG, attention_mask=MASK, labels=LABELS, training=training).loss
    found = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return [loss.numpy(), *(tf.convert_to_tensor(one).numpy() for one in found)]


def test_a_budget_changes_no_gradient_and_frozen_weights_have_none():
    whole, parts = make(window_budget=99), make(window_budget=3)
    for model in (whole, parts):
        model.backbone.embeddings.trainable = False
    assert len(parts.trainable_variables) == len(sequence_classifier().trainable_variables) - 2
    for a, b in zip(gradients(whole), gradients(parts), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_dropout_is_the_same_when_windows_are_encoded_again():
    """The loss along a gradient with dropout falls as the gradient says only if both saw the same masks."""
    model = make(window_budget=4, resid_pdrop=0.3, embd_pdrop=0.3)
    states = [v for v in model.non_trainable_variables if "seed" in v.path]
    assert states
    start = [state.numpy() for state in states]
    loss, *found = gradients(model, training=True)
    assert all((state.numpy() != before).any() for state, before in zip(states, start, strict=True))
    values = [variable.numpy() for variable in model.trainable_variables]
    step = 1e-3 / sum(np.sum(np.square(one)) for one in found) ** 0.5
    seen = []
    for sign in (1, -1):
        for variable, value, one in zip(model.trainable_variables, values, found, strict=True):
            variable.assign(value + sign * step * one)
        for state, before in zip(states, start, strict=True):
            state.assign(before)
        seen.append(float(model(LONG, attention_mask=MASK, labels=LABELS, training=True).loss))
    np.testing.assert_allclose(
        (seen[0] - seen[1]) / (2 * step), sum(np.sum(np.square(one)) for one in found), rtol=0.02
    )
    assert min(seen) < loss < max(seen)


def test_no_more_windows_than_the_budget_are_encoded_at_a_time():
    rows = []

    def encode(inputs):
        rows.append(inputs["input_ids"].shape[0])
        return tf.cast(inputs["input_ids"][:, :2], "float32")

    made = windows.Bounded(encode, [], [], 2, "float32", budget=4)({"input_ids": tf.constant(token_ids(11, 5))})
    np.testing.assert_array_equal(made, token_ids(11, 5)[:, :2])
    assert max(rows) == 4


@pytest.mark.slow
def test_fit_under_xla_learns_and_files_keep_everything(tmp_path):
    keras.utils.set_random_seed(0)  # of dropout and of the order of the rows
    model = make(window_budget=6, window_pooling="attention", window_stride=8)
    model.compile(tfheads.AdamW(0.01), metrics=["accuracy"])
    ids = np.concatenate([LONG, token_ids(4, 43, seed=1)])
    labels = np.concatenate([LABELS, LABELS])
    history = model.fit({"input_ids": ids}, labels, batch_size=4, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    expected = model(ids).logits.numpy()
    np.testing.assert_allclose(model.predict(ids, batch_size=4, verbose=0).logits, expected, atol=1e-5)
    model.save_pretrained(tmp_path / "directory")
    model.save(tmp_path / "file.keras")
    for again in (
        tfheads.AutoModelForDocumentClassification.from_pretrained(tmp_path / "directory"),
        keras.models.load_model(tmp_path / "file.keras"),
    ):
        assert (again.window_budget, again.window_stride) == (6, 8)
        np.testing.assert_array_equal(again(ids).logits, expected)
    other = tfheads.GPT2ForDocumentClassification.from_pretrained(tmp_path / "directory", window_pooling="mean")
    assert type(other.head.windows).__name__ == "MeanWindows"
    plain = tfheads.GPT2ForSequenceClassification.from_pretrained(tmp_path / "directory")
    np.testing.assert_allclose(plain(ids[:, :16]).logits, model(ids[:, :16]).logits, atol=1e-6)


def test_low_precision_is_near_float32():
    low = make(window_budget=4)
    policy = tfheads.GPT2ForDocumentClassification(low.config, dtype="mixed_bfloat16", seed=0)
    np.testing.assert_allclose(tf.cast(policy(LONG).logits, "float32"), low(LONG).logits, atol=0.02)


def with_key(**keys):
    return tfheads.GPT2ForDocumentClassification.from_config(gpt2_config(), **keys)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(window_pooling="median"), "window_pooling must be one of mean, max, attention, got 'median'"),
        (lambda: make(window_stride=17), "window_stride must be a whole number between 1 and 16, got 17"),
        (lambda: make(window_length=32), "window_length must be a whole number between 1 and 16, got 32"),
        (lambda: make(window_budget=0), "window_budget must be a whole number at least 1, got 0"),
        (lambda: with_key(windowstride=3), "GPT2Config has no 'windowstride', did you mean 'window_stride'"),
        (lambda: make(max_windows=3)(LONG), "documents must have at most max_windows=3 windows of 16 tokens, got 5"),
        (lambda: make()(LONG, position_ids=LONG), "input 'position_ids' is not known to GPT2ForDocumentClassification"),
        (lambda: make()(LONG[:, :0]), "input_ids must be given as .* with at least one token, got shape"),
        (lambda: make()(LONG + 40), "input_ids must be between 0 and 39"),
        (lambda: make()(LONG, attention_mask=MASK[:, 1:]), "attention_mask must have the shape of input_ids"),
        (lambda: make()(LONG, attention_mask=MASK * 2), "attention_mask must be 1 for real tokens"),
        (lambda: make()(LONG, output_hidden_states=True), "output_hidden_states must be False for documents"),
        (lambda: make()(LONG, labels=[0, 1, 2, 3]), "labels must be -100 or between 0 and 2, got 3"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert len(str(error.value).splitlines()) == 1
