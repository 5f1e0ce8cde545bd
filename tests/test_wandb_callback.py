"""Tracking, offline: the files that W&B and TensorBoard wrote are read back."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import transformers
import wandb

import tfheads
from tests.fixtures.tiny_tokenizers import byte_level_bpe, wordpiece
from tests.resumed_run import BATCH, blocks, compiled_model
from tests.tracked_values import events, read
from tfheads.callbacks import progress_log
from tfheads.callbacks.evaluation import EvaluationCallback
from tfheads.callbacks.tensorboard import TensorBoardCallback
from tfheads.callbacks.wandb import WandbCallback


@pytest.fixture(autouse=True)
def new_settings():
    """W&B reads the environment once."""
    wandb.teardown()
    yield
    wandb.finish()
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


class Clock(keras.callbacks.Callback):
    """Instead of the module `time`: three executions with 7 seconds behind each; the callbacks before it see them."""

    def __init__(self):
        super().__init__()
        self.now, self.seconds = 0, itertools.cycle([100, 2, 4])

    def perf_counter(self):
        return self.now

    def on_train_batch_begin(self, batch, logs=None):
        self.now += next(self.seconds)

    def on_train_batch_end(self, batch, logs=None):
        self.now += 7


def test_a_run_with_several_steps_per_execution_that_is_restarted(offline_tracking, monkeypatch):
    init, given = wandb.init, []
    monkeypatch.setattr(wandb, "init", lambda **arguments: given.append(arguments) or init(**arguments))
    clock = Clock()
    monkeypatch.setattr(progress_log, "time", clock)
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

    fit(model, [callback(), clock], epochs=1, validation_data=validation)
    fit(model, [callback(), clock], epochs=2, initial_epoch=1)
    ids, rows, config = read(offline_tracking)
    assert len(set(ids)) == 1 and wandb.run is None
    assert [(start.get("id"), start.get("resume")) for start in given] == [(None, None), (ids[0], "allow")]
    assert [row["train/global_step"] for row in rows if "train/loss" in row] == [2, 4, 6, 8, 10, 12]
    training = [row for row in rows if "train/loss" in row]
    rates = [row["train/learning_rate"] for row in training]
    np.testing.assert_allclose(rates, [float(model.optimizer._learning_rate(step)) for step in range(2, 13, 2)])
    for name, in_a_step in {"steps": 1, "samples": BATCH, "tokens": BATCH * 7}.items():  # 8 tokens have 7 labels
        assert [row.get(f"train/{name}_per_second") for row in training] == [None, in_a_step, in_a_step / 2] * 2
    perplexities = [row["train/perplexity"] for row in training]
    np.testing.assert_allclose(perplexities, np.exp([row["train/loss"] for row in training]))
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


def test_a_run_of_the_program_itself_is_left_open():
    own = wandb.init(mode="disabled")
    callback = WandbCallback("project")
    callback.set_model(compiled_model())
    callback.on_train_begin()
    assert callback.run is own
    callback.on_train_end()
    assert wandb.run is own
    callback.on_train_begin()
    callback.close()
    assert wandb.run is own


def test_a_broken_tracker_is_said_once(monkeypatch, caplog):
    def broken(**arguments):
        raise wandb.errors.CommError("the server\ndoes not answer")

    monkeypatch.setattr(wandb, "init", broken)
    model = fit(compiled_model(), [WandbCallback("project")])
    assert int(model.optimizer.iterations) == 12
    assert [record.getMessage() for record in caplog.records] == [
        "Weights & Biases failed, training goes on without it: CommError: the server does not answer"
    ]


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


def test_filled_masks_in_tensorboard(tmp_path):
    tokenizer = wordpiece()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=8, **sizes)
    model = tfheads.BertForMaskedLM.from_config(config, seed=0)
    model.compile(keras.optimizers.SGD(), jit_compile=False)
    always_cat = np.eye(len(tokenizer))[tokenizer.convert_tokens_to_ids("cat")] * 1e3
    next(weight for weight in model.weights if weight.shape == always_cat.shape).assign(always_cat)
    prompts = ["the [MASK] sat", "a dog ran"]
    board = TensorBoardCallback(tmp_path, tokenizer=tokenizer, sample_prompts=prompts)
    board.set_model(model)
    board.on_train_begin()
    board.on_epoch_end(0)
    board.on_train_end()
    ((step, value),) = [(step, value) for tag, step, value in events(tmp_path) if tag == "samples"]
    assert step == 0
    assert tf.make_ndarray(value.tensor).tolist() == [[b"the [MASK] sat", b"the cat sat"], [b"a dog ran"] * 2]


def test_bad_arguments():
    with pytest.raises(ValueError, match="logging_steps must be at least 1, got 0"):
        WandbCallback("project", logging_steps=0)
    with pytest.raises(ValueError, match="tokenizer must be given with sample_prompts"):
        WandbCallback("project", sample_prompts=["a"])
    with pytest.raises(ValueError, match="eval_steps must be at least 1, got 0"):
        EvaluationCallback(None, 0)
