"""Runs that are killed or told to end, on every strategy, go on as if nothing had happened."""

import argparse
import os
import signal

import keras
import numpy as np
import pytest

import tfheads
from benchmarks.restarts import broken_and_whole
from tests.forked_processes import ended
from tests.restarted_processes import farthest, log, losses, started
from tests.resumed_run import BATCH, compiled_model, plain_model, run, values_of
from tests.tiny_models import gpt2_config
from tfheads.callbacks import saved_state
from tfheads.callbacks.preemption import Preempted
from tfheads.callbacks.saved_state import Position, checkpoints, latest
from tfheads.checkpoints.safetensors_files import TensorSource
from tfheads.optimizers import AdamW

WORKERS = {"workers": 2, "strategy": "multi_worker", "epochs": 2}


@pytest.mark.slow
def test_workers_that_are_killed_and_told_to_end_give_the_same_losses(tmp_path):
    """Two workers, unbroken; killed, told to end, and finished."""
    whole = started(tmp_path / "whole", **WORKERS)
    broken = tmp_path / "broken"
    assert ended(started(broken, **WORKERS, worker=1, killed_after=5)) == [1, -signal.SIGKILL], log(broken)
    assert "worker 1 of 2 has ended or cannot be reached, so this one ends too" in log(broken)
    assert ended(started(broken, **WORKERS, worker=1, terminated_after=9)) == [143, 143], log(broken)
    said = "Ended by SIGTERM at step "
    assert log(broken).count(said) == 1 and said not in log(broken, 1)
    assert ended(started(broken, **WORKERS)) == ended(whole) == [0, 0], log(tmp_path / "whole") + log(broken)
    assert losses(broken) == losses(tmp_path / "whole")
    assert farthest(broken, tmp_path / "whole") == 0.0


