"""KerasMetricCallback: what the function gets, and where its results go."""

import numpy as np
import pytest
import tensorflow as tf

from tests.resumed_run import BATCH, blocks, compiled_model
from tfheads.callbacks.keras_metric import KerasMetricCallback


@pytest.fixture(scope="module")
def model():
    return compiled_model()


def fit(model, callback):
    return model.fit(blocks().batches(BATCH), shuffle=False, callbacks=[callback], verbose=0).history


def test_predictions_and_labels_of_the_whole_dataset(model):
    seen = []

    def metric(pair):
        seen.append(pair)
        return {"correct": float((pair[0].argmax(-1)[:, :-1] == pair[1][:, 1:]).mean()), "val_rows": len(pair[1])}

    data = blocks().batches(5, shuffle=False, drop_remainder=False)
    history = fit(model, KerasMetricCallback(metric, data))
    ((predictions, labels),) = seen
    assert predictions.shape == (24, 8, 40) and labels.shape == (24, 8)
    expected = model(np.concatenate([batch["input_ids"] for batch in data])).logits
    np.testing.assert_allclose(predictions, expected, atol=1e-5)
    assert history["val_rows"] == [24] and 0 <= history["val_correct"][0] <= 1


def test_generation(model):
    seen = []

    def metric(pair):
        seen.append(pair)
        return {"zero": 0.0}

    ids = np.full((5, 4), 7, "int32")
    data = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids}
    options = {"max_new_tokens": 3, "min_new_tokens": 3}
    callback = KerasMetricCallback(metric, data, batch_size=2, predict_with_generate=True, generate_kwargs=options)
    assert fit(model, callback)["val_zero"] == [0.0]
    predictions, labels = seen[0]
    np.testing.assert_array_equal(predictions, model.generate(ids, **options))
    np.testing.assert_array_equal(labels, ids)


def test_labels_apart_and_rows_of_different_width(model):
    rows = [np.full((2, width), 5, "int32") for width in (3, 6)]
    spec = tf.TensorSpec((None, None), tf.int32)
    data = tf.data.Dataset.from_generator(lambda: ((row, row) for row in rows), output_signature=(spec, spec))
    seen = []

    def metric(pair):
        seen.append(pair)
        return {}

    fit(model, KerasMetricCallback(metric, data, output_cols=["logits"]))
    predictions, labels = seen[0]
    assert predictions.shape == (4, 6, 40) and (predictions[:2, 3:] == -100).all()
    np.testing.assert_array_equal(labels, [[5, 5, 5, -100, -100, -100]] * 2 + [[5] * 6] * 2)


def test_bad_arguments(model):
    data = blocks().batches(BATCH)
    without = data.map(lambda batch: {"input_ids": batch["input_ids"]})
    with pytest.raises(ValueError, match="label_cols must be columns of eval_dataset, got answers"):
        KerasMetricCallback(dict, data, label_cols=["answers"])
    with pytest.raises(ValueError, match="label_cols must be given, eval_dataset has no labels among input_ids"):
        KerasMetricCallback(dict, without)
    with pytest.raises(ValueError, match="batch_size must be given"):
        KerasMetricCallback(dict, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="output_cols must be among logits, got answers"):
        fit(model, KerasMetricCallback(dict, data, output_cols=["answers"]))
    with pytest.raises(TypeError, match="metric_fn must return a dict"):
        fit(model, KerasMetricCallback(lambda pair: 3, data))
