"""The weights of the best evaluation of a run, kept until its end."""

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path

import keras

from tfheads.callbacks.evaluation import EvaluationCallback
from tfheads.checkpoints.atomic import WEIGHT_FILES
from tfheads.checkpoints.loading import load
from tfheads.checkpoints.tensor_files import open_tensors
from tfheads.distribute import barrier, is_chief

DIRECTORY, RECORD = "checkpoint-best", "evaluation.json"


class BestModel(keras.callbacks.Callback):
    """Callback that saves the model whenever an evaluation is better than all before, and loads it in the end.

    Args:
        directory: of the run; the model is kept below it.
        evaluation: the callback that evaluates, which must come before this one.
        measure: what is best, under the name that the evaluation gives it, with or without "eval_".
        greater_is_better: whether more of it is better; None for "unless it is a loss or a perplexity".

    Raises:
        KeyError: when an evaluation gives no such measure.
    """

    def __init__(
        self,
        directory: "str | Path",
        evaluation: EvaluationCallback,
        measure: str | None = None,
        greater_is_better: bool | None = None,
    ):
        super().__init__()
        self.path, self.evaluation = Path(directory, DIRECTORY), evaluation
        self.measure = (measure or "loss").removeprefix("eval_")
        falls = any(word in self.measure for word in ("loss", "perplexity", "mse"))
        self.sign = 1 if (not falls if greater_is_better is None else greater_is_better) else -1
        self._seen = 0

    @property
    def record(self) -> dict | None:
        """Step and value of the best evaluation; None if there was none."""
        path = self.path / RECORD
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def on_train_begin(self, logs=None):
        self._seen = len(self.evaluation.results)
        record = self.record
        barrier()
        if record is not None and record["step"] > int(self.model.optimizer.iterations.numpy()) and is_chief():
            (self.path / RECORD).unlink()  # of a run that was started anew, or goes on from before

    def on_train_batch_begin(self, batch, logs=None):
        self._look()  # at an evaluation before the first step

    def on_train_batch_end(self, batch, logs=None):
        self._look()

    def on_epoch_end(self, epoch, logs=None):
        self._look()

    def load(self, model) -> None:
        """Gives the model the best weights; says which."""
        barrier()  # the chief has saved them
        record = self.record
        if record is None:
            return
        with open_tensors(self.path) as tensors:
            load(model, tensors)
        if is_chief():
            print(f"The best model is of step {record['step']}: {self.measure} {record['value']:.4f}")

    def _look(self) -> None:
        while self._seen < len(self.evaluation.results):
            self._compare(self.evaluation.results[self._seen])
            self._seen += 1

    def _compare(self, found: Mapping[str, float]) -> None:
        name = f"val_{self.measure}"
        if name not in found:
            known = ", ".join(key.removeprefix("val_") for key in found if key != "step")
            raise KeyError(f"metric_for_best_model must be one of {known}, got {self.measure!r}")
        if not is_chief():
            return
        record = self.record
        if record is None or self.sign * found[name] > self.sign * record["value"]:
            self.model.save_pretrained(self.path)
            entry = {"step": found["step"], "measure": self.measure, "value": found[name]}
            (self.path / RECORD).write_text(json.dumps(entry) + "\n", encoding="utf-8")


def remove(directory: Path) -> bool:
    """Removes the best model of an earlier run, and nothing else; returns whether nothing is left."""
    if not directory.exists():
        return True
    if not (directory / RECORD).is_file():
        return False
    own = (RECORD, "config.json", "generation_config.json", *WEIGHT_FILES)
    for path in directory.iterdir():
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in own):
            path.unlink()
    if any(directory.iterdir()):
        return False
    directory.rmdir()
    return True
