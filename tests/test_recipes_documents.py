"""run_document_classification: texts of several windows, from files to checkpoint and predictions."""

from pathlib import Path

import numpy as np
import pytest

import tfheads
from tfheads.data.tokenizer_training import train_byte_level_bpe
from tfheads.recipes.command_line import parse
from tfheads.recipes.document_classification import (
    DocumentClassificationArguments,
    document_classification,
    run_document_classification,
)

CONFIG = Path(__file__).parent.parent / "configs" / "document_imdb.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with long texts: train.tsv, bpe."""
    directory = tmp_path_factory.mktemp("long")
    random = np.random.RandomState(0)
    others, lines = ["film", "story", "actor", "scene", "the", "a", "very"], ["text\tlabel"]
    for row in range(48):
        words = [*random.choice(others, random.randint(5, 60)), *["lovely" if row % 2 else "awful"] * 8]
        lines.append(" ".join(random.permutation(words)) + "\t" + ("good" if row % 2 else "bad"))
    (directory / "train.tsv").write_text("\n".join(lines) + "\n")
    train_byte_level_bpe(lines, 320).save_pretrained(directory / "bpe")
    return directory


def arguments(data, output, **changes) -> DocumentClassificationArguments:
    values = {
        "model_name_or_path": "none",
        "dataset_name": "none",
        "model_type": "gpt2",
        "config_overrides": "n_layer=1,n_embd=16,n_head=2,n_positions=32,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0",
        "tokenizer_name": data / "bpe",
        "train_file": data / "train.tsv",
        "validation_file": data / "train.tsv",
        "do_eval": "true",
        "output_dir": output,
        "window_length": 24,
        "window_stride": 16,
        "bucket_lengths": "64",
        "gradient_accumulation_steps": 1,
        "learning_rate": 2e-2,
        "max_steps": 30,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": "false",
        "jit_compile": "false",
        **changes,
    }
    return parse(
        DocumentClassificationArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())]
    )


@pytest.mark.slow
def test_long_texts_from_files_to_predictions(data, tmp_path):
    output = tmp_path / "model"
    predicting = {"do_predict": "true", "test_file": data / "train.tsv", "max_predict_samples": 5}
    run = document_classification(arguments(data, output, **predicting, jit_compile="true"))
    assert max(batch["input_ids"].shape[1] for batch in run.batches(0, 0).take(6)) > 64
    results = run.run()
    assert results["eval_accuracy"] > 0.8
    model = tfheads.AutoModelForDocumentClassification.from_pretrained(output)
    assert (model.window_length, model.window_stride, model.window_budget) == (24, 16, 8)
    assert model.config.id2label == {0: "bad", 1: "good"} and model.config.window_pooling == "mean"
    assert len((output / "predict_results_text.txt").read_text().splitlines()) == 6
    saved = {"model_name_or_path": output, "tokenizer_name": output, "config_overrides": "", "do_train": "false"}
    again = run_document_classification(arguments(data, tmp_path / "again", **saved, window_budget=3))
    assert again["eval_loss"] == pytest.approx(results["eval_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_pooling": "sum"}, "window_pooling must be one of mean, max, attention, got 'sum'"),
        ({"window_length": 33}, "window_length must be a whole number between 1 and 32, got 33"),
        ({"pad_to_max_length": "true"}, "pad_to_max_length needs max_seq_length, documents have no other limit"),
        ({"max_windows": 2}, "documents must have at most max_windows=2 windows of 24 tokens, got "),
    ],
)
def test_bad_input_is_one_sentence(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        run_document_classification(arguments(data, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value)
