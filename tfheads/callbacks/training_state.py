"""Saving everything that the rest of a run depends on, while it runs.

A state holds weights, random states of dropout, optimizer with its step count and loss scale, running metrics, the
position in the data, Python's and numpy's random states; `tfheads.callbacks.saved_state` says how it is on the disk.
With several workers the chief writes it for all, and all read it.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from tfheads.callbacks import saved_state
from tfheads.callbacks.run_variables import (
    assign_metrics,
    metric_values,
    metric_variables,
    random_states,
    restore_random_states,
    source_of,
    variables_of,
)
from tfheads.callbacks.saved_state import Position, SavedState, checkpoints, latest
from tfheads.checkpoints.safetensors_files import SafetensorsFiles, TensorSource
from tfheads.distribute import barrier, is_chief, require_agreement

logger = logging.getLogger("tfheads")


class TrainingState(keras.callbacks.Callback):
    """Callback that saves the state of a run, and restores it.

    Only the chief writes. A state that cannot be written (full disk) is reported and does not end the training.

    Args:
        directory: where the `checkpoint-...` directories go; with several workers, one that all of them see.
        save_strategy: "steps", "epoch", or "no" for only restoring.
        save_steps: how many batches there are between two states, for "steps"; an end of an epoch is also saved.
        save_total_limit: how many states are kept, the newest; None for all.
        settings: plain values without which the data would go on elsewhere, such as the rows of a batch; a state that
            was saved with others is refused.
        kept: what else belongs to the run by name, such as a log: things whose `state()` gives plain values.

    Attributes:
        position: where the run is.
        history: the logs of the epochs that are done.
        restored: the state that the run went on from; None if it started anew.
        asked: where `save` was called last; None if it was not.
        saved: where the newest state of this run is; None if there is none, and on all workers but the chief.

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
        settings: Mapping[str, object] | None = None,
        kept: Mapping[str, object] | None = None,
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
        self.settings, self.kept = dict(settings or {}), dict(kept or {})
        self.history: list[dict] = []
        self.position = Position()
        self.unfinished_epoch: dict | None = None
        self.restored: SavedState | None = None
        self.asked: Position | None = None
        self.saved: Position | None = None
        self._metrics: list[np.ndarray] = []
        self._failed = False
        self._loss = 0.0

    def restore(self, model, checkpoint: "str | os.PathLike | None" = None) -> Position:
        """Puts a compiled model into the newest whole state, and says where the run goes on.

        The running metrics are restored when the epoch begins. `Position()` if there is nothing to restore.

        Args:
            model: compiled as it was when the state was saved.
            checkpoint: a certain `checkpoint-...` directory; None for the newest in `directory`.

        Raises:
            ValueError: the state is of another model, optimizer or other settings, or all states are damaged.
        """
        state = latest(self.directory) if checkpoint is None else SavedState.open(checkpoint)
        found = {"step": None} if state is None else vars(state.position)
        require_agreement("the state to go on from", found, model.distribute_strategy)
        if state is None:
            return Position()
        _check_settings(state, self.settings)
        model._symbolic_build()
        variables = variables_of(model)
        with state.tensors() as tensors:
            _check_fit(state, tensors, variables)
            for name, variable in variables.items():
                variable.assign(tensors.read(name))
        restore_random_states(state.record["random"])
        self.history = list(state.record["history"])
        self.position, self.restored = state.position, state
        return state.position

    def restored_part(self, name: str) -> object:
        """What `state()` of something in `kept` gave when the state was saved; None if the run started anew."""
        return None if self.restored is None else self.restored.record.get("kept", {}).get(name)

    def on_train_begin(self, logs=None):
        others = [path for path in checkpoints(self.directory) if saved_state.steps(path) > self.position.global_step]
        if self.restored is None and others:
            raise FileExistsError(
                f"{self.directory} holds states of another run up to {others[-1].name}: restore it, or remove them"
            )
        self._epoch_began_at = None

    def on_epoch_begin(self, epoch, logs=None):
        inside = epoch == self.position.epoch and self.position.step
        self._steps_before = self.position.step if inside else 0
        self._epoch_began_at = self.position.global_step - self._steps_before
        self._epoch = epoch
        if inside and self.restored is not None:
            _restore_metrics(self.model, self.restored)

    def on_train_batch_end(self, batch, logs=None):
        self._loss = (logs or {}).get("loss", 0.0)
        before = self.position.global_step
        step = self._steps_before + batch + 1
        self.position = Position(self._epoch, step, self._epoch_began_at + step)
        due = self.position.global_step // self.save_steps > before // self.save_steps
        if self.save_strategy == "steps" and due and not self.is_at_end_of_epoch:
            self.save()

    @property
    def is_at_end_of_epoch(self) -> bool:
        """Whether all batches of the epoch are done; that is saved after the evaluation."""
        return self.position.step == (self.params or {}).get("steps")

    def on_epoch_end(self, epoch, logs=None):
        numbers = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        self.unfinished_epoch = None
        if self.position.step < ((self.params or {}).get("steps") or 0):  # the run was stopped inside the epoch
            self.unfinished_epoch = {"epoch": epoch, **numbers}
        else:
            self.history.append({"epoch": epoch, **numbers})
            self.position = Position(epoch + 1, 0, self.position.global_step)
        if self.save_strategy != "no":
            self.save()

    def save(self) -> None:
        """Writes the state as it is now; all workers must call it, and none runs ahead of the chief."""
        self.asked = self.position
        self.collect()
        if is_chief(self.model):
            self.write()
        barrier(self.model.distribute_strategy)

    def collect(self) -> None:
        """Fetches from all workers, which must call it together, what the chief does not know."""
        self._metrics = metric_values(self.model) if self.position.step else []

    def write(self) -> None:
        """Writes what was collected, unless the loss is no number any more: nobody wants to go on from there."""
        if not np.isfinite(self._loss):
            logger.error(
                "the training state at step %d is not saved: loss is %s", self.position.global_step, self._loss
            )
            return
        try:
            saved_state.write(self.directory, self.position, self._record(), self._tensors())
            self._remove_old()
            self.saved, self._failed = self.position, False
        except OSError as error:
            if not self._failed:
                logger.error("the training state could not be saved, training goes on: %s", error)
            self._failed = True

    def _tensors(self) -> list[TensorSource]:
        found = [source_of(name, variable) for name, variable in variables_of(self.model).items()]
        return found + [TensorSource.of(f"metrics.{place}", value) for place, value in enumerate(self._metrics)]

    def _record(self) -> dict:
        kept = {name: part.state() for name, part in self.kept.items()}
        return {"history": self.history, "random": random_states(), "settings": self.settings, "kept": kept}

    def _remove_old(self) -> None:
        if self.save_total_limit is not None:
            for path in checkpoints(self.directory)[: -self.save_total_limit]:
                saved_state.remove(path)


