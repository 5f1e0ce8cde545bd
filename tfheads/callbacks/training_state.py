"""Saving everything that the rest of a run depends on, and going on from there as if nothing had happened.

A state is a directory `checkpoint-<steps>` with two files: `training_state.safetensors` (weights, random states of
dropout, optimizer with its step count and loss scale, running metrics) and `training_state.json` (the position in the
data, Python's and numpy's random states, a checksum of each tensor). It is written under another name, flushed to the
disk and renamed, so that it exists whole or not at all.

    state = TrainingState("run", save_steps=500)
    history = fit_resumable(model, batches, state=state, epochs=3, steps_per_epoch=blocks.steps_per_epoch(8))

with `batches(epoch, step)` the data from there on. Killed and started again, this gives the losses, to the last bit, of
a run that was never stopped.
"""

import json
import logging
import os
import random
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfheads.callbacks.chief import is_chief
from tfheads.checkpoints.safetensors_files import SafetensorsFiles, TensorSource, write_safetensors
from tfheads.distribute import barrier, require_agreement

logger = logging.getLogger("tfheads")

TENSORS = "training_state.safetensors"
RECORD = "training_state.json"
UNFINISHED = ".unfinished-checkpoint-"


@dataclass(frozen=True)
class Position:
    """Where a run is.

    Attributes:
        epoch: number of the epoch, from 0.
        step: how many batches of it are done.
        global_step: how many batches are done in all.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0


@dataclass(frozen=True)
class SavedState:
    """A state on the disk that was found to be whole.

    Attributes:
        directory: where it is.
        position: where the run was.
        record: what its JSON file says.
    """

    directory: Path
    position: Position
    record: dict

    @classmethod
    def open(cls, directory: "str | os.PathLike") -> "SavedState":
        """Reads and checks a state.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged.
        """
        directory = Path(directory)
        if not (directory / RECORD).is_file():
            raise FileNotFoundError(f"{directory} has no {RECORD}, so it is no saved training state")
        try:
            record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
            position = Position(**record["position"])
            checksums = {name: int(value) for name, value in record["checksums"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{directory / RECORD} is damaged: {error}") from None
        state = cls(directory, position, record)
        try:
            with state.tensors() as tensors:
                if set(tensors.names()) != set(checksums):
                    raise ValueError(f"{directory / TENSORS} has other tensors than {RECORD} says")
                for name, checksum in checksums.items():
                    if _checksum(tensors.read(name)) != checksum:
                        raise ValueError(f"{directory / TENSORS} is damaged: {name} has changed")
        except FileNotFoundError:
            raise ValueError(f"{directory} is damaged: it has no {TENSORS}") from None
        return state

    def tensors(self) -> SafetensorsFiles:
        """The tensors of the state, read when asked for."""
        if not (self.directory / TENSORS).is_file():
            raise FileNotFoundError(f"{self.directory} has no {TENSORS}")
        return SafetensorsFiles(self.directory / TENSORS)


def latest(directory: "str | os.PathLike") -> SavedState | None:
    """The newest whole state in a directory; None if there is none at all.

    Damaged ones are passed over, which is said once for each.

    Args:
        directory: what `TrainingState` was given, or one `checkpoint-...` in it.

    Raises:
        ValueError: there are states, but all are damaged.
    """
    if (Path(directory) / RECORD).is_file():
        return SavedState.open(directory)
    found = checkpoints(directory)
    for path in reversed(found):
        try:
            return SavedState.open(path)
        except (ValueError, OSError) as error:
            logger.warning("%s; trying the state before it", error)
    if found:
        raise ValueError(
            f"all {len(found)} saved states in {directory} are damaged; remove them to train from the start"
        )
    return None


def checkpoints(directory: "str | os.PathLike") -> list[Path]:
    """The `checkpoint-<steps>` directories, fewest steps first."""
    directory = Path(directory)
    paths = directory.iterdir() if directory.is_dir() else ()
    numbered = [(re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in paths if path.is_dir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]


class TrainingState(keras.callbacks.Callback):
    """Callback that saves the state of a run, and restores it.

    Only the chief writes. A state that cannot be written (full disk) is reported and does not end the training.

    Args:
        directory: where the `checkpoint-...` directories go.
        save_strategy: "steps", "epoch", or "no" for only restoring.
        save_steps: how many batches there are between two states, for "steps"; an end of an epoch is also saved.
        save_total_limit: how many states are kept, the newest; None for all.

    Raises:
        ValueError: an argument that cannot be.
    """

    def __init__(
        self,
        directory: "str | os.PathLike",
        *,
        save_strategy: str = "steps",
        save_steps: int = 500,
        save_total_limit: int | None = None,
    ):
        super().__init__()
        if save_strategy not in ("steps", "epoch", "no"):
            raise ValueError(f'save_strategy must be "steps", "epoch" or "no", got {save_strategy!r}')
        if save_steps < 1:
            raise ValueError(f"save_steps must be at least 1, got {save_steps}")
        if save_total_limit is not None and save_total_limit < 1:
            raise ValueError(f"save_total_limit must be at least 1 or None, got {save_total_limit}")
        self.directory = Path(directory)
        self.save_strategy = save_strategy
        self.save_steps = save_steps
        self.save_total_limit = save_total_limit
        self.history: list[dict] = []
        self.position = Position()
        self.unfinished_epoch: dict | None = None
        self._restored: SavedState | None = None
        self._failed = False
        self._loss = 0.0

    def restore(self, model, checkpoint: "str | os.PathLike | None" = None) -> Position:
        """Puts a compiled model into the newest whole state, and says where the run goes on.

        The running metrics are restored when the epoch begins. `Position()` if there is nothing to restore.

        Args:
            model: compiled as it was when the state was saved.
            checkpoint: a certain `checkpoint-...` directory; None for the newest in `directory`.

        Raises:
            ValueError: the state is of another model or optimizer, or all states are damaged.
        """
        state = latest(self.directory) if checkpoint is None else SavedState.open(checkpoint)
        if state is None:
            return Position()
        require_agreement("the state to go on from", vars(state.position), model.distribute_strategy)
        model._symbolic_build()
        variables = _variables(model, with_metrics=False)
        with state.tensors() as tensors:
            _check_fit(state, tensors, variables)
            for name, variable in variables.items():
                variable.assign(tensors.read(name))
        _restore_random_states(state.record["random"])
        self.history = list(state.record["history"])
        self.position, self._restored = state.position, state
        return state.position

    def on_train_begin(self, logs=None):
        others = [path for path in checkpoints(self.directory) if _steps(path) > self.position.global_step]
        if self._restored is None and others:
            raise FileExistsError(
                f"{self.directory} holds states of another run up to {others[-1].name}: restore it, or remove them"
            )
        self._epoch_began_at = None

    def on_epoch_begin(self, epoch, logs=None):
        inside = epoch == self.position.epoch and self.position.step
        self._steps_before = self.position.step if inside else 0
        self._epoch_began_at = self.position.global_step - self._steps_before
        self._epoch = epoch
        if inside and self._restored is not None:
            _restore_metrics(self.model, self._restored)

    def on_train_batch_end(self, batch, logs=None):
        self._loss = (logs or {}).get("loss", 0.0)
        before = self.position.global_step
        step = self._steps_before + batch + 1
        self.position = Position(self._epoch, step, self._epoch_began_at + step)
        due = self.position.global_step // self.save_steps > before // self.save_steps
        at_the_end = step == (self.params or {}).get("steps")  # saved after its evaluation
        if (
            self.save_strategy == "steps" and due and not at_the_end
        ):  # the end of an epoch is saved after its evaluation
            self._save_together()

    def on_epoch_end(self, epoch, logs=None):
        numbers = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        self.unfinished_epoch = None
        if self.position.step < ((self.params or {}).get("steps") or 0):  # the run was stopped inside the epoch
            self.unfinished_epoch = {"epoch": epoch, **numbers}
        else:
            self.history.append({"epoch": epoch, **numbers})
            self.position = Position(epoch + 1, 0, self.position.global_step)
        if self.save_strategy != "no":
            self._save_together()

    def _save_together(self) -> None:
        """Saves; no worker runs ahead of the chief."""
        self.save()
        barrier(self.model.distribute_strategy)

    def save(self) -> None:
        """Writes the state as it is now, unless the loss is no number any more: nobody wants to go on from there."""
        if not is_chief(self.model):
            return
        if not np.isfinite(self._loss):
            logger.error(
                "the training state at step %d is not saved: loss is %s", self.position.global_step, self._loss
            )
            return
        try:
            self._write()
            self._failed = False
        except OSError as error:
            if not self._failed:
                logger.error("the training state could not be saved, training goes on: %s", error)
            self._failed = True
            return
        self._remove_old()

    def _write(self) -> None:
        target = self.directory / f"checkpoint-{self.position.global_step}"
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in self.directory.glob(f"{UNFINISHED}*"):  # of a run that was killed while it saved
            shutil.rmtree(path, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self.directory))
        try:
            checksums = {}
            variables = _variables(self.model, with_metrics=self.position.step > 0)
            write_safetensors(staging / TENSORS, [_source(*item, checksums) for item in variables.items()])
            record = {
                "position": vars(self.position),
                "history": self.history,
                "random": _random_states(),
                "checksums": checksums,
            }
            with open(staging / RECORD, "w", encoding="utf-8") as file:
                json.dump(record, file)
                file.flush()
                os.fsync(file.fileno())
            _flush(staging)
            if target.exists():
                shutil.rmtree(target)
            os.rename(staging, target)
            _flush(self.directory)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _remove_old(self) -> None:
        if self.save_total_limit is not None:
            for path in checkpoints(self.directory)[: -self.save_total_limit]:
                shutil.rmtree(path, ignore_errors=True)


def fit_resumable(
    model,
    batches: Callable[[int, int], tf.data.Dataset],
    *,
    state: TrainingState,
    epochs: int,
    steps_per_epoch: int,
    max_steps: int | None = None,
    checkpoint: "str | os.PathLike | None" = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **fit_arguments,
) -> keras.callbacks.History:
    """`model.fit` that goes on where the newest state in `state.directory` ends, or starts if there is none.

    Args:
        model: compiled.
        batches: `batches(epoch, step)` gives the data from batch `step` of `epoch` on, to the end of the run or without
            end, all epochs in one; such as
            `lambda epoch, step: blocks.batches(8, epoch=epoch, start_step=step, epochs=None)`.
        state: where states are saved and found.
        epochs: number of epochs of the whole run.
        steps_per_epoch: batches of an epoch; a multiple of `steps_per_execution`.
        max_steps: ends the run after this many batches in all.
        checkpoint: a certain `checkpoint-...` to go on from; None for the newest.
        callbacks: further callbacks.
        fit_arguments: of `model.fit`, such as `validation_data` and `verbose`.

    Returns:
        The history of all epochs, also of those before a restart.

    Raises:
        ValueError: `steps_per_epoch` that does not fit, or a state that is not of this model.
    """
    if steps_per_epoch < 1 or steps_per_epoch % model.steps_per_execution:
        raise ValueError(
            f"steps_per_epoch must be a multiple of steps_per_execution={model.steps_per_execution}, "
            f"got {steps_per_epoch}"
        )
    position = state.restore(model, checkpoint)
    last = epochs * steps_per_epoch if max_steps is None else min(max_steps, epochs * steps_per_epoch)
    if position.global_step < last:
        data = batches(position.epoch, position.step)
        if position.step:
            _make_metrics(model, state, data)
        model.fit(
            data,
            initial_epoch=position.epoch,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            callbacks=[_Boundaries(position, steps_per_epoch, last), *callbacks, state],
            shuffle=False,
            **fit_arguments,
        )
    else:
        logger.info("%s is at the end of the run, there is nothing to train", state.directory)
    history = keras.callbacks.History()
    history.set_model(model)
    epochs_logs = [*state.history, *([state.unfinished_epoch] if state.unfinished_epoch else [])]
    history.epoch = [logs["epoch"] for logs in epochs_logs]
    names = dict.fromkeys(name for logs in epochs_logs for name in logs if name != "epoch")
    history.history = {name: [logs[name] for logs in epochs_logs if name in logs] for name in names}
    return history


class _Boundary:
    """What `stop_training` is set to when only an epoch is over: true, and not what other callbacks set."""


class _Boundaries(keras.callbacks.Callback):
    """Ends the epoch in which a run was resumed, and the run at its last step, at the right batch.

    Keras would take all `steps_per_epoch` batches in an epoch of which some are done.
    """

    def __init__(self, position: Position, steps_per_epoch: int, last: int):
        super().__init__()
        self.done = position.global_step
        self.steps_per_epoch = steps_per_epoch
        self.last = last
        self.epoch, self.step = position.epoch, position.step

    def on_epoch_begin(self, epoch, logs=None):
        self.before = self.step if epoch == self.epoch else 0
        self.began_at = self.done

    def on_train_batch_end(self, batch, logs=None):
        self.done = self.began_at + batch + 1
        if self.done >= self.last:
            self.model.stop_training = True
        elif self.before and self.before + batch + 1 >= self.steps_per_epoch and not self.model.stop_training:
            self.model.stop_training = _Boundary()

    def on_epoch_end(self, epoch, logs=None):
        if isinstance(self.model.stop_training, _Boundary):
            self.model.stop_training = False


def _variables(model, with_metrics: bool) -> dict[str, keras.Variable]:
    """All variables that the run depends on, by group and place."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    if with_metrics:
        groups["metrics"] = _metric_variables(model)
    return {f"{group}.{place}": variable for group, found in groups.items() for place, variable in enumerate(found)}


