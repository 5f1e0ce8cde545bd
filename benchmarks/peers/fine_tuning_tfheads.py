"""Fine-tuning by the recipe of the task, in turns; see benchmarks/fine_tuning.py."""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from benchmarks.fine_tuning import TASKS
from benchmarks.peers.turns import Turns, finish
from tfheads.recipes.command_line import parse


class InTurns(keras.callbacks.Callback):
    """Callback that waits for its turn before a step."""

    def __init__(self, turns: Turns):
        super().__init__()
        self.turns = turns

    def on_train_batch_begin(self, batch, logs=None):
        self.turns.before_step()

    def on_train_end(self, logs=None):
        self.turns.end_turn()


def main() -> None:
    """Trains with the flags that stand after the task and the steps of a turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--on-request", action="store_true")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--folder")
    parser.add_argument("--steps", type=int)
    options, flags = parser.parse_known_args()
    task = TASKS[options.task]
    # The same weights of the new head as the peer has.
    flags += ["--model_name_or_path", f"{options.folder}/initial"]
    run = task.prepare(parse(task.arguments, flags))
    run.callbacks.append(InTurns(Turns(options.steps)))
    finish(results=run.run())


if __name__ == "__main__":
    main()
