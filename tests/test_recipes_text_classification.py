"""run_glue: tasks of GLUE and own files, from text to checkpoint, predictions and bad input."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

import tfheads
from tfheads.data.tokenizer_training import train_wordpiece
from tfheads.metrics.glue import TASKS
from tfheads.recipes.arguments import TextClassificationArguments
from tfheads.recipes.command_line import parse
from tfheads.recipes.text_classification import run_text_classification, text_classification

CONFIG = Path(__file__).parent.parent / "configs" / "glue_sst2.yaml"
TINY = "num_hidden_layers=1,hidden_size=16,num_attention_heads=2,intermediate_size=32,max_position_embeddings=64"
GOOD, BAD = ["lovely", "moving", "bright"], ["dull", "awful", "tired"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with sentences of praise and blame: train.tsv, dev.tsv, pairs.jsonl, wordpiece."""
    directory = tmp_path_factory.mktemp("sentences")
    random = np.random.RandomState(0)
    others = ["film", "story", "actor", "scene", "the", "a", "very"]

    def sentence(label):
        words = [*random.choice(others, random.randint(2, 40)), random.choice(GOOD if label else BAD)]
        return " ".join(random.permutation(words))

    def table(rows):
        return "sentence\tlabel\n" + "".join(f"{sentence(row % 2)}\t{row % 2}\n" for row in range(rows))

    (directory / "train.tsv").write_text(table(240))
    (directory / "dev.tsv").write_text(table(30))
    pairs = [{"sentence1": sentence(0), "sentence2": sentence(1), "score": row / 3} for row in range(16)]
    (directory / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    train_wordpiece([" ".join(GOOD + BAD + others)] * 3, 120).save_pretrained(directory / "wordpiece")
    return directory


def arguments(data, output, **changes) -> TextClassificationArguments:
    values = {
        "model_name_or_path": "none",
        "model_type": "bert",
        "config_overrides": TINY,
        "tokenizer_name": data / "wordpiece",
        "train_file": data / "train.tsv",
        "validation_file": data / "dev.tsv",
        "output_dir": output,
        "max_seq_length": "none",
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 60,
        "warmup_ratio": 0,
        "weight_decay": 0,
        "eval_strategy": "steps",
        "eval_steps": 20,
        "save_strategy": "no",
        "report_to": "none",
        "jit_compile": "false",
        **changes,
    }
    return parse(TextClassificationArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())])


def test_sst2_from_files_to_predictions(data, tmp_path):
    output = tmp_path / "model"
    predicting = {"do_predict": "true", "test_file": data / "dev.tsv", "max_predict_samples": 9, "bucket_lengths": 32}
    run = text_classification(arguments(data, output, **predicting))
    lengths = {batch["input_ids"].shape[1] for batch in run.batches(0, 0).take(60)}
    assert lengths == {32, 48} and run.updates_per_epoch == 30
    results = run.run()
    assert results["eval_accuracy"] > 0.9 and results["eval_samples"] == 30
    log = [json.loads(line) for line in (output / "log_history.jsonl").read_text().splitlines()]
    evaluations = {entry["step"]: entry["eval_accuracy"] for entry in log if "eval_loss" in entry}
    assert list(evaluations) == [20, 40, 60] and results["eval_accuracy"] == max(evaluations.values())
    assert "Accuracy: " in (output / "README.md").read_text()
    model = tfheads.AutoModelForSequenceClassification.from_pretrained(output)
    assert model.config.id2label == {0: "negative", 1: "positive"} and model.config.label2id["positive"] == 1
    lines = (output / "predict_results_sst2.txt").read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == 10
    right = [line.endswith("positive") == bool(row % 2) for row, line in enumerate(lines[1:])]
    assert np.mean(right) > 0.7
    # The saved model evaluates to the same, row by row and whatever its batches are.
    saved = {"model_name_or_path": output, "config_overrides": "", "do_train": "false", "tokenizer_name": output}
    saved |= {"load_best_model_at_end": "false", "metric_for_best_model": "none", "eval_strategy": "no"}
    again = run_text_classification(arguments(data, tmp_path / "again", **saved, per_device_eval_batch_size=7))
    assert again["eval_accuracy"] == results["eval_accuracy"]
    assert again["eval_loss"] == pytest.approx(results["eval_loss"], rel=1e-5)


