"""The recipes: tiny runs of both tasks, resuming, evaluation, and what they say about bad input."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import tensorflow as tf
from transformers import AutoTokenizer

import tfheads
from tests.fake_hub import fake_hub
from tests.tracked_values import events, read
from tfheads.callbacks import saved_state
from tfheads.callbacks.tensorboard import TensorBoardCallback
from tfheads.callbacks.wandb import RUN_FILE, WandbCallback
from tfheads.data.tokenizer_training import train_byte_level_bpe, train_wordpiece
from tfheads.recipes import best_model, training
from tfheads.recipes.arguments import CausalLanguageModellingArguments, MaskedLanguageModellingArguments
from tfheads.recipes.command_line import parse
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.language_modelling import (
    causal_language_modelling,
    run_causal_language_modelling,
    run_masked_language_modelling,
)
from tfheads.recipes.run_log import RunLog
from tfheads.recipes.training import forget_earlier_run

CONFIGS = Path(__file__).parent.parent / "configs"
# Without dropout, which is half of the operations of a graph for training.
TINY_GPT2 = "n_layer=1,n_embd=16,n_head=2,n_positions=32,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0"
TINY_BERT = "num_hidden_layers=1,hidden_size=16,num_attention_heads=2,intermediate_size=32,max_position_embeddings=32"
TINY_BERT += ",hidden_dropout_prob=0,attention_probs_dropout_prob=0"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A directory with text and tokenizers: train.txt, validation.txt, bpe, wordpiece."""
    directory = tmp_path_factory.mktemp("corpus")
    random = np.random.RandomState(0)
    words = ["the", "a", "cat", "dog", "bird", "sees", "hears", "follows", "small", "large", "red"]
    lines = [" ".join(random.choice(words, 12)) + "\n" for _ in range(120)]
    (directory / "train.txt").write_text("".join(lines[:100]))
    (directory / "validation.txt").write_text("".join(lines[100:]))
    train_byte_level_bpe(lines, 300).save_pretrained(directory / "bpe")
    train_wordpiece(lines, 80).save_pretrained(directory / "wordpiece")
    return directory


def flags(corpus, output, *, masked=False, **changes) -> list[str]:
    """The words of a command line: a quickstart configuration made tiny."""
    values = {
        "config_overrides": TINY_BERT if masked else TINY_GPT2,
        "tokenizer_name": corpus / ("wordpiece" if masked else "bpe"),
        "train_file": corpus / "train.txt",
        "validation_file": corpus / "validation.txt",
        "block_size": 16,
        "output_dir": output,
        "overwrite_output_dir": "false",
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 6,
        "logging_steps": 2,
        "eval_strategy": "no",
        "eval_on_start": "false",
        "jit_compile": "false",  # saves some seconds for each run; one goes through XLA
        **changes,
    }
    config = CONFIGS / ("quickstart_mlm.yaml" if masked else "quickstart_clm.yaml")
    return [str(config), *(f"--{name}={value}" for name, value in values.items())]


def causal(corpus, output, **changes) -> CausalLanguageModellingArguments:
    return parse(CausalLanguageModellingArguments, flags(corpus, output, **changes))


def masked(corpus, output, **changes) -> MaskedLanguageModellingArguments:
    return parse(MaskedLanguageModellingArguments, flags(corpus, output, masked=True, **changes))


def log(output) -> list[dict]:
    return [json.loads(line) for line in (Path(output) / "log_history.jsonl").read_text().splitlines()]