def has_metrics_to_make(model, state: SavedState) -> bool:
    """Whether the model lacks variables of metrics that the state has: some metrics wait for their first batch."""
    saved = [name for name in state.record["checksums"] if name.startswith("metrics.")]
    return len(saved) > len(metric_variables(model))


def _restore_metrics(model, state: SavedState) -> None:
    with state.tensors() as tensors:
        names = sorted((name for name in tensors.names() if name.startswith("metrics.")), key=_place)
        values = [tensors.read(name) for name in names]
    variables = metric_variables(model)
    if len(values) != len(variables) or not all(map(_fits, values, variables)):
        logger.warning("the averages of this epoch start anew: %s has other metrics", state.directory)
        return
    assign_metrics(model, values)


def _place(name: str) -> int:
    return int(name.rpartition(".")[2])


def _fits(value: np.ndarray, variable: keras.Variable) -> bool:
    shape = tuple(variable.shape)
    return value.shape == shape or value.shape[1:] == shape and value.ndim == len(shape) + 1


def _check_settings(state: SavedState, settings: Mapping[str, object]) -> None:
    saved = state.record.get("settings", {})
    for name in sorted({*saved} & {*settings}):
        if saved[name] != settings[name]:
            raise ValueError(
                f"{name} must be {saved[name]!r} to go on from {state.directory}, which was saved with it, "
                f"got {settings[name]!r}"
            )


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