def test_own_pairs_with_numbers_are_a_regression(data, tmp_path):
    changes = {
        "task_name": "none",
        "label_column_name": "score",
        "train_file": data / "pairs.jsonl",
        "validation_file": data / "pairs.jsonl",
        "max_steps": 2,
        "eval_strategy": "epoch",
        "metric_for_best_model": "eval_mse",
    }
    results = run_text_classification(arguments(data, tmp_path / "model", **changes))
    assert {"eval_mse", "eval_pearson", "eval_spearmanr", "eval_combined_score"} <= set(results)
    assert results["eval_mse"] == pytest.approx(results["eval_loss"], rel=1e-4)
    config = tfheads.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config
    assert config.num_labels == 1 and config.problem_type == "regression"


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_keeps_the_best(data, tmp_path):
    changes = {"max_steps": 8, "eval_steps": 2, "save_strategy": "steps", "save_steps": 4}
    whole = run_text_classification(arguments(data, tmp_path / "whole", **changes))
    run_text_classification(arguments(data, tmp_path / "parts", **{**changes, "num_train_epochs": 1, "max_steps": 8}))
    again = run_text_classification(arguments(data, tmp_path / "parts", **changes))
    assert again["eval_accuracy"] == whole["eval_accuracy"] and "train_loss" not in again


def test_the_tasks_of_glue_have_classes_and_measures():
    assert set(TASKS) == {"cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"}
    assert TASKS["stsb"].labels == () and TASKS["mnli"].parts == (("_matched", ""), ("_mismatched", "_mm"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task_name": "sst"}, ValueError, "task_name 'sst' is not known, the nearest is 'sst2'"),
        ({"metric_name": "pearson"}, ValueError, "'pearson' measures numbers, but the labels are classes"),
        ({"sentence1_column_name": "text"}, KeyError, "there is no column 'text', the columns are sentence, label"),
        ({"label_column_name": "class", "task_name": "none"}, KeyError, "no column 'class' with labels"),
        ({"max_seq_length": 65}, ValueError, "block_size=65 is beyond the model's position limit of 64"),
        ({"validation_file": "none", "train_file": "none"}, ValueError, "there is no train data: give train_file"),
        ({"do_predict": "true"}, ValueError, "do_predict needs data: give test_file"),
        ({"metric_for_best_model": "f2"}, KeyError, "metric_for_best_model must be one of loss, accuracy, got 'f2'"),
    ],
)
def test_bad_input_is_one_sentence(data, tmp_path, changes, error, message):
    if "train_file" in changes:
        changes["test_file"] = data / "dev.tsv"
    with pytest.raises(error, match=message) as caught:
        run_text_classification(arguments(data, tmp_path / "out", **{"max_steps": 1, "eval_steps": 1, **changes}))
    assert "\n" not in str(caught.value)


def test_labels_that_do_not_fit(data, tmp_path):
    rows = [{"sentence": "a film", "label": label} for label in ("good", "good", "bad")]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "dev.jsonl").write_text(json.dumps({"sentence": "a film", "label": "fair"}) + "\n")
    own = {"task_name": "none", "train_file": tmp_path / "train.jsonl", "validation_file": tmp_path / "dev.jsonl"}
    with pytest.raises(ValueError, match="row 0 of validation has the label 'fair', known are bad, good"):
        text_classification(arguments(data, tmp_path / "out", **own))
    (tmp_path / "dev.jsonl").write_text(json.dumps({"sentence": None, "label": "good"}) + "\n")
    with pytest.raises(ValueError, match="column 'sentence' must hold text"):
        text_classification(arguments(data, tmp_path / "out", **own))


@pytest.mark.slow
def test_mnli_from_the_hub_has_two_validation_splits(data, tmp_path, monkeypatch):
    names = ["entailment", "neutral", "contradiction"]
    features = {name: datasets.Value("string") for name in ("premise", "hypothesis")}
    features = datasets.Features({**features, "label": datasets.ClassLabel(names=names)})

    def rows(count, label=None):
        labels = [row % 3 if label is None else label for row in range(count)]
        texts = ["a film" if row % 2 else "a dull story" for row in range(count)]
        columns = {"premise": texts, "hypothesis": texts[::-1], "label": labels}
        return datasets.Dataset.from_dict(columns, features=features)

    sizes = {"train": 24, "validation_matched": 6, "validation_mismatched": 9}
    found = {split: rows(count) for split, count in sizes.items()}
    found |= {split: rows(4, label=-1) for split in ("test_matched", "test_mismatched")}
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: asked.append(names) or found)
    output = tmp_path / "model"
    files = {"train_file": "none", "validation_file": "none", "task_name": "MNLI", "do_predict": "true"}
    results = run_text_classification(
        arguments(data, output, **files, max_steps=2, eval_strategy="epoch", bucket_lengths=48)
    )
    assert asked == [("nyu-mll/glue", "mnli")] and results["eval_samples"] == 15
    assert {"eval_accuracy", "eval_accuracy_mm", "eval_loss", "eval_loss_mm"} <= set(results)
    for part in ("matched", "mismatched"):
        lines = (output / f"predict_results_mnli_{part}.txt").read_text().splitlines()
        assert len(lines) == 5 and lines[1].split("\t")[1] in names
