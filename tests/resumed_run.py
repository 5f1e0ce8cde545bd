"""A short training run that tests kill and start again, on any strategy: `python -m tests.resumed_run DIRECTORY ...`.

Each loss is written to `losses.txt` as soon as it is known; weights and optimizer at the end to `final.npz`. A worker
of several finds its cluster in TF_CONFIG.
"""

import argparse
import os
import random
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import transformers

import tfheads
from tests.fixtures import batches
from tfheads.callbacks.resumable_fit import fit_resumable
from tfheads.callbacks.training_state import TrainingState
from tfheads.data.pipeline import TokenBlocks
from tfheads.distribute import barrier, is_chief, strategy
from tfheads.distribute.agreement import worker_index
from tfheads.optimizers import create_optimizer

EPOCHS, BATCH = 3, 4


def blocks() -> TokenBlocks:
    """Text of 24 blocks, 6 batches."""
    return TokenBlocks({"input_ids": batches.counting_rows(np.random.RandomState(0), 24, 8, 40).astype("int32")})


def compiled_model(xla: bool = False, steps_per_execution: int = 1, dtype=None, **changes):
    """A tiny GPT-2 with dropout."""
    keras.utils.set_random_seed(3)
    config = transformers.GPT2Config(
        **{"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 8, "vocab_size": 40, "bos_token_id": 1}
        | {"eos_token_id": 1, **changes}
    )
    model = tfheads.GPT2LMHeadModel.from_config(config, seed=0, dtype=dtype)
    optimizer = create_optimizer(1e-2, num_train_steps=18, warmup_steps=3, weight_decay=0.1)
    model.compile(optimizer=optimizer, steps_per_execution=steps_per_execution, jit_compile=xla)
    return model


def plain_model():
    """One whose steps are the same on other devices: no dropout, and not Adam's division of gradients that are 0."""
    model = compiled_model(**dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0))
    model.compile(keras.optimizers.SGD(0.3, momentum=0.9, global_clipnorm=0.3), jit_compile=False)
    return model


class Losses(keras.callbacks.Callback):
    """Appends "epoch batch loss draw" for each batch, and sends the process a signal after a certain one."""

    def __init__(self, path: Path, signal_after: int = 0, number: int = signal.SIGKILL):
        super().__init__()
        self.path, self.signal_after, self.number = path, signal_after, number

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        self._write(f"{self.epoch} {step} {logs['loss']!r} {random.random()!r} {np.random.rand()!r}")
        if step == self.signal_after:
            os.kill(os.getpid(), self.number)

    def on_epoch_end(self, epoch, logs=None):
        self._write(f"{epoch} end {logs['loss']!r} {logs['val_loss']!r}")

    def _write(self, line: str) -> None:
        if is_chief(self.model):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")


def kill_in_save(directory: Path, number: int) -> None:
    """Kills the process at the file operation of this number, from 1, that a save in `directory` does."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        changes = event in ("os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.rmtree")
        opens = event == "open" and "w" in str(arguments[1])
        if (
            (changes or opens)
            and any(str(directory) in str(one) for one in arguments)
            and "checkpoint" in str(arguments)
        ):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def run(directory: Path, killed_after: int = 0, save_steps: int = 2, epochs: int = EPOCHS, model=None, **options):
    """The run, from wherever it was."""
    data = blocks()
    model = compiled_model(xla=True) if model is None else model
    return model, fit_resumable(
        model,
        lambda epoch, step: data.batches(BATCH, seed=1, epoch=epoch, epochs=epochs - epoch, start_step=step),
        state=TrainingState(directory, save_steps=save_steps, save_total_limit=2, settings={"rows_per_step": BATCH}),
        epochs=epochs,
        steps_per_epoch=data.steps_per_epoch(BATCH),
        callbacks=[Losses(directory / "losses.txt", killed_after, **options)],
        validation_data=data.batches(BATCH, shuffle=False),
        verbose=0,
    )


def values_of(model) -> dict[str, np.ndarray]:
    """Weights and optimizer."""
    found = [*model.variables, *model.optimizer.variables]
    return {str(place): variable.numpy() for place, variable in enumerate(found)}


def main(given: list[str] | None = None) -> None:
    """One attempt, or the rest, of a run; `given` are arguments of a command line, None for those of this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--strategy", default="none")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--plain", action="store_true", help="the model of plain_model")
    parser.add_argument("--worker", type=int, default=0, help="which worker gets the signal")
    parser.add_argument("--killed_after", type=int, default=0, help="a step")
    parser.add_argument("--killed_in_save", type=int, default=0, help="a file operation")
    parser.add_argument("--terminated_after", type=int, default=0, help="a step")
    arguments = parser.parse_args(given)
    try:
        model = attempt(arguments)
    except RuntimeError as error:  # another worker has ended: no wait for its server
        print(error, flush=True)
        os._exit(1)
    if is_chief(model):
        np.savez(arguments.directory / "final.npz", **values_of(model))
    barrier(model.distribute_strategy)  # a worker that ends before would be taken for dead


def attempt(arguments: argparse.Namespace) -> keras.Model:
    """Trains from wherever the run was."""
    made = tf.distribute.get_strategy()
    if arguments.strategy != "none":
        made = strategy(arguments.strategy, replicas=arguments.replicas, heartbeat_seconds=15)
    mine = arguments.worker == worker_index(made)
    if mine and arguments.killed_in_save:
        kill_in_save(arguments.directory, arguments.killed_in_save)
    after, number = arguments.killed_after, signal.SIGKILL
    if arguments.terminated_after:
        after, number = arguments.terminated_after, signal.SIGTERM
    with made.scope():
        model = plain_model() if arguments.plain else compiled_model(xla=arguments.strategy == "none")
        run(arguments.directory, after if mine else 0, epochs=arguments.epochs, model=model, number=number)
    return model


if __name__ == "__main__":
    main()
