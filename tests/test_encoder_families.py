"""What single encoder families do beside what their cases show: positions, shared blocks, dropouts, masks in losses."""

import keras
import numpy as np
import pytest
import transformers

import tfheads
from tests.fixtures.cases import albert, distilbert, electra, roberta

ROBERTA = transformers.RobertaConfig(**roberta.ROBERTA)
IDS = np.random.RandomState(0).randint(3, 90, (2, 9)).astype("int32")


def test_roberta_has_as_many_positions_as_stand_behind_the_padding_token():
    model = tfheads.RobertaModel(ROBERTA, seed=0)
    rows = np.full((1, 39), 5)
    assert model(rows[:, :38]).last_hidden_state.shape[1] == 38
    with pytest.raises(ValueError, match="at most 38 tokens in a row"):
        model(rows)
    given = model(rows[:, :9], position_ids=np.arange(2, 11)[None]).last_hidden_state
    np.testing.assert_allclose(given, model(rows[:, :9]).last_hidden_state, atol=1e-6)
    model(rows[:, :1], position_ids=[[39]])
    with pytest.raises(ValueError, match="position_ids must be between 0 and 39"):
        model(rows[:, :1], position_ids=[[40]])


def test_roberta_without_a_padding_token_is_refused():
    config = transformers.RobertaConfig(**{**roberta.ROBERTA, "pad_token_id": None})
    with pytest.raises(ValueError, match="pad_token_id must be a token id"):
        tfheads.RobertaModel(config)


def test_a_class_refuses_the_config_of_a_relative():
    with pytest.raises(ValueError, match="'xlm-roberta' for XLMRobertaModel, got 'roberta'"):
        tfheads.XLMRobertaModel(ROBERTA)


def test_distilbert_starts_from_sinusoids_if_it_is_told_to():
    config = transformers.DistilBertConfig(**distilbert.DISTILBERT, sinusoidal_pos_embds=True)
    table = tfheads.DistilBertModel(config, seed=0).backbone.embeddings.position.embeddings.numpy()
    angle = 7 / 10000 ** (6 / 40)
    np.testing.assert_allclose(table[7, 6:8], [np.sin(angle), np.cos(angle)], atol=1e-6)
    np.testing.assert_allclose(table[0], np.tile([0.0, 1.0], 20))


def test_albert_has_the_weights_of_its_groups_alone():
    def weights(**changes):
        return tfheads.AlbertModel(transformers.AlbertConfig(**{**albert.ALBERT, **changes}), seed=0).count_params()

    one_layer = weights(num_hidden_layers=1)
    block = one_layer - weights(num_hidden_layers=1, inner_group_num=2)
    assert weights(num_hidden_layers=6) == one_layer
    assert weights(num_hidden_layers=6, num_hidden_groups=3) == one_layer - 2 * block
    with pytest.raises(ValueError, match="num_hidden_groups must be at most num_hidden_layers=3, got 4"):
        weights(num_hidden_groups=4)


def test_the_discriminator_learns_and_counts_what_the_mask_leaves():
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = tfheads.ElectraForPreTraining(transformers.ElectraConfig(**{**electra.ELECTRA, **quiet}), seed=0)
    mask, labels = np.ones_like(IDS), IDS % 2
    mask[1, 5:] = 0
    padded = np.where(mask == 1, labels, 1 - labels)
    loss = float(model(IDS, attention_mask=mask, labels=labels).loss)
    assert loss == float(model(IDS, attention_mask=mask, labels=padded).loss)
    left_out = np.where(mask == 1, labels, -100)
    np.testing.assert_allclose(loss, float(model(IDS, labels=left_out, attention_mask=mask).loss), rtol=1e-6)
    with pytest.raises(ValueError, match="labels must be -100 or between 0 and 1"):
        model(IDS, labels=labels + 1)

    model.compile(tfheads.AdamW(3e-3), metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)], jit_compile=False)
    inputs = {"input_ids": IDS, "attention_mask": mask}
    first, second = (model.evaluate(inputs, given, verbose=0, return_dict=True) for given in (labels, padded))
    assert first == second
    right = (model(**inputs).logits.numpy() > 0) == (labels == 1)
    np.testing.assert_allclose(first["binary_accuracy"], right[mask == 1].mean(), atol=1e-6)
    model.fit(inputs, labels, epochs=30, verbose=0)
    assert model.evaluate(inputs, labels, verbose=0, return_dict=True)["loss"] < first["loss"] / 2


DROPOUTS = [
    ("RobertaForMaskedLM", roberta.ROBERTA, "hidden_dropout_prob"),
    ("RobertaForMaskedLM", roberta.ROBERTA, "attention_probs_dropout_prob"),
    ("RobertaForSequenceClassification", roberta.ROBERTA, "classifier_dropout"),
    ("RobertaForTokenClassification", roberta.ROBERTA, "classifier_dropout"),
    ("DistilBertForMaskedLM", distilbert.DISTILBERT, "dropout"),
    ("DistilBertForMaskedLM", distilbert.DISTILBERT, "attention_dropout"),
    ("DistilBertForSequenceClassification", distilbert.DISTILBERT, "seq_classif_dropout"),
    ("DistilBertForQuestionAnswering", distilbert.DISTILBERT, "qa_dropout"),
    ("ElectraForMaskedLM", electra.ELECTRA, "hidden_dropout_prob"),
    ("ElectraForSequenceClassification", electra.ELECTRA, "classifier_dropout"),
    ("ElectraForMultipleChoice", electra.ELECTRA, "summary_last_dropout"),
    ("AlbertForMaskedLM", albert.ALBERT, "hidden_dropout_prob"),
    ("AlbertForMaskedLM", albert.ALBERT, "attention_probs_dropout_prob"),
    ("AlbertForPreTraining", albert.ALBERT, "classifier_dropout_prob"),
    ("AlbertForSequenceClassification", albert.ALBERT, "classifier_dropout_prob"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("class_name", "entries", "key"), DROPOUTS)
def test_each_dropout_changes_training_alone(class_name, entries, key):
    model_class = getattr(tfheads, class_name)
    model = model_class(model_config(model_class, {**entries, key: 0.5}), seed=0)
    ids = np.stack([IDS, IDS[::-1]], 1) if class_name.endswith("MultipleChoice") else IDS
    keras.utils.set_random_seed(0)
    quiet, noisy = model(ids), model(ids, training=True)
    name = "sop_logits" if "sop_logits" in quiet else next(iter(quiet))
    assert np.abs(quiet[name].numpy() - noisy[name].numpy()).max() > 1e-4
    np.testing.assert_array_equal(quiet[name], model(ids)[name])
    without = model_class(model_config(model_class, {**entries, key: 0.0}), seed=0)
    np.testing.assert_array_equal(without(ids)[name], without(ids, training=True)[name])


def model_config(model_class: type, entries: dict) -> transformers.PreTrainedConfig:
    return transformers.AutoConfig.for_model(model_class.family.model_type, **entries)