def test_the_causal_recipe_from_text_to_checkpoint(corpus, tmp_path, capsys):
    output = tmp_path / "gpt2"
    arguments = causal(
        corpus, output, max_steps=30, logging_steps=10, eval_strategy="epoch", eval_on_start="true", jit_compile="true"
    )
    results = run_causal_language_modelling(arguments)
    entries = log(output)
    assert entries[0]["step"] == 0 and entries[0]["perplexity"] > 3 * results["perplexity"]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in entries if "loss" in entry] == [10, 20, 30] and losses == sorted(losses)[::-1]
    assert results["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert results["perplexity"] == pytest.approx(math.exp(results["eval_loss"]), rel=1e-5)
    assert json.loads((output / "all_results.json").read_text()) == results
    state = json.loads((output / "trainer_state.json").read_text())
    assert state["global_step"] == state["max_steps"] == 30 and state["log_history"] == entries
    assert "Perplexity" in (output / "README.md").read_text()
    model = tfheads.AutoModelForCausalLM.from_pretrained(output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert model.vocab_size == len(tokenizer) and model.config.eos_token_id == tokenizer.eos_token_id
    assert "perplexity" in capsys.readouterr().out


def test_the_masked_recipe_from_text_to_checkpoint(corpus, tmp_path):
    output = tmp_path / "bert"
    masks = {"whole_word_mask": "true", "line_by_line": "true"}
    changes = {"max_steps": 30, "eval_on_start": "true", **masks}
    results = run_masked_language_modelling(masked(corpus, output, **changes))
    assert results["eval_loss"] < log(output)[0]["eval_loss"] - 0.5
    loaded = {"model_name_or_path": output, "config_overrides": "", "tokenizer_name": output, "do_train": "false"}
    again = run_masked_language_modelling(masked(corpus, tmp_path / "again", **loaded, **masks))
    assert again["eval_loss"] == pytest.approx(results["eval_loss"], rel=1e-6)


def test_evaluation_of_a_checkpoint_counts_every_label(corpus, tmp_path):
    """The last batch is short; the perplexity is over all labels of all rows."""
    output = tmp_path / "model"
    run_causal_language_modelling(causal(corpus, output, do_eval="false"))
    loaded = {"model_name_or_path": output, "config_overrides": "", "do_train": "false"}
    arguments = causal(corpus, tmp_path / "evaluation", **loaded, per_device_eval_batch_size=3)
    run = causal_language_modelling(arguments)
    assert run.evaluation.rows % 3
    results = run.run()
    model = tfheads.AutoModelForCausalLM.from_pretrained(output)
    losses = []
    for batch in run.evaluation.batches:
        for row in batch["input_ids"].numpy():
            logits = model(row[None])["logits"].numpy()[0, :-1].astype("float64")
            shifted = logits - logits.max(-1, keepdims=True)
            log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
            losses.append(-log_probabilities[np.arange(15), row[1:]])
    assert results["eval_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert not (tmp_path / "evaluation" / "config.json").exists()


class Interrupted(Exception):
    """Stands for a process that dies."""


class Dying(RunLog):
    """A log whose process dies after a certain step."""

    after = 5

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if int(self.model.optimizer.iterations) == self.after:
            raise Interrupted


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(corpus, tmp_path, monkeypatch, capsys):
    changes = {"max_steps": 9, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, "logging_steps": 3}
    whole = run_causal_language_modelling(causal(corpus, tmp_path / "whole", **changes))
    with monkeypatch.context() as patch:
        patch.setattr(training, "RunLog", Dying)
        with pytest.raises(Interrupted):
            run_causal_language_modelling(causal(corpus, tmp_path / "parts", **changes))
    assert [path.name for path in saved_state.checkpoints(tmp_path / "parts")] == ["checkpoint-2", "checkpoint-4"]
    parts = run_causal_language_modelling(causal(corpus, tmp_path / "parts", **changes))
    assert "Going on from step 4 of 9" in capsys.readouterr().out
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    assert parts["eval_loss"] == whole["eval_loss"]
    assert parts["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-6)
    # Started once more, the finished run trains nothing and keeps its figures.
    shutil.copy(tmp_path / "parts" / "train_results.json", tmp_path / "before.json")
    assert run_causal_language_modelling(causal(corpus, tmp_path / "parts", **changes))["perplexity"]
    assert (tmp_path / "parts" / "train_results.json").read_text() == (tmp_path / "before.json").read_text()
    # With other rows in an update the data would go on elsewhere; with other devices they can be kept.
    changes["per_device_train_batch_size"] = 4
    with pytest.raises(ValueError, match=r"the rows of an update \(global_train_batch_size\) must be 8 to go on"):
        run_causal_language_modelling(causal(corpus, tmp_path / "parts", **changes))
    assert run_causal_language_modelling(causal(corpus, tmp_path / "parts", global_train_batch_size=8, **changes))


@pytest.mark.slow
def test_accumulation_gives_the_same_run(corpus, tmp_path):
    one = run_causal_language_modelling(causal(corpus, tmp_path / "one"))
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    four = run_causal_language_modelling(causal(corpus, tmp_path / "four", **parts))
    assert four["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    assert four["epoch"] == one["epoch"]


def test_evaluation_within_an_epoch_leaves_the_training_loss_alone(corpus, tmp_path):
    changes = {"logging_steps": 4}
    run_causal_language_modelling(causal(corpus, tmp_path / "plain", **changes))
    run_causal_language_modelling(
        causal(corpus, tmp_path / "steps", eval_strategy="steps", eval_steps=3, report_to="tensorboard", **changes)
    )
    entries = log(tmp_path / "steps")
    assert [entry["step"] for entry in entries if "eval_loss" in entry] == [3, 6]
    assert [entry for entry in entries if "loss" in entry] == log(tmp_path / "plain")
    assert (tmp_path / "steps" / "runs").is_dir()


def test_streaming_and_bfloat16(corpus, tmp_path):
    changes = {"streaming": "true", "validation_split_percentage": 0, "bf16": "true", "steps_per_execution": 2}
    results = run_causal_language_modelling(causal(corpus, tmp_path / "stream", **changes))
    assert math.isfinite(results["train_loss"]) and results["epoch"] == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"block_size": 33}, ValueError, "block_size=33 is beyond .* 32"),
        ({"text_column": "answer"}, KeyError, "answer"),
        ({"train_file": "absent.txt"}, FileNotFoundError, "absent.txt"),
        ({"validation_file": "none", "validation_split_percentage": 0}, ValueError, "there is no validation text"),
        ({"train_file": "none"}, ValueError, "there is no train text: give train_file"),
        ({"per_device_train_batch_size": 500}, ValueError, "is 500 rows, more than the training data"),
        ({"model_type": "gpt3"}, ValueError, "'gpt3' is not supported, the nearest is 'gpt"),
        ({"config_overrides": "n_layers=1"}, ValueError, "nearest is 'n_layer'"),
        ({"config_overrides": TINY_GPT2 + ",vocab_size=50"}, ValueError, "the tokenizer has .* but the model only 50"),
        ({"max_train_samples": 1}, ValueError, "train: the corpus is too short"),
        (
            {"steps_per_execution": 99},
            ValueError,
            r"steps_per_execution must divide the \d+ updates of an epoch, got 99",
        ),
        (
            {"steps_per_execution": 4, "streaming": "true", "validation_split_percentage": 0},
            ValueError,
            "steps_per_execution must divide max_steps=6, got 4",
        ),
    ],
)
def test_bad_input_is_found_before_training(corpus, tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        causal_language_modelling(causal(corpus, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_overwrite_cache_is_of_its_run_alone(corpus, tmp_path):
    during = []

    def prepare(arguments):
        during.append(datasets.is_caching_enabled())
        raise Interrupted

    for overwrite in ("true", "false"):
        with pytest.raises(Interrupted):
            run_on_devices(prepare, causal(corpus, tmp_path, overwrite_cache=overwrite))
        assert datasets.is_caching_enabled()
    assert during == [False, True]


def test_a_corpus_that_is_empty_or_not_utf8(corpus, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="corpus is empty"):
        causal_language_modelling(causal(corpus, tmp_path / "out", train_file=tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        causal_language_modelling(causal(corpus, tmp_path / "out", train_file=tmp_path / "latin.txt"))


def test_a_finished_model_is_not_replaced_unasked(corpus, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="set overwrite_output_dir"):
        causal_language_modelling(causal(corpus, tmp_path))
    assert causal_language_modelling(causal(corpus, tmp_path, overwrite_output_dir="true")).max_steps == 6
    both = {"overwrite_output_dir": "true", "resume_from_checkpoint": tmp_path / "checkpoint-4"}
    with pytest.raises(ValueError, match="checkpoint-4 is in output_dir, from which overwrite_output_dir removes it"):
        causal_language_modelling(causal(corpus, tmp_path, **both))


def test_an_earlier_run_is_forgotten_and_nothing_else(tmp_path, capsys):
    files = {
        "checkpoint-3": ["optimizer.pt"],  # of another program
        "checkpoint-4": [saved_state.RECORD, saved_state.TENSORS, "notes.txt"],
        "checkpoint-5": [saved_state.RECORD, saved_state.TENSORS],
        best_model.DIRECTORY: [best_model.RECORD, "config.json", "model.safetensors"],
        ".": [RUN_FILE, "notes.txt"],
    }
    for directory, names in files.items():
        (tmp_path / directory).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / directory / name).write_text("{}")
    forget_earlier_run(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["checkpoint-3/optimizer.pt", "checkpoint-4/notes.txt", "notes.txt"]
    said = capsys.readouterr().out
    assert "left in" in said and said.endswith("what tfheads did not write: checkpoint-3, checkpoint-4\n")
    assert saved_state.latest(tmp_path) is None


def write_earlier_run(output):
    """What a run has left behind from which another goes on, and a file that is none of its own."""
    for name in ("wandb_run_id", "runs/events.out.tfevents.1.earlier", "runs/notes.txt", "checkpoint-99/earlier"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("earlier")


def test_a_tracked_run_that_is_pushed(corpus, tmp_path, offline_tracking, monkeypatch, caplog):
    """Trackers offline that fail when they end, and a Hub on a local port; no token in anything that is written."""
    output = tmp_path / "pushed"
    write_earlier_run(output)
    newest = []

    def failing(close):
        def close_and_fail(tracker):
            close(tracker)
            newest.append(hub.repositories["tester/tiny"].history()[0].title)
            raise OSError("no answer")

        return close_and_fail

    for tracker in (WandbCallback, TensorBoardCallback):
        monkeypatch.setattr(tracker, "close", failing(tracker.close))
    with fake_hub() as hub:
        tracking = {"report_to": "all", "sample_prompts": "the cat", "save_strategy": "epoch", "num_train_epochs": 1}
        tracking["overwrite_output_dir"] = "true"
        pushing = {
            "push_to_hub": "true",
            "push_to_hub_model_id": "tester/tiny",
            "hub_token": hub.token,
            "max_steps": -1,
        }
        results = run_causal_language_modelling(causal(corpus, output, **tracking, **pushing))
        titles = [commit.title for commit in hub.repositories["tester/tiny"].history()]
        files = hub.files("tester/tiny")
        token = hub.token.encode()
    assert titles[0] == "End of training, with results" and "Training in progress, epoch 1" in titles
    assert newest == [titles[0]] * 2, "the trackers end when nothing can be lost any more"
    failed = "{} failed, training goes on without it: OSError: no answer"
    assert {failed.format("Weights & Biases"), failed.format("TensorBoard")} <= set(caplog.messages)
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "all_results.json"} <= set(files)
    assert not any(name.startswith(("checkpoint-", "wandb", "runs/", "offline-")) for name in files)
    assert f"Perplexity: {results['perplexity']:.6g}" in files["README.md"].decode()
    ids, rows, _ = read(offline_tracking)
    assert set(ids) == {(output / "wandb_run_id").read_text().strip()} != {"earlier"}
    assert rows[-1]["final/perplexity"] == results["perplexity"]
    board = {tag: (step, value) for tag, step, value in events(output / "runs")}
    step, perplexity = board["final/perplexity"]
    assert step == rows[-1]["train/global_step"]
    assert tf.make_ndarray(perplexity.tensor) == np.float32(results["perplexity"])
    assert (output / "runs" / "notes.txt").exists()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(token in path.read_bytes() for path in written)


def test_a_failing_network_loses_nothing(corpus, tmp_path, caplog):
    with fake_hub() as hub:
        hub.fail(1000, status=None)
        pushing = {"push_to_hub": "true", "hub_model_id": "tester/tiny", "hub_strategy": "end"}
        pushing |= {"keep_documents_apart": "true", "do_eval": "false"}
        run_causal_language_modelling(causal(corpus, tmp_path / "out", **pushing))
    assert "the upload to tester/tiny failed" in caplog.text
    assert tfheads.AutoModelForCausalLM.from_pretrained(tmp_path / "out").vocab_size


def test_the_scripts_say_what_is_wrong_in_one_line():
    script = CONFIGS.parent / "training" / "run_mlm.py"
    command = [sys.executable, str(script), "--mlm_probabilty", "0.2"]
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("run_mlm.py: error: flag --mlm_probabilty is not known, the nearest known one is")
    assert ended.stderr.count("\n") == 1
