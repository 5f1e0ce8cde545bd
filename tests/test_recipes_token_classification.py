"""run_ner: words with labels from files of CoNLL and of JSON, to checkpoint and predictions; bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

import tfheads
from tfheads.data.conll_files import read_conll
from tfheads.data.tokenizer_training import train_wordpiece
from tfheads.recipes.arguments import TokenClassificationArguments
from tfheads.recipes.command_line import parse
from tfheads.recipes.token_classification import run_token_classification, token_classification

CONFIG = Path(__file__).parent.parent / "configs" / "ner_conll2003.yaml"
TINY = "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=32,max_position_embeddings=64"
TINY += ",hidden_dropout_prob=0,attention_probs_dropout_prob=0"  # half of a graph for training is dropout
PEOPLE, PLACES = ["anna", "otto"], ["paris", "york"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with sentences about people and places: train.conll, dev.jsonl, wordpiece."""
    directory = tmp_path_factory.mktemp("words")
    random = np.random.RandomState(0)
    others = ["sees", "hears", "the", "unpronounceable", "train", "to"]

    def sentence():
        words, tags = [], []
        for _ in range(random.randint(2, 7)):
            kind = random.choice(["O", "O", "PER", "LOC"])
            words.append(random.choice({"O": others, "PER": PEOPLE, "LOC": PLACES}[kind]))
            tags.append(kind if kind == "O" else f"B-{kind}")
            if kind == "PER" and random.rand() < 0.5:
                words.append("smith")
                tags.append("I-PER")
        return words, tags

    train = ["-DOCSTART- -X- O", ""]
    for words, tags in (sentence() for _ in range(120)):
        train += [f"{word} X {tag}" for word, tag in zip(words, tags, strict=True)] + [""]
    (directory / "train.conll").write_text("\n".join(train))
    dev = [dict(zip(("tokens", "ner_tags"), sentence(), strict=True)) for _ in range(20)]
    (directory / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dev))
    known = [*others[:3], *others[4:], *PEOPLE, *PLACES, "smith"]
    # Letters alone, so that a word that is not known falls into pieces.
    letters = " ".join(f"{letter} z{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
    train_wordpiece([" ".join(known)] * 3 + [letters], 140).save_pretrained(directory / "wordpiece")
    return directory


def arguments(data, output, **changes) -> TokenClassificationArguments:
    values = {
        "model_name_or_path": "none",
        "dataset_name": "none",
        "model_type": "bert",
        "config_overrides": TINY,
        "tokenizer_name": data / "wordpiece",
        "train_file": data / "train.conll",
        "output_dir": output,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 1e-2,
        "num_train_epochs": 4,
        "warmup_ratio": 0,
        "save_strategy": "no",
        "report_to": "none",
        "jit_compile": "false",
        "label_column_name": "tags",
        "validation_file": data / "train.conll",
        **changes,
    }
    return parse(TokenClassificationArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())])


def test_names_from_conll_files_to_predictions(data, tmp_path):
    output = tmp_path / "model"
    run = token_classification(arguments(data, output, max_eval_samples=30))
    assert len(run.tokenizer.tokenize("unpronounceable")) > 3
    batch = next(iter(run.batches(0, 0)))
    real = batch["labels"].numpy() != -100
    assert real.sum() < batch["attention_mask"].numpy().sum() - 2 * 8  # pieces and special tokens do not count
    results = run.run()
    assert results["eval_f1"] > 0.9 and {"eval_precision", "eval_recall", "eval_accuracy"} <= set(results)
    config = tfheads.AutoModelForTokenClassification.from_pretrained(output).config
    assert [config.id2label[number] for number in range(4)] == ["O", "B-LOC", "B-PER", "I-PER"]
    # On other files, the labels in a list of names; predictions are one label for each word.
    saved = {"model_name_or_path": output, "config_overrides": "", "tokenizer_name": output, "do_train": "false"}
    saved |= {"load_best_model_at_end": "false", "metric_for_best_model": "none", "eval_strategy": "no"}
    files = {"train_file": "none", "validation_file": data / "dev.jsonl", "label_column_name": "ner_tags"}
    predicting = {"do_predict": "true", "test_file": data / "dev.jsonl", "return_entity_level_metrics": "true"}
    again = run_token_classification(arguments(data, tmp_path / "again", **saved, **files, **predicting))
    assert again["eval_f1"] > 0.8 and again["eval_PER_number"] > 0
    rows = [json.loads(line) for line in (data / "dev.jsonl").read_text().splitlines()]
    lines = [line.split() for line in (tmp_path / "again" / "predictions.txt").read_text().splitlines()]
    assert [len(line) for line in lines] == [len(row["tokens"]) for row in rows]
    right = [a == b for line, row in zip(lines, rows, strict=True) for a, b in zip(line, row["ner_tags"], strict=True)]
    assert np.mean(right) == pytest.approx(again["eval_accuracy"])


def test_all_pieces_are_learned_if_wanted(data, tmp_path):
    run = token_classification(arguments(data, tmp_path / "model", label_all_tokens="true"))
    batch = next(iter(run.batches(0, 0)))
    assert (batch["labels"].numpy() != -100).sum() == batch["attention_mask"].numpy().sum() - 2 * 8


def test_bad_input_is_one_sentence(data, tmp_path):
    with pytest.raises(KeyError, match="there is no column 'ner', the columns are tokens, tags"):
        token_classification(arguments(data, tmp_path / "out", label_column_name="ner"))
    (tmp_path / "dev.jsonl").write_text(json.dumps({"tokens": ["a", "b"], "tags": ["O", "B-ORG"]}) + "\n")
    with pytest.raises(ValueError, match="labels of the model, O, B-LOC, B-PER, I-PER, got 'B-ORG'"):
        token_classification(arguments(data, tmp_path / "out", validation_file=tmp_path / "dev.jsonl"))
    (tmp_path / "text.jsonl").write_text(json.dumps({"tokens": "a b", "tags": ["O", "O"]}) + "\n")
    with pytest.raises(ValueError, match="column 'tokens' must hold a list for each row"):
        token_classification(arguments(data, tmp_path / "out", train_file=tmp_path / "text.jsonl"))
    (tmp_path / "short.conll").write_text("word\n")
    with pytest.raises(ValueError, match="line 1 of .*short.conll must hold a word and its label, got 'word'"):
        read_conll(tmp_path / "short.conll")
