"""Tracking, offline: the files that W&B and TensorBoard wrote are read back."""

import json
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from tests.fixtures.tiny_tokenizers import byte_level_bpe
from tests.resumed_run import BATCH, blocks, compiled_model
from tfheads.callbacks.evaluation import EvaluationCallback
from tfheads.callbacks.tensorboard import TensorBoardCallback
from tfheads.callbacks.wandb import WandbCallback

BLOCK, HEADER = 32768, 7


def records(path):
    """The records of a W&B run file: LevelDB's log format with a protocol buffer in each record."""
    content, at, whole = path.read_bytes(), HEADER, b""
    assert content[:4] == b":W&B"
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        whole += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # a record in one piece, or the last piece of one
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def read(directory):
    """(ids, history rows, config) of all runs in a directory, oldest first."""
    ids, rows, config = [], [], {}
    for path in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.append(record.run.run_id)
            if kind == "history":
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
            for update in {"run": record.run.config.update, "config": record.config.update}.get(kind, ()):
                config[update.key or "/".join(update.nested_key)] = json.loads(update.value_json)
    return ids, rows, config


@pytest.fixture(autouse=True)
def new_settings():
    """W&B reads the environment once."""
    wandb.teardown()
    yield
    wandb.teardown()


def fit(model, callbacks, epochs=2, initial_epoch=0, **arguments):
    data = blocks().batches(BATCH, epochs=None, seed=1)
    model.fit(
        data,
        steps_per_epoch=6,
        epochs=epochs,
        initial_epoch=initial_epoch,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
        **arguments,
    )
    return model


def test_a_run_with_several_steps_per_execution_that_is_restarted(offline_tracking):
    tokenizer = byte_level_bpe()
    validation = blocks().batches(BATCH, shuffle=False)
    model = compiled_model(steps_per_execution=2, vocab_size=len(tokenizer))

    def callback():
        return WandbCallback(
            "project",
            directory=offline_tracking / "state",
            config={"learning_rate_of_recipe": 3},
            samples_per_step=BATCH,
            tokenizer=tokenizer,
            sample_prompts=["the cat"],
            generate_kwargs={"max_new_tokens": 1, "jit_compile": False},
        )

    fit(model, [callback()], epochs=1, validation_data=validation)
    fit(model, [callback()], epochs=2, initial_epoch=1)
    ids, rows, config = read(offline_tracking)
    assert len(set(ids)) == 1 and wandb.run is None
    assert [row["train/global_step"] for row in rows if "train/loss" in row] == [2, 4, 6, 8, 10, 12]
    training = [row for row in rows if "train/loss" in row]
    rates = [row["train/learning_rate"] for row in training]
    np.testing.assert_allclose(rates, [float(model.optimizer._learning_rate(step)) for step in range(2, 13, 2)])
    assert {"train/perplexity", "train/epoch", "train/tokens_per_second", "train/samples_per_second"} < set(training[1])
    assert [row["train/epoch"] for row in training] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    (evaluated,) = [row for row in rows if "val/loss" in row]
    assert evaluated["train/global_step"] == 6 and evaluated["val/perplexity"] > 1
    assert [row["train/global_step"] for row in rows if any(key.startswith("samples") for key in row)] == [6, 12]
    tables = offline_tracking.glob("wandb/offline-*/files/media/table/samples_*.json")
    samples = sorted(json.loads(path.read_text())["data"][0] for path in tables)
    assert [row[:2] for row in samples] == [[6, "the cat"], [12, "the cat"]]
    assert all(row[2].startswith("the cat") for row in samples)
    assert config["model"]["n_embd"] == 16 and config["model"]["class"] == "GPT2LMHeadModel"
    assert config["training"]["steps_per_execution"] == 2 and config["training"]["weight_decay"] == 0.1
    assert config["learning_rate_of_recipe"] == 3


def test_the_loss_of_an_entry_is_that_of_its_batches(tmp_path):
    class Entries(TensorBoardCallback):
        def write(self, scalars, step):
            entries.setdefault(step, scalars)

    class Running(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            running.append(logs["loss"])

    entries, running = {}, []
    fit(compiled_model(), [Entries(tmp_path), Running()], epochs=1)
    sums = np.array(running) * np.arange(1, 7)  # all batches have as many labels
    logged = [entries[step]["train/loss"] for step in range(1, 7)]
    np.testing.assert_allclose(logged, np.diff(sums, prepend=0), rtol=1e-5)


def test_an_entry_tells_of_both_epochs_that_it_spans(tmp_path):
    class Entries(TensorBoardCallback):
        def write(self, scalars, step):
            if "train/loss" in scalars:
                losses.append(scalars["train/loss"])

    runs = []
    for steps in (1, 4):
        losses = []
        fit(compiled_model(), [Entries(tmp_path, logging_steps=steps)], validation_data=blocks().batches(BATCH))
        runs.append(losses)
    every, some = runs
    np.testing.assert_allclose(some, np.reshape(every, (3, 4)).mean(1), rtol=1e-5)


def test_disabled(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    fit(compiled_model(), [WandbCallback("project")], epochs=1)
    assert not list(tmp_path.iterdir()) and "goes on" not in caplog.text and wandb.run is None


def test_a_broken_tracker_is_said_once(monkeypatch, caplog):
    def broken(**arguments):
        raise wandb.errors.CommError("the server\ndoes not answer")

    monkeypatch.setattr(wandb, "init", broken)
    model = fit(compiled_model(), [WandbCallback("project")])
    assert int(model.optimizer.iterations) == 12
    assert [record.getMessage() for record in caplog.records] == [
        "Weights & Biases failed, training goes on without it: CommError: the server does not answer"
    ]


def events(directory):
    found = []
    for path in sorted(map(str, directory.glob("events.*"))):
        for raw in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(raw.numpy())
            found += [(value.tag, event.step, value) for value in event.summary.value]
    return found


def test_tensorboard_and_evaluation_inside_an_epoch(tmp_path):
    def history(callbacks):
        return fit(compiled_model(), callbacks).history.history["loss"]

    board = TensorBoardCallback(tmp_path, logging_steps=4)
    evaluation = EvaluationCallback(blocks().batches(BATCH, shuffle=False), 5, on_start=True, trackers=[board])
    assert history([board, evaluation]) == history([])
    assert [found["step"] for found in evaluation.results] == [0, 5, 10]
    found = events(tmp_path)
    assert [step for tag, step, _ in found if tag == "train/loss"] == [4, 8, 12]
    assert [step for tag, step, _ in found if tag == "val/loss"] == [0, 5, 10]
    assert [step for tag, step, _ in found if tag == "epoch/loss"] == [6, 12]
    values = [float(tf.make_ndarray(value.tensor)) for tag, _, value in found if tag == "val/loss"]
    np.testing.assert_allclose(values, [result["val_loss"] for result in evaluation.results])


def test_bad_arguments():
    with pytest.raises(ValueError, match="logging_steps must be at least 1, got 0"):
        WandbCallback("project", logging_steps=0)
    with pytest.raises(ValueError, match="tokenizer must be given with sample_prompts"):
        WandbCallback("project", sample_prompts=["a"])
    with pytest.raises(ValueError, match="eval_steps must be at least 1, got 0"):
        EvaluationCallback(None, 0)
