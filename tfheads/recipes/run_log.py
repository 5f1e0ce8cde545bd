"""What a run writes down: the log of its steps, and the JSON files of its results."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from tfheads.callbacks.progress_log import is_due
from tfheads.distribute import is_chief

LOG, STATE, ALL_RESULTS = "log_history.jsonl", "trainer_state.json", "all_results.json"


class RunLog(keras.callbacks.Callback):
    """Callback that keeps the log of a run, as in the `log_history` of Hugging Face's trainer_state.json.

    An entry is appended to `log_history.jsonl` every `logging_steps` updates, with the mean loss over the labels since
    the entry before, and after every evaluation. A run that goes on keeps the entries up to where it goes on. Only the
    chief of several workers writes.

    Args:
        directory: where the file is.
        logging_steps: updates between two entries.
        steps_per_epoch: updates of an epoch, from which `epoch` is computed.
        logging_also: further updates after which there is an entry, such as the first.
    """

    def __init__(
        self,
        directory: "str | os.PathLike",
        logging_steps: int,
        steps_per_epoch: int,
        logging_also: Sequence[int] = (),
    ):
        super().__init__()
        self.path = Path(directory, LOG)
        self.logging_steps, self.logging_also = logging_steps, tuple(logging_also)
        self.steps_per_epoch = steps_per_epoch
        self.entries: list[dict] = []
        self.totals = np.zeros(2)  # of the whole run: sum of losses, number of labels
        self._window = np.zeros(2)
        self._seen: np.ndarray | None = None
        self._step = 0

    def state(self) -> dict[str, list[float]]:
        """The sums since the last entry and of the whole run, for the state of the run."""
        if self._seen is not None:
            self._collect()
        return {"window": self._window.tolist(), "totals": self.totals.tolist()}

    def begin(self, step: int, state: Mapping[str, list[float]] | None = None) -> None:
        """Reads the entries up to `step` of a run that goes on there, and drops the others.

        Args:
            step: of the run.
            state: what `state` gave there; None if the run begins.
        """
        self._step = step
        if state:
            self._window, self.totals = np.array(state["window"]), np.array(state["totals"])
        lines = self.path.read_text(encoding="utf-8").splitlines() if step and self.path.is_file() else []
        self.entries = [entry for entry in map(_entry, lines) if entry is not None and entry["step"] <= step]
        if not is_chief():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(entry) + "\n" for entry in self.entries), encoding="utf-8")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Appends an entry, unless the same one is there (of an evaluation that was repeated after a restart)."""
        entry = {"step": step, "epoch": round(step / self.steps_per_epoch, 6), **values}
        if any(other["step"] == step and set(other) == set(entry) for other in self.entries):
            return
        self.entries.append(entry)
        if is_chief():
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Appends the results of an evaluation, which are called `val/...` as by the tracking callbacks."""
        found = {name.removeprefix("val/"): value for name, value in scalars.items() if name.startswith("val/")}
        self.add(step, evaluation_entry(found))

    def on_epoch_begin(self, epoch, logs=None):
        self._seen = None

    def on_train_batch_begin(self, batch, logs=None):
        if self._seen is None:  # only here: the running loss of an epoch that goes on is restored after its begin
            self._seen = self._running()

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        if is_due(self._step, step, self.logging_steps, self.logging_also):
            self._collect()
            loss = self._window[0] / max(self._window[1], 1.0)
            values = {
                "loss": float(loss),
                "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            }
            self.add(step, values)
            self._window = np.zeros(2)
        self._step = step

    def on_test_begin(self, logs=None):
        # The evaluation at the end of an epoch starts the running loss anew, before on_epoch_end.
        if self._seen is not None:
            self._collect()
            self._seen = None

    def on_epoch_end(self, epoch, logs=None):
        if self._seen is not None:
            self._collect()
        found = {name.removeprefix("val_"): value for name, value in (logs or {}).items() if name.startswith("val_")}
        if found:
            self.add(self._step, evaluation_entry(found))

    def _collect(self):
        """Adds what the running loss has seen since the last time."""
        now = self._running()
        self._window, self.totals = self._window + now - self._seen, self.totals + now - self._seen
        self._seen = now

    def _running(self) -> np.ndarray:
        tracker = self.model._loss_tracker
        return np.array([tracker.total.numpy().sum(), tracker.count.numpy().max()], "float64")


def _entry(line: str) -> dict | None:
    """A line of the log; None for one that was being written when the process died."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def evaluation_entry(found: Mapping[str, float]) -> dict[str, float]:
    """The results of an evaluation under the names of Hugging Face's logs: `eval_loss`, `perplexity`."""
    return {name if name == "perplexity" else f"eval_{name}": float(value) for name, value in found.items()}


def write_results(directory: "str | os.PathLike", name: str, results: Mapping) -> None:
    """Writes `<name>_results.json`, and merges it into `all_results.json`."""
    path = Path(directory, ALL_RESULTS)
    merged = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    _write_json(Path(directory, f"{name}_results.json"), dict(results))
    _write_json(path, {**merged, **results})


def write_state(directory: "str | os.PathLike", log: RunLog, step: int, max_steps: int) -> None:
    """Writes `trainer_state.json`, with the names of Hugging Face's."""
    epoch = step / log.steps_per_epoch
    state = {"epoch": epoch, "global_step": step, "max_steps": max_steps, "log_history": log.entries}
    _write_json(Path(directory, STATE), state)


def _write_json(path: Path, values: Mapping) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, path)
