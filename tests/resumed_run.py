"""A short training run that `test_training_state` kills and starts again: `python -m tests.resumed_run DIRECTORY STEP`.

Writes each loss to `losses.txt` as soon as it is known and kills itself after batch STEP (0: never).
"""

import os
import random
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import transformers

import tfheads
from tests.fixtures import batches
from tfheads.callbacks.resumable_fit import fit_resumable
from tfheads.callbacks.training_state import TrainingState
from tfheads.data.pipeline import TokenBlocks
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


class Losses(keras.callbacks.Callback):
    """Appends "epoch batch loss draw" for each batch, and kills the process after a certain one."""

    def __init__(self, path: Path, killed_after: int = 0):
        super().__init__()
        self.path, self.killed_after = path, killed_after

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{self.epoch} {step} {logs['loss']!r} {random.random()!r} {np.random.rand()!r}\n")
        if step == self.killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{epoch} end {logs['loss']!r} {logs['val_loss']!r}\n")


def run(directory: Path, killed_after: int = 0, save_steps: int = 2):
    """The run, from wherever it was."""
    model, data = compiled_model(xla=True), blocks()
    return model, fit_resumable(
        model,
        lambda epoch, step: data.batches(BATCH, seed=1, epoch=epoch, epochs=EPOCHS - epoch, start_step=step),
        state=TrainingState(directory, save_steps=save_steps, save_total_limit=2),
        epochs=EPOCHS,
        steps_per_epoch=data.steps_per_epoch(BATCH),
        callbacks=[Losses(directory / "losses.txt", killed_after)],
        validation_data=data.batches(BATCH, shuffle=False),
        verbose=0,
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
