"""Killed and restarted runs give the losses of an unbroken one; damaged states are passed over."""

import json
import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.forked_processes import ended
from tests.restarted_processes import started
from tests.resumed_run import BATCH, EPOCHS, blocks, compiled_model, run
from tfheads.callbacks import saved_state
from tfheads.callbacks.resumable_fit import fit_resumable
from tfheads.callbacks.saved_state import Position, SavedState, checkpoints, latest
from tfheads.callbacks.training_state import TrainingState


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The directory, the model and the history of a run that was never stopped."""
    directory = tmp_path_factory.mktemp("unbroken")
    return directory, *run(directory)


@pytest.mark.slow
def test_killed_twice_and_restarted_gives_the_same_losses(unbroken, tmp_path):
    directory, model, history = unbroken
    expected = (directory / "losses.txt").read_text().splitlines()
    assert len(expected) == 18 + 3 and len({line.split()[2] for line in expected}) == 18
    assert ended(started(tmp_path, killed_after=5)) == [-signal.SIGKILL]
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4"]
    assert ended(started(tmp_path, killed_after=15)) == [-signal.SIGKILL]
    resumed, resumed_history = run(tmp_path)
    lines = (tmp_path / "losses.txt").read_text().splitlines()
    assert set(lines) == set(expected)
    assert lines[:5] == expected[:5] and lines[-4:] == expected[-4:]
    assert len(lines) == len(expected) + 2  # batches 5 and 15 were done twice
    assert resumed_history.history == history.history and resumed_history.epoch == [0, 1, 2]
    for one, other in zip(resumed.variables, model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    for one, other in zip(resumed.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_what_is_on_the_disk(unbroken):
    directory, _, history = unbroken
    assert sorted(os.listdir(directory)) == ["checkpoint-16", "checkpoint-18", "losses.txt"]
    state = latest(directory)
    assert state.position == Position(epoch=EPOCHS, step=0, global_step=18)
    assert state.record["history"][2]["loss"] == history.history["loss"][2]
    assert b"pickle" not in (state.directory / "training_state.json").read_bytes()


def test_a_finished_run_trains_no_more(unbroken):
    directory, _, history = unbroken
    before = (directory / "losses.txt").read_text()
    assert run(directory, model=compiled_model())[1].history == history.history
    assert (directory / "losses.txt").read_text() == before


def copied(directory: Path, target: Path) -> Path:
    for path in checkpoints(directory):
        (target / path.name).mkdir()
        for file in path.iterdir():
            (target / path.name / file.name).write_bytes(file.read_bytes())
    return target


def truncate(state: Path):
    path = state / "training_state.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def flip(state: Path):
    path = state / "training_state.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def no_json(state: Path):
    (state / "training_state.json").unlink()


def half_json(state: Path):
    path = state / "training_state.json"
    path.write_text(path.read_text()[:100])


def other_json(state: Path):
    (state / "training_state.json").write_text(json.dumps({"position": 3}))


def no_tensors(state: Path):
    (state / "training_state.safetensors").unlink()


@pytest.mark.parametrize("damage", [truncate, flip, no_json, half_json, other_json, no_tensors])
def test_a_damaged_state_falls_back_to_the_one_before(unbroken, tmp_path, caplog, damage):
    copied(unbroken[0], tmp_path)
    damage(tmp_path / "checkpoint-18")
    assert latest(tmp_path).position.global_step == 16
    assert len(caplog.records) == 1 and "trying the state before it" in caplog.text
    damage(tmp_path / "checkpoint-16")
    with pytest.raises(ValueError, match="all 2 saved states in .* are damaged"):
        latest(tmp_path)


def test_nothing_to_restore(tmp_path):
    assert latest(tmp_path) is None and latest(tmp_path / "absent") is None
    assert TrainingState(tmp_path).restore(compiled_model()) == Position()
    with pytest.raises(FileNotFoundError, match="is no saved training state"):
        SavedState.open(tmp_path)


def test_a_state_of_another_model_is_refused(unbroken):
    with pytest.raises(ValueError, match="is not of this model"):
        TrainingState(unbroken[0]).restore(compiled_model(n_embd=32))
    with pytest.raises(ValueError, match="is not of this model and optimizer"):
        TrainingState(unbroken[0]).restore(compiled_model(n_layer=2))


def test_states_of_another_run_are_not_overwritten(unbroken, tmp_path):
    copied(unbroken[0], tmp_path)
    with pytest.raises(FileExistsError, match="holds states of another run up to checkpoint-18"):
        compiled_model().fit(blocks().batches(BATCH), callbacks=[TrainingState(tmp_path)], verbose=0)


def test_a_full_disk_does_not_end_the_training(tmp_path, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_state, "write_safetensors", full)
    model = compiled_model()
    model.fit(blocks().batches(BATCH), callbacks=[TrainingState(tmp_path, save_steps=1)], verbose=0)
    assert int(model.optimizer.iterations) == 6
    assert caplog.text.count("could not be saved") == 1 and not os.listdir(tmp_path)


def test_several_steps_per_execution_and_metrics(tmp_path):
    """Stopped inside an epoch and continued in a new model, with a metric that exists after the first batch only."""

    def fit(directory, max_steps, callbacks=()):
        model, data = compiled_model(steps_per_execution=2), blocks()
        model.compile(
            optimizer=model.optimizer,
            steps_per_execution=2,
            jit_compile=False,
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        return fit_resumable(
            model,
            lambda epoch, step: data.batches(BATCH, seed=1, epoch=epoch, epochs=None, start_step=step),
            state=TrainingState(directory, save_strategy="epoch"),
            epochs=2,
            steps_per_epoch=6,
            max_steps=max_steps,
            callbacks=callbacks,
            verbose=0,
        )

    straight = fit(tmp_path / "straight", None)
    fit(tmp_path / "broken", 8)
    assert [path.name for path in checkpoints(tmp_path / "broken")] == ["checkpoint-6", "checkpoint-8"]
    assert fit(tmp_path / "broken", None).history == straight.history
    assert set(straight.history) == {"loss", "accuracy", "perplexity"} and len(straight.history["loss"]) == 2


def test_another_callback_can_still_stop_a_resumed_epoch(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = int(self.model.optimizer.iterations) >= 6

    data = blocks()
    for max_steps, callbacks in ((4, []), (None, [Stop()])):
        model = compiled_model()
        fit_resumable(
            model,
            lambda epoch, step: data.batches(BATCH, epoch=epoch, epochs=None, start_step=step),
            state=TrainingState(tmp_path),
            epochs=3,
            steps_per_epoch=6,
            max_steps=max_steps,
            callbacks=callbacks,
            verbose=0,
        )
    assert int(model.optimizer.iterations) == 6


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"save_strategy": "never"}, "save_strategy must be"),
        ({"save_steps": 0}, "save_steps must be at least 1, got 0"),
        ({"save_total_limit": 0}, "save_total_limit must be at least 1"),
    ],
)
def test_bad_arguments(tmp_path, arguments, said):
    with pytest.raises(ValueError, match=said):
        TrainingState(tmp_path, **arguments)


def test_steps_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="steps_per_epoch must be a multiple of steps_per_execution=4, got 6"):
        fit_resumable(
            compiled_model(steps_per_execution=4),
            lambda epoch, step: None,
            state=TrainingState(tmp_path),
            epochs=1,
            steps_per_epoch=6,
        )


def test_the_loss_scale_is_restored(tmp_path):
    """The step count of the loss scale and the scale itself, also after updates that were left out."""

    def fit(directory, max_steps=None):
        keras.utils.set_random_seed(3)
        model, data = compiled_model(dtype="mixed_float16"), blocks()
        model.optimizer.initial_scale = 2.0**40  # too high: the first updates are left out, and it is halved
        history = fit_resumable(
            model,
            lambda epoch, step: data.batches(BATCH, seed=1, epoch=epoch, epochs=None, start_step=step),
            state=TrainingState(directory, save_strategy="epoch"),
            epochs=1,
            steps_per_epoch=6,
            max_steps=max_steps,
            verbose=0,
        )
        return history.history, model.optimizer

    straight, optimizer = fit(tmp_path / "straight")
    fit(tmp_path / "broken", 3)
    resumed, again = fit(tmp_path / "broken")
    assert resumed == straight and int(optimizer.iterations) < 6
    assert float(again.dynamic_scale.numpy()) == float(optimizer.dynamic_scale.numpy()) < 2.0**40