def test_a_run_goes_on_with_another_number_of_replicas(tmp_path):
    """Two replicas, told to end; then one."""
    options = {"strategy": "mirrored", "replicas": 2, "epochs": 2, "plain": True}
    assert ended(started(tmp_path / "run", **options, terminated_after=7)) == [143], log(tmp_path / "run")
    assert latest(tmp_path / "run").position.global_step == 7
    model, history = run(tmp_path / "run", epochs=2, model=plain_model())
    alone, expected = run(tmp_path / "alone", epochs=2, model=plain_model())
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5)
    for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_workers(tmp_path):
    """2 workers, then 1, then 3, then 2 with 2 replicas each: the rows of an update stay the same."""
    common, path = {"epochs": 4, "plain": True}, tmp_path / "broken"
    kinds = [(2, 1, 4), (1, 1, 9), (3, 1, 13), (2, 2, 0)]  # workers, replicas of each, step of SIGTERM
    for workers, replicas, step in kinds:
        devices = {"workers": workers, "replicas": replicas, "strategy": "multi_worker" if workers > 1 else "none"}
        codes = ended(started(path, **common, **devices, worker=workers - 1, terminated_after=step))
        assert codes == [143 if step else 0] * workers, log(path)
        last = -(-step // 6) * 6 if step else 24  # at the latest, they ask each other at the end of an epoch
        assert step <= latest(path).position.global_step <= last
    run(tmp_path / "whole", epochs=4, model=plain_model())
    pairs = list(zip(losses(path), losses(tmp_path / "whole"), strict=True))
    for one, other in pairs:
        one, other = (line.replace("end", "0").split()[:3] for line in (one, other))
        np.testing.assert_allclose(np.array(one, float), np.array(other, float), rtol=1e-5)
    assert len(pairs) == 24 + 4


def adapted() -> keras.Model:
    """A model with adapters and dropout in them, and moving averages of the weights."""
    keras.utils.set_random_seed(3)
    model = tfheads.GPT2LMHeadModel.from_config(gpt2_config(), seed=0)
    model.enable_lora(2, dropout=0.2, seed=1)
    optimizer = AdamW(1e-2, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=5)
    model.compile(optimizer, jit_compile=False, weighted_metrics=["accuracy"])
    return model


@pytest.mark.slow
def test_adapters_and_averages_go_on_after_sigterm(tmp_path, capsys):
    whole, expected = run(tmp_path / "whole", epochs=2, model=adapted())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as end:
        run(tmp_path / "broken", 4, save_steps=100, epochs=2, model=adapted(), number=signal.SIGTERM)
    assert end.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert capsys.readouterr().err == (
        f"Ended by SIGTERM at step 4: the state is saved in {tmp_path / 'broken'}, start again to go on\n"
    )
    with pytest.raises(Preempted):  # after the last batch of an epoch, which is then evaluated
        run(tmp_path / "broken", 6, save_steps=100, epochs=2, model=adapted(), number=signal.SIGTERM)
    assert latest(tmp_path / "broken").position == Position(1, 0, 6)
    for _ in range(2):  # the second time there is nothing left to train
        model, history = run(tmp_path / "broken", epochs=2, model=adapted())
        assert history.history == expected.history and "accuracy" in history.history
        for name, value in values_of(whole).items():
            np.testing.assert_array_equal(values_of(model)[name], value)
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_sigterm_with_a_full_disk(tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_state, "write_safetensors", full)
    with pytest.raises(Preempted):
        run(tmp_path, 1, model=compiled_model(), number=signal.SIGTERM)
    assert "Ended by SIGTERM at step 1: its state could not be saved, start again" in capsys.readouterr().err
    assert not checkpoints(tmp_path)


def test_a_state_of_another_batch_is_refused(tmp_path):
    run(tmp_path, epochs=1, model=compiled_model())
    state = tfheads.TrainingState(tmp_path, settings={"rows_per_step": 2 * BATCH})
    with pytest.raises(ValueError, match="rows_per_step must be 4 to go on from .*, got 8"):
        state.restore(compiled_model())


def save(directory, steps: int) -> None:
    """A state that says which it is, and the end of the ones before."""
    tensors = [TensorSource.of("a", np.full(5, steps, "float32"))]
    saved_state.write(directory, Position(0, steps, steps), {}, tensors)
    for path in checkpoints(directory)[:-1]:
        saved_state.remove(path)


def killed_in_save(directory, steps: int, operation: int) -> bool:
    """Saves in a process that dies before a certain change of the disk; whether it died."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(function):
            def call(*arguments, **options):
                nonlocal count
                count += 1
                if count == operation:
                    os._exit(77)
                return function(*arguments, **options)

            return call

        for name in ("mkdir", "rename", "unlink", "rmdir", "fsync"):
            setattr(os, name, counted(getattr(os, name)))
        save(directory, steps)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 77


@pytest.mark.parametrize("steps", [2, 4], ids=["the same step again", "the next"])
def test_killed_at_every_change_of_the_disk(tmp_path, caplog, steps):
    died, operation, found = True, 0, set()
    while died:
        operation += 1
        directory = tmp_path / str(operation)
        save(directory, 1)
        save(directory, 2)
        died = killed_in_save(directory, steps, operation)
        state = latest(directory)
        found.add(None if state is None else int(state.tensors().read("a")[0]))
        save(directory, 6)
        assert [path.name for path in directory.iterdir()] == ["checkpoint-6"]
    assert operation > 8 and not caplog.records
    assert found == ({2, 4} if steps == 4 else {2, None})  # nothing: the run starts anew, and gives the same


@pytest.mark.slow
@pytest.mark.parametrize("strategy, replicas, workers", [("none", 1, 1), ("mirrored", 2, 1), ("multi_worker", 1, 2)])
def test_twenty_random_kills(tmp_path, strategy, replicas, workers):
    kind = {"strategy": strategy, "replicas": replicas, "workers": workers}
    assert broken_and_whole(argparse.Namespace(kills=20, epochs=0, seed=0, **kind), tmp_path)