def _metric_variables(model) -> list:
    """The variables of the metrics; where each replica adds up its own part, the variable of each replica."""
    found = []
    for variable in (variable for metric in model.metrics for variable in metric.variables):
        parts = getattr(variable.value, "values", None)
        on_read = getattr(variable.value, "synchronization", None) == tf.VariableSynchronization.ON_READ
        is_sum = getattr(variable.value, "aggregation", None) == tf.VariableAggregation.SUM
        found += parts if parts and on_read and is_sum else [variable]
    return found


def _source(name: str, variable, checksums: dict) -> TensorSource:
    dtype = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)

    def read() -> np.ndarray:
        array = variable.numpy()
        checksums[name] = _checksum(array)
        return array

    return TensorSource(name, tuple(variable.shape), dtype, read)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _check_fit(state: SavedState, tensors: SafetensorsFiles, variables: dict) -> None:
    saved = {name for name in tensors.names() if not name.startswith("metrics.")}
    if saved != set(variables):
        raise ValueError(
            f"{state.directory} is not of this model and optimizer: it has {len(saved)} variables, "
            f"the compiled model has {len(variables)}"
        )
    for name, variable in variables.items():
        if tuple(tensors.shape(name)) != tuple(variable.shape):
            raise ValueError(
                f"{state.directory} is not of this model: a variable ({variable.path}) has the shape "
                f"{tuple(tensors.shape(name))}, the model's has {tuple(variable.shape)}"
            )


def _make_metrics(model, state: TrainingState, data: tf.data.Dataset) -> None:
    """Lets metrics that wait for their first batch make their variables."""
    saved = [name for name in state._restored.record["checksums"] if name.startswith("metrics.")]
    if len(saved) > len(_metric_variables(model)):
        model.test_on_batch(next(iter(data)))


def _restore_metrics(model, state: SavedState) -> None:
    with state.tensors() as tensors:
        variables = {f"metrics.{place}": variable for place, variable in enumerate(_metric_variables(model))}
        saved = {name for name in tensors.names() if name.startswith("metrics.")}
        if saved != set(variables):
            logger.warning("the averages of this epoch start anew: %s has other metrics or replicas", state.directory)
            return
        for name, variable in variables.items():
            variable.assign(tensors.read(name))


def _random_states() -> dict:
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, keys.tolist(), int(place), int(has_gauss), float(cached)],
    }


def _restore_random_states(saved: dict) -> None:
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))


def _steps(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _flush(directory: Path) -> None:
    """Waits until the names in a directory are on the disk."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
