"""`GPT2ForMultipleChoice`, which transformers does not have: each choice is scored as a row of its own."""

import numpy as np
import pytest
import tensorflow as tf

import tfheads
from tests.tiny_models import gpt2_config, token_ids

IDS = token_ids(12, 7).reshape(4, 3, 7)
MASK = (np.arange(7) < np.array([7, 4, 6])[None, :, None]).astype("int32") * np.ones_like(IDS)
LABELS = np.array([0, 1, 2, 1])


def test_logits_are_those_of_a_classifier_of_one_label_and_the_loss_is_over_the_choices():
    model = tfheads.GPT2ForMultipleChoice.from_config(gpt2_config(), seed=0)
    scorer = tfheads.GPT2ForSequenceClassification.from_config(gpt2_config(num_labels=1), seed=0)
    output = model(IDS, attention_mask=MASK, labels=LABELS)
    pairs = zip(IDS.reshape(-1, 7), MASK.reshape(-1, 7), strict=True)
    rows = [scorer(row[None, mask == 1]).logits for row, mask in pairs]
    np.testing.assert_allclose(output.logits, np.reshape(rows, (4, 3)), atol=1e-6)
    chances = tf.nn.softmax(output.logits).numpy()
    np.testing.assert_allclose(output.loss, -np.log(chances[range(4), LABELS]).mean(), rtol=1e-6)


def test_fit_learns_to_choose_and_files_hold_the_scorer(tmp_path):
    model = tfheads.GPT2ForMultipleChoice.from_config(gpt2_config(), seed=0)
    model.compile(tfheads.AdamW(0.02), metrics=["accuracy"], jit_compile=False)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    history = model.fit(inputs, LABELS, batch_size=4, epochs=30, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0] and history["accuracy"][-1] == 1
    model.save_pretrained(tmp_path)
    again = tfheads.AutoModelForMultipleChoice.from_pretrained(tmp_path)
    assert type(again) is tfheads.GPT2ForMultipleChoice
    np.testing.assert_array_equal(again(inputs).logits, model(inputs).logits)
    scorer = tfheads.GPT2ForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    np.testing.assert_allclose(scorer(IDS[:, 0]).logits[:, 0], model(IDS).logits[:, 0], atol=1e-6)


def test_bad_choices_are_one_sentence():
    model = tfheads.GPT2ForMultipleChoice.from_config(gpt2_config(), seed=0)
    with pytest.raises(ValueError, match=r"input_ids must have 3 axes \[batch, choices, time\], got shape \(4, 7\)"):
        model(IDS[:, 0])
    with pytest.raises(ValueError, match="labels must be -100 or between 0 and 2, got 3"):
        model(IDS, labels=LABELS + 1)
    with pytest.raises(ValueError, match="attention_mask must have the rows and choices of the others"):
        model(IDS, attention_mask=MASK[:, :2])
