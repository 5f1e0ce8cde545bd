"""PushToHubCallback with the real huggingface_hub client and a Hub on a local port."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import tfheads
from tests.fake_hub import fake_hub
from tests.resumed_run import BATCH, blocks, compiled_model
from tfheads.callbacks.background_uploads import SNAPSHOT_PREFIX
from tfheads.callbacks.push_to_hub import PushToHubCallback
from tfheads.callbacks.saved_state import latest
from tfheads.checkpoints import hub as hub_client


@pytest.fixture
def hub():
    with fake_hub() as server:
        yield server


def fit(callback, epochs=2, **arguments):
    model = compiled_model()
    data = blocks()
    model.fit(
        data.batches(BATCH, epochs=None),
        epochs=epochs,
        steps_per_epoch=6,
        shuffle=False,
        callbacks=[callback],
        verbose=0,
        **arguments,
    )
    return model


def titles(hub, name):
    return [commit.title for commit in hub.repositories[name].history()]


def test_the_repository_holds_the_trained_model_and_its_results(hub, tmp_path):
    callback = PushToHubCallback(tmp_path / "my-model", dataset="someone/text", license="mit")
    model = fit(callback, validation_data=blocks().batches(BATCH, shuffle=False))
    assert titles(hub, "tester/my-model")[0] == "Training in progress, epoch 2"
    assert callback.commit_url.startswith(f"{hub.endpoint}/tester/my-model/commit/")
    loaded = tfheads.GPT2LMHeadModel.from_pretrained("tester/my-model")
    for one, other in zip(loaded.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    card = hub.files("tester/my-model")["README.md"].decode()
    assert "license: mit" in card and "someone/text" in card and "val_loss" in card
    assert f"- Perplexity: {model.history.history['val_perplexity'][-1]:.4g}"[:16] in card
    assert "weight_decay: 0.1" in card and "lr_scheduler: Linear" in card
    assert hub.token not in card
    assert not [name for name in os.listdir(tmp_path / "my-model") if name.startswith(".")]


def test_every_few_steps(hub, tmp_path):
    class Wait(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            callback.uploads.wait()

    callback = PushToHubCallback(tmp_path, "steps", 5, hub_model_id="team/model", private=True)
    model, data = compiled_model(steps_per_execution=2), blocks()
    callbacks = [callback, Wait()]
    model.fit(
        data.batches(BATCH, epochs=None), epochs=2, steps_per_epoch=6, shuffle=False, callbacks=callbacks, verbose=0
    )
    steps = ["Training in progress, step 6", "Training in progress, step 10"]
    assert titles(hub, "team/model")[:-1] == ["End of training", *reversed(steps)]
    assert hub.repositories["team/model"].private


def test_the_end_only(hub, tmp_path):
    fit(PushToHubCallback(tmp_path, "no", hub_model_id="me/model"))
    assert titles(hub, "me/model")[:-1] == ["End of training"]


def test_a_failing_network_is_said_once_and_the_last_save_arrives(hub, tmp_path, caplog):
    hub.fail(1000, status=503)

    class Repair(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            callback.uploads.wait()
            if epoch == 1:
                hub.recover()

    callback = PushToHubCallback(tmp_path, hub_model_id="me/model")
    model, data = compiled_model(), blocks()
    callbacks = [callback, Repair()]
    model.fit(
        data.batches(BATCH, epochs=None), epochs=2, steps_per_epoch=6, shuffle=False, callbacks=callbacks, verbose=0
    )
    said = [record.getMessage() for record in caplog.records if "upload to" in record.getMessage()]
    assert len(said) == 1 and "\n" not in said[0] and "503" in said[0] and hub.token not in said[0]
    assert titles(hub, "me/model")[0] == "End of training"


def test_no_network_at_all_loses_nothing(hub, tmp_path):
    hub.fail(1000, status=None)
    model = fit(PushToHubCallback(tmp_path, hub_model_id="me/model"))
    loaded = tfheads.GPT2LMHeadModel.from_pretrained(tmp_path)
    for one, other in zip(loaded.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_full_disk_is_said_and_the_next_save_arrives(hub, tmp_path, monkeypatch, caplog):
    model = compiled_model()
    callback = PushToHubCallback(tmp_path, hub_model_id="me/model")
    callback.set_model(model)
    callback.on_train_begin()

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    for epoch, (place, name) in enumerate([(type(model), "save_pretrained"), (shutil, "copyfile")]):
        model.optimizer.iterations.assign(6 * epoch + 6)
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            callback.on_epoch_end(epoch, {"loss": 1.0})
        assert "could not be saved" in caplog.messages[epoch] and "No space left on device" in caplog.messages[epoch]
        assert not [name for name in os.listdir(tmp_path) if name.startswith(SNAPSHOT_PREFIX)]
    callback.on_train_end()
    assert titles(hub, "me/model")[:-1] == ["End of training"]


def test_one_upload_at_a_time_and_the_newest_follows(hub, tmp_path, monkeypatch):
    release, started, running, seen = threading.Event(), threading.Event(), [], []

    def slow(directory, *arguments, **named):
        running.append(1)
        assert len(running) == 1
        seen.append((named["commit_message"], Path(directory, "model.safetensors").read_bytes()))
        started.set()
        release.wait(30)
        assert Path(directory, "model.safetensors").read_bytes() == seen[-1][1]
        running.pop()
        return "url"

    monkeypatch.setattr(hub_client, "upload", slow)

    class Release(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            started.wait(30)
            if epoch == 3:
                release.set()

    callback = PushToHubCallback(tmp_path, hub_model_id="me/model")
    model, data = compiled_model(), blocks()
    callbacks = [callback, Release()]
    model.fit(
        data.batches(BATCH, epochs=None), epochs=4, steps_per_epoch=6, shuffle=False, callbacks=callbacks, verbose=0
    )
    assert [message for message, _ in seen] == ["Training in progress, epoch 1", "Training in progress, epoch 4"]
    assert seen[1][1] == (tmp_path / "model.safetensors").read_bytes() != seen[0][1]


def test_the_state_of_the_training_goes_along(hub, tmp_path):
    fit(PushToHubCallback(tmp_path, hub_model_id="me/model", checkpoint=True))
    assert latest(tmp_path).position.global_step == 12
    wanted = {"checkpoint-12/training_state.json", "checkpoint-12/training_state.safetensors"}
    assert wanted < set(hub.files("me/model"))


SCRIPT = """
import sys
import keras
from tests.resumed_run import BATCH, blocks, compiled_model
from tfheads.callbacks.push_to_hub import PushToHubCallback

class Fail(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyError("the program dies")

callbacks = [PushToHubCallback(sys.argv[1], hub_model_id="me/model"), Fail()]
compiled_model().fit(blocks().batches(BATCH), callbacks=callbacks, verbose=0)
"""


def test_an_upload_is_finished_when_the_program_dies(hub, tmp_path):
    environment = {**os.environ, **hub.environment}
    left = tmp_path / ".tfheads-upload-4194305-left"  # by a process that cannot be there any more
    left.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, env=environment, capture_output=True, check=False)
    assert done.returncode == 1 and b"the program dies" in done.stderr
    assert titles(hub, "me/model")[0] == "Training in progress, epoch 1"
    assert not left.exists()
    assert {"config.json", "model.safetensors", "README.md"} < set(hub.files("me/model"))


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="save_steps must be a whole number from 1"):
        PushToHubCallback(tmp_path, "steps")
    with pytest.raises(ValueError, match="save_strategy must be"):
        PushToHubCallback(tmp_path, "often")
    with pytest.raises(TypeError, match="has no argument licence"):
        PushToHubCallback(tmp_path, licence="mit")
