"""Every head trains, is saved and loaded, computes in low precision, and answers bad input with one sentence."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers

import tfheads
from tests.quick_cases import slow_but_these
from tfheads import registry

SIZES = {
    "gpt2": {"vocab_size": 60, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "pad_token_id": 0},
    "bert": {
        "vocab_size": 60,
        "max_position_embeddings": 32,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
}
QUIET = {
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "summary_first_dropout": 0.0},
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
TASKS = {
    "pre-training": ("labels", "next_sentence_label"),
    "next-sentence-prediction": ("labels",),
    "sequence-classification": ("labels",),
    "token-classification": ("labels",),
    "question-answering": ("start_positions", "end_positions"),
    "multiple-choice": ("labels",),
    "double-heads": ("labels", "mc_labels"),
}
CASES = [(kind, task) for kind in SIZES for task in TASKS if task in registry.FAMILIES[kind].heads]


LEARNT = [("bert", "pre-training"), ("gpt2", "token-classification"), ("gpt2", "multiple-choice")]
KEPT = [("bert", "question-answering"), ("bert", "sequence-classification"), ("gpt2", "double-heads")]
"""The quick cases: losses of two kinds, of tokens, of choices; heads of all shapes."""


def make(kind: str, task: str, dtype=None, **changes):
    config = transformers.AutoConfig.for_model(kind, **{**SIZES[kind], **QUIET[kind], **changes})
    return registry.named_class(config, task)(config, seed=1, dtype=dtype)


def data(task: str, rows: int = 8, length: int = 10) -> tuple[dict, dict]:
    """Inputs and labels that can be learnt: both follow from the tokens."""
    random = np.random.RandomState(0)
    shape = (rows, 2, length) if task in ("multiple-choice", "double-heads") else (rows, length)
    ids = random.randint(3, 60, shape).astype("int32")
    mask = np.broadcast_to(np.arange(length) < length - 2, shape).astype("int32")
    inputs = {"input_ids": ids * mask, "attention_mask": mask}
    tokens = np.where(mask == 1, ids % 2, -100)
    labels = {
        "pre-training": {"labels": np.where(mask == 1, ids, -100), "next_sentence_label": ids[:, 0] % 2},
        "question-answering": {"start_positions": ids[:, 0] % 7, "end_positions": ids[:, 0] % 7 + 1},
        "token-classification": {"labels": tokens},
        "multiple-choice": {"labels": ids[..., 0, 0] % 2},
        "double-heads": {"labels": np.where(mask == 1, ids, -100), "mc_labels": ids[..., 0, 0] % 2},
    }.get(task, {"labels": ids[:, 0] % 2})
    if task == "double-heads":
        inputs["mc_token_ids"] = np.full((rows, 2), length - 3, "int32")
    return inputs, labels


@pytest.mark.parametrize(("kind", "task"), slow_but_these(LEARNT, CASES))
def test_a_head_learns_its_rows_and_the_loss_of_fit_is_the_loss_of_a_call(kind, task):
    model, (inputs, labels) = make(kind, task), data(task)
    output = model(inputs, **labels)
    model.compile(tfheads.AdamW(1e-3))
    dataset = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(8).repeat(30)
    first = model.evaluate(dataset.take(1), verbose=0)
    np.testing.assert_allclose(first, float(output.loss) + float(output.get("mc_loss", 0.0)), rtol=1e-5)
    model.optimizer.learning_rate = 0.03
    last = model.fit(dataset, epochs=1, verbose=0).history["loss"][-1]  # the mean over the epoch
    assert last < 0.8 * first and model.evaluate(dataset.take(1), verbose=0) < 0.5 * first
    predicted = model.predict(inputs, verbose=0)
    assert set(predicted) == {criterion.logits for criterion in model.criteria}
    for criterion in model.criteria:
        np.testing.assert_allclose(predicted[criterion.logits], model(inputs)[criterion.logits], atol=1e-5)


@pytest.mark.parametrize(("kind", "task"), slow_but_these(KEPT, CASES))
def test_a_head_survives_keras_files_checkpoints_and_low_precision(kind, task, tmp_path):
    model, (inputs, labels) = make(kind, task), data(task)
    exact = {name: value.numpy() for name, value in model(inputs).items()}
    model.save(tmp_path / "model.keras")
    model.save_pretrained(tmp_path / "checkpoint")
    auto = getattr(tfheads, registry.TASKS[task].auto_name)
    for again in (keras.saving.load_model(tmp_path / "model.keras"), auto.from_pretrained(tmp_path / "checkpoint")):
        assert type(again) is type(model)
        for name, value in again(inputs).items():
            np.testing.assert_array_equal(value, exact[name])
    low = auto.from_pretrained(tmp_path / "checkpoint", dtype="mixed_bfloat16")
    for name, value in low(inputs).items():
        np.testing.assert_allclose(tf.cast(value, "float32"), exact[name], atol=0.05)
    low.compile(tfheads.AdamW(1e-3), jit_compile=False)
    losses = low.fit({**inputs, **labels}, batch_size=4, epochs=5, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("kind", "task"), [("bert", "question-answering"), ("bert", "multiple-choice"), ("gpt2", "double-heads")]
)
def test_a_head_is_served_with_token_ids(kind, task, tmp_path):
    model, (inputs, _) = make(kind, task), data(task, rows=2)
    if kind == "bert":
        inputs["token_type_ids"] = inputs["input_ids"] % 2
    served = tf.saved_model.load(model.export_serving(tmp_path, None)).signatures["token_level"]
    answer = served(**{name: tf.constant(value) for name, value in inputs.items()})
    assert set(answer) == {criterion.logits for criterion in model.criteria}
    for name, value in model(inputs).items():
        np.testing.assert_allclose(answer[name], value, atol=1e-5)


def test_a_checkpoint_gives_what_it_has_of_a_head_and_says_what_is_new(tmp_path, caplog):
    whole = make("bert", "pre-training")
    whole.save_pretrained(tmp_path / "whole")
    make("bert", "masked-lm").save_pretrained(tmp_path / "masked")
    with caplog.at_level(logging.WARNING, "tfheads"):
        classifier = tfheads.BertForSequenceClassification.from_pretrained(tmp_path / "whole", seed=3)
        assert "new and must be trained: classifier.bias, classifier.weight" in caplog.text
        np.testing.assert_array_equal(classifier.head.pooler.dense.kernel, whole.head.pooler.dense.kernel)
        caplog.clear()
        tfheads.BertForNextSentencePrediction.from_pretrained(tmp_path / "whole")
        tfheads.BertForMaskedLM.from_pretrained(tmp_path / "whole")
        assert not caplog.records
        tfheads.BertForPreTraining.from_pretrained(tmp_path / "masked")
        assert "bert.pooler.dense.weight" in caplog.text and "cls.seq_relationship.weight" in caplog.text
        assert "cls.predictions" not in caplog.text


def test_a_head_of_other_classes_is_an_error_unless_a_new_one_is_wanted(tmp_path):
    old = make("bert", "sequence-classification", num_labels=3)
    old.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"classifier.weight has the shape \(3, 16\), the config says \(5, 16\)"):
        tfheads.BertForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    new = tfheads.BertForSequenceClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert new.head.classifier.kernel.shape == (16, 5)
    np.testing.assert_array_equal(new.head.pooler.dense.kernel, old.head.pooler.dense.kernel)


@pytest.mark.parametrize(
    ("changes", "labels", "loss", "metric"),
    [
        ({"num_labels": 3}, [0, 2, 1, 1], keras.losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"),
        ({"num_labels": 1}, [0.5, 2.0, -1.0, 0.0], keras.losses.MeanSquaredError(), "mae"),
        (
            {"num_labels": 3},
            [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]],
            keras.losses.BinaryCrossentropy(from_logits=True),
            keras.metrics.BinaryAccuracy("accuracy", threshold=0.0),
        ),
    ],
    ids=["classes", "regression", "multi_label"],
)
def test_keras_losses_and_metrics_see_what_the_own_loss_sees(changes, labels, loss, metric):
    inputs, labels = data("sequence-classification", rows=4)[0], np.array(labels)
    labels = labels.astype("int32" if labels.dtype.kind == "i" else "float32")
    model = make("bert", "sequence-classification", **changes)
    model.compile("sgd", metrics=[metric], jit_compile=False)
    own = model.evaluate(inputs, labels, batch_size=2, verbose=0, return_dict=True)
    model.compile("sgd", loss=loss, metrics=[metric], jit_compile=False)
    theirs = model.evaluate(inputs, labels, batch_size=2, verbose=0, return_dict=True)
    assert own.keys() == theirs.keys() and len(own) == 2
    for name in own:
        np.testing.assert_allclose(own[name], theirs[name], rtol=1e-5)
    model.fit(inputs, labels, batch_size=2, verbose=0)


def test_a_model_of_two_losses_takes_keras_losses_and_metrics_by_label_name():
    model, (inputs, labels) = make("bert", "question-answering"), data("question-answering")
    names = ("start_positions", "end_positions")
    losses = {name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in names}
    model.compile("sgd", metrics={name: ["accuracy"] for name in names}, jit_compile=False)
    own = model.evaluate({**inputs, **labels}, verbose=0, return_dict=True)
    model.compile("sgd", loss=losses, loss_weights=dict.fromkeys(names, 0.5), jit_compile=False)
    theirs = model.evaluate(inputs, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(own["loss"], theirs["loss"], rtol=1e-5)
    places = model(inputs).start_logits.numpy().argmax(-1)
    np.testing.assert_allclose(own["start_positions_accuracy"], (places == labels["start_positions"]).mean())


def test_class_weight_weighs_rows_and_is_refused_for_tokens():
    inputs, labels = data("sequence-classification")
    model = make("bert", "sequence-classification")
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    losses = [
        model.fit(inputs, labels["labels"], class_weight={0: weight, 1: weight}, verbose=0).history["loss"][0]
        for weight in (1.0, 1e-3)
    ]
    assert losses[1] < 0.01 * losses[0]
    tokens = make("bert", "token-classification")
    tokens.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="class_weight must be None"):
        tokens.fit(*(data("token-classification")), class_weight={0: 1.0, 1: 2.0}, verbose=0)


def test_an_answer_outside_of_the_row_does_not_count():
    model, (inputs, _) = make("bert", "question-answering"), data("question-answering", rows=2)
    both = model(inputs, start_positions=[1, 99], end_positions=[2, -100]).loss
    first = model({name: value[:1] for name, value in inputs.items()}, start_positions=[1], end_positions=[2]).loss
    np.testing.assert_allclose(both, first, rtol=1e-6)


def bad(kind, task, labels=None, changes=None, **inputs):
    model, (good, _) = make(kind, task, **(changes or {})), data(task, rows=2)
    return model({**good, **inputs}, **(labels or {}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bad("bert", "sequence-classification", {"labels": [0, 2]}), "labels must be -100 or between 0 and 1"),
        (lambda: bad("bert", "sequence-classification", {"labels": [0, 1, 1]}), "labels must have the shape of"),
        (lambda: bad("bert", "sequence-classification", {"labels": 1}), "labels must have one entry for each row"),
        (
            lambda: bad("bert", "sequence-classification", {"labels": [[0.5, 1.0, 0.0]] * 2}),
            r"labels of a multi_label_classification must have the shape \[batch, 2\]",
        ),
        (
            lambda: bad("bert", "sequence-classification", {"labels": [[0.5, 3.0]] * 2}),
            "labels of a multi_label_classification must be between 0 and 1, got 3",
        ),
        (lambda: bad("bert", "sequence-classification", changes={"problem_type": "ranking"}), "problem_type"),
        (lambda: bad("bert", "token-classification", {"labels": [0, 1]}), "labels must have the shape of input_ids"),
        (lambda: bad("bert", "token-classification", {"labels": [[5] * 10] * 2}), "labels must be -100 or between"),
        (lambda: bad("bert", "question-answering", {"start_positions": [0, -3]}), "start_positions must be -100 or"),
        (lambda: bad("bert", "question-answering", {"start_positions": [0.5, 1.0]}), "must be whole numbers"),
        (lambda: bad("bert", "question-answering", changes={"num_labels": 3}), "id2label must have 2 entries"),
        (lambda: bad("bert", "multiple-choice", {"labels": [0, 2]}), "labels must be -100 or between 0 and 1, got 2"),
        (lambda: bad("bert", "multiple-choice", input_ids=[[1, 2], [3, 4]]), r"\[batch, choices, time\]"),
        (
            lambda: bad("bert", "multiple-choice", attention_mask=np.ones((2, 3, 10), "int32")),
            "attention_mask must have the rows and choices of the others",
        ),
        (lambda: bad("gpt2", "double-heads", mc_token_ids=[[0, 10], [1, 1]]), "mc_token_ids must be between 0 and 9"),
        (lambda: bad("gpt2", "double-heads", mc_token_ids=[0, 1]), r"mc_token_ids must have 2 axes \[batch, choices\]"),
        (lambda: bad("bert", "next-sentence-prediction", {"labels": [0, 7]}), "labels must be -100 or between 0 and 1"),
    ],
)
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_labels_that_fit_needs_are_named_when_they_are_missing():
    model, (inputs, labels) = make("bert", "question-answering"), data("question-answering")
    model.compile("sgd")
    with pytest.raises(ValueError, match="labels must have the name 'end_positions'"):
        model.fit({**inputs, "start_positions": labels["start_positions"]}, verbose=0)
    with pytest.raises(ValueError, match="labels are missing"):
        model.fit(inputs, verbose=0)
