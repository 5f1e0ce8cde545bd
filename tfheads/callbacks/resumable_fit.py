"""Training that goes on where it was interrupted, as if nothing had happened.

    state = TrainingState("run", save_steps=500)
    history = fit_resumable(model, batches, state=state, epochs=3, steps_per_epoch=blocks.steps_per_epoch(8))

with `batches(epoch, step)` the data from there on. Killed and started again, this gives the losses, to the last bit, of
a run that was never stopped.
"""

import logging
import os
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfheads.callbacks.preemption import ending_on_sigterm
from tfheads.callbacks.saved_state import Position
from tfheads.callbacks.training_state import TrainingState, has_metrics_to_make

logger = logging.getLogger("tfheads")


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

    On SIGTERM the running step is finished and saved before the process ends, unless the state's `save_strategy` is
    "no" or the program has a handler of its own.

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
        Preempted: a `SystemExit` with code 143, after SIGTERM.
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
        if position.step and has_metrics_to_make(model, state.restored):
            model.test_on_batch(next(iter(data)))
        with ending_on_sigterm(state) as endings:
            model.fit(
                data,
                initial_epoch=position.epoch,
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                callbacks=[_Boundaries(position, steps_per_epoch, last), *callbacks, state, *endings],
                shuffle=False,
                **fit_arguments,
            )
    else:
        logger.info("%s is at the end of the run, there is nothing to train", state.directory)
        if state.restored is not None:
            model.optimizer.finalize_variable_values(model.trainable_variables)  # as `fit` does in the end
    return _whole_history(model, state)


def _whole_history(model, state: TrainingState) -> keras.callbacks.History:
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
