"""Measures of tasks: values worked out by hand, odd input, and what errors say."""

import numpy as np
import pytest

from tfheads.metrics.classification import measured, with_combined_score
from tfheads.metrics.question_answering import plain_answer, squad_measures, squad_v2_measures, word_f1
from tfheads.metrics.sequence_labelling import entity_measures


def test_classes():
    predictions, labels = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    found = measured(("accuracy", "f1", "matthews_correlation"), predictions, labels)
    assert found["accuracy"] == pytest.approx(3 / 5) and found["f1"] == pytest.approx(2 / 3)
    # true positives 2, true negatives 1, false positives 1, false negatives 1
    assert found["matthews_correlation"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    three = measured(("f1",), np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]))
    assert three["f1"] == pytest.approx(np.mean([1, 2 / 3, 2 / 3]))
    one_class = measured(("f1", "matthews_correlation"), np.zeros(3, int), np.zeros(3, int))
    assert one_class == {"f1": 0.0, "matthews_correlation": 0.0}


def test_numbers():
    predictions, labels = np.array([1.0, 2.0, 4.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0])
    found = measured(("mse", "pearson", "spearmanr"), predictions, labels)
    assert found["mse"] == pytest.approx(1.5) and found["pearson"] == pytest.approx(0.8)
    assert found["spearmanr"] == pytest.approx(0.8)
    assert measured(("pearson", "spearmanr"), np.ones(4), labels) == {"pearson": 0.0, "spearmanr": 0.0}
    assert with_combined_score({"a": 0.5, "b": 1.0})["combined_score"] == 0.75
    assert with_combined_score({"a": 0.5}) == {"a": 0.5}


def test_measures_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"one for each label \(2,\), got shape \(3,\)"):
        measured(("accuracy",), np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="there is no measure 'bleu', known are accuracy"):
        measured(("bleu",), np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="row 0 has 1 for 2"):
        entity_measures([["O"]], [["O", "O"]])
    with pytest.raises(ValueError, match="there is none for 'b'"):
        squad_measures({"a": ""}, {"a": ["x"], "b": ["y"]})
    with pytest.raises(ValueError, match="has no answer: set version_2_with_negative"):
        squad_measures({"a": ""}, {"a": []})


def test_entities_are_whole_or_wrong():
    labels = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "I-ORG"]]  # the second begins with I-, as in CoNLL-2003
    predictions = [["B-PER", "O", "O", "B-LOC"], ["O", "I-ORG"]]
    found = entity_measures(predictions, labels, by_type=True)
    assert found["precision"] == found["recall"] == found["f1"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["PER_f1"] == 0 and found["LOC_f1"] == found["ORG_f1"] == 1 and found["PER_number"] == 1
    nothing = entity_measures([["O"]], [["O"]])
    assert nothing == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0}


def test_answers():
    assert plain_answer(" The  U.S., an ally ") == "us ally"
    assert word_f1("the big red dog", "a red dog") == pytest.approx(2 * 2 / (3 + 2))
    assert word_f1("", "") == 1 and word_f1("dog", "") == 0
    found = squad_measures({1: "Red dog!", 2: "cat"}, {1: ["dog", "the red dog"], 2: ["cats"]})
    assert found == {"exact_match": 50.0, "f1": 50.0}
    second = squad_v2_measures({1: "dog", 2: "", 3: "cat"}, {1: ["dog"], 2: [], 3: []})
    assert second["exact"] == pytest.approx(200 / 3) and second["NoAns_exact"] == 50 and second["HasAns_f1"] == 100
    assert (second["total"], second["HasAns_total"], second["NoAns_total"]) == (3, 1, 2)
