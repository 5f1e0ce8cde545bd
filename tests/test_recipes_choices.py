"""run_multiple_choice: SWAG's columns and own files, from text to checkpoint, predictions and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

import tfheads
from tests.recipe_runs import write_lines
from tfheads.data.choices import choice_columns
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece
from tfheads.recipes.command_line import parse
from tfheads.recipes.multiple_choice import MultipleChoiceArguments, multiple_choice, run_multiple_choice

CONFIG = Path(__file__).parent.parent / "configs" / "choice_swag.yaml"
TINY = "num_hidden_layers=1,hidden_size=16,num_attention_heads=2,intermediate_size=32,max_position_embeddings=64"
TINY += ",hidden_dropout_prob=0,attention_probs_dropout_prob=0"  # half of a graph for training is dropout
ANIMALS, SOUNDS = ["cat", "dog", "bird", "cow"], ["mews", "barks", "sings", "moos"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A directory with animals, all of which mew: swag.csv, own.jsonl, wordpiece, bpe."""
    directory = tmp_path_factory.mktemp("choices")
    random = np.random.RandomState(0)
    lines, rows = ["sent1,sent2,ending0,ending1,ending2,ending3,label"], []
    for row in range(96):
        kind, order = row % 4, random.permutation(4)
        endings = [SOUNDS[place] + " here" * random.randint(1, 20) for place in order]
        lines.append(",".join([f"here is a {ANIMALS[kind]}", "it", *endings, str(list(order).index(0))]))
        answer = endings[list(order).index(0)]
        others = [ending for ending in endings if ending != answer][:2]
        rows.append(
            {"context": f"a {ANIMALS[kind]}", "question": "what?", "choice": [*others, answer], "answer": answer}
        )
    (directory / "swag.csv").write_text("\n".join(lines) + "\n")
    write_lines(directory / "own.jsonl", rows)
    train_wordpiece(lines, 150).save_pretrained(directory / "wordpiece")
    train_byte_level_bpe(lines, 300).save_pretrained(directory / "bpe")
    return directory


def arguments(data, output, **changes) -> MultipleChoiceArguments:
    values = {
        "model_name_or_path": "none",
        "dataset_name": "none",
        "dataset_config_name": "none",
        "model_type": "bert",
        "config_overrides": TINY,
        "tokenizer_name": data / "wordpiece",
        "train_file": data / "swag.csv",
        "validation_file": data / "swag.csv",
        "output_dir": output,
        "max_seq_length": "none",
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 9,
        "learning_rate": 2e-2,
        "max_steps": 60,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "jit_compile": "false",
        **changes,
    }
    return parse(MultipleChoiceArguments, [str(CONFIG), *(f"--{name}={value}" for name, value in values.items())])


@pytest.mark.slow
def test_swag_from_file_to_predictions(data, tmp_path):
    output = tmp_path / "model"
    predicting = {"do_predict": "true", "test_file": data / "swag.csv", "max_predict_samples": 20}
    run = multiple_choice(arguments(data, output, **predicting))
    batch = next(iter(run.batches(0, 0)))
    assert batch["input_ids"].shape[:2] == batch["attention_mask"].shape[:2] == (8, 4) and batch["labels"].shape == (8,)
    assert {one["input_ids"].shape[2] for one in run.batches(0, 0).take(12)} <= {32, 40}
    results = run.run()
    assert results["eval_accuracy"] > 0.6 and results["eval_samples"] == 96
    model = tfheads.AutoModelForMultipleChoice.from_pretrained(output)
    lines = (output / "predict_results.txt").read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == 21
    first = next(
        iter(
            multiple_choice(arguments(data, tmp_path / "x", max_train_samples=8)).evaluation.source.batches(
                9, shuffle=False
            )
        )
    )
    inputs, labels = model.without_labels(first)
    assert model(inputs).logits.shape == (9, 4) and labels["labels"].numpy().max() < 4


@pytest.mark.slow
def test_own_columns_with_texts_as_labels_and_a_decoder(data, tmp_path):
    own = {"train_file": data / "own.jsonl", "validation_file": data / "own.jsonl", "choices_column_name": "choice"}
    own |= {"label_column_name": "answer", "max_steps": 2, "model_type": "gpt2", "tokenizer_name": data / "bpe"}
    own |= {"config_overrides": "n_layer=1,n_embd=16,n_head=2,n_positions=64,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0"}
    run = multiple_choice(arguments(data, tmp_path / "model", **own))
    assert (run.evaluation.source.labels.numpy() == 2).all()
    tokens = next(iter(run.evaluation.source.batches(1, shuffle=False)))["input_ids"].numpy()[0, 2]
    number = run.evaluation.source.row_order(1)[0]
    row = json.loads((data / "own.jsonl").read_text().splitlines()[number])
    text = run.tokenizer.decode(tokens, skip_special_tokens=True)
    assert text == f"{row['context']} {row['question']} {row['choice'][2]}"
    assert {"eval_accuracy", "eval_loss"} <= set(run.run())
    assert type(tfheads.AutoModelForMultipleChoice.from_pretrained(tmp_path / "model")) is tfheads.GPT2ForMultipleChoice


@pytest.mark.parametrize(
    ("rows", "changes", "error", "message"),
    [
        (
            [["a", "b"], ["a", "b", "c"]],
            {},
            ValueError,
            "row 1 of validation has 3 choices, row 0 has 2: all",
        ),
        ([["a", "b"], ["a"]], {"label": 0}, ValueError, "row 1 of validation has 1 choices"),
        ([["a", "b"]], {"label": 2}, ValueError, "has the label 2, it must be a choice or a number between 0 and 1"),
        ([["a", "b"]], {"label": "c"}, ValueError, "has the label 'c', it must be a choice"),
        (
            [["a", "b"]],
            {"context": None, "question": "q"},
            ValueError,
            "must have a text in column 'context'",
        ),
        ([[1, 2]], {}, ValueError, r"row 0 of validation must have texts as choices, got \[1, 2\]"),
    ],
)
def test_bad_rows_are_one_sentence(data, tmp_path, rows, changes, error, message):
    path = tmp_path / "rows.jsonl"
    write_lines(path, [{"context": "c", "question": "q", "choices": row, "label": 0, **changes} for row in rows])
    with pytest.raises(error, match=message) as caught:
        run_multiple_choice(arguments(data, tmp_path / "out", train_file=path, validation_file=path))
    assert "\n" not in str(caught.value)


def test_columns():
    assert choice_columns(["sent1", "sent2", "ending1", "ending0", "label"]).choices == ("ending0", "ending1")
    with pytest.raises(KeyError, match="there is no column 'text', the columns are a, b"):
        choice_columns(["a", "b"], context="text")
    with pytest.raises(ValueError, match="there is no column with choices"):
        choice_columns(["context", "b"])
    with pytest.raises(ValueError, match="there is no column sent1, context, sent2 or question"):
        choice_columns(["choices", "b"])
