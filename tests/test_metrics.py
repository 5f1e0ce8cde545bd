"""Measures of tasks: values worked out by hand, odd input, and what errors say."""

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from tfheads.metrics.bleu import bleu_measures
from tfheads.metrics.classification import measured, with_combined_score
from tfheads.metrics.question_answering import plain_answer, squad_measures, squad_v2_measures, word_f1
from tfheads.metrics.rouge import check_references, rouge_measures, sentences
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


def test_summaries():
    found = rouge_measures(["The cats sat."], ["the cat sat down"])
    # 3 of 3 words and 3 of 4, their endings left out; 2 of 2 and 2 of 3 pairs
    assert found["rouge1"] == found["rougeL"] == pytest.approx(100 * 6 / 7)
    assert found["rouge2"] == pytest.approx(100 * 4 / 5)
    turned = rouge_measures(["He left. Dr. Smith came.", "a"], ["Dr. Smith came. He left.", "b"])
    assert turned["rouge1"] == turned["rougeLsum"] == 50 and turned["rougeL"] == pytest.approx(100 * 3 / 5 / 2)
    assert sentences("Dr. Smith came at 3.30 p.m. today. He left! Did he?") == [
        "Dr. Smith came at 3.30 p.m. today.",
        "He left!",
        "Did he?",
    ]
    whole = rouge_measures(["A b. C d."], ["C d. A b."], split_sentences=lambda text: [text])
    assert whole["rougeLsum"] == whole["rougeL"] == 50
    # As rouge-score has it by itself, where every sentence is a line.
    pairs = [("one two. three four", "three four. one two five"), ("six", "six seven. eight")]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    scores = [scorer.score(right.replace(". ", ".\n"), text.replace(". ", ".\n")) for text, right in pairs]
    found = rouge_measures(
        *zip(*pairs, strict=True), split_sentences=lambda text: text.replace(". ", ".\n").split("\n")
    )
    for name in scores[0]:
        assert found[name] == pytest.approx(100 * np.mean([score[name].fmeasure for score in scores]))
    check_references(["猫", "x"])
    with pytest.raises(ValueError, match="targets must have words of Latin letters or digits"):
        check_references(["猫が寝る。"])
    with pytest.raises(ValueError, match="a prediction for each reference, got 1 for 2"):
        rouge_measures(["a"], ["a", "b"])


def test_translations():
    right = ["Der Hund singt laut dort.", "Ein kleiner roter Vogel schläft nicht."]
    assert bleu_measures(right, right)["bleu"] == pytest.approx(100)
    written = [" Der Hund singt sehr laut dort.", "Ein roter Vogel schläft nicht. "]
    # sequences of 1 to 4 words that are right, the full stop being a word; as long as the right texts
    by_hand = 100 * (12 / 13 * 8 / 11 * 5 / 9 * 2 / 7) ** 0.25
    words = bleu_measures(written, right)["bleu"]
    assert words == pytest.approx(sacrebleu.corpus_bleu([text.strip() for text in written], [right]).score)
    assert words == pytest.approx(by_hand)
    assert bleu_measures(["猫在睡觉"], ["猫在睡觉"], tokenizer="zh")["bleu"] == pytest.approx(100)
    with pytest.raises(ValueError, match="tokenizer must be one of 13a, .*, got 'moses'"):
        bleu_measures(right, right, tokenizer="moses")
    with pytest.raises(ValueError, match="a prediction for each reference, got 0 for 0"):
        bleu_measures([], [])
