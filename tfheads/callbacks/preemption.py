"""Ending a run on SIGTERM, which schedulers send some time before they take a machine away.

The running step is finished, the state is saved, and the process ends with exit code 143 as one that SIGTERM ended:
with 0 a scheduler would take the run for finished and not start it again. All workers of a run end together, whichever
of them got the signal.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator

import keras

from tfheads.callbacks.training_state import TrainingState
from tfheads.distribute import is_chief
from tfheads.distribute.agreement import on_all_workers
from tfheads.distribute.replicas import has_workers

ASKED_EVERY = 1.0  # seconds between two times when workers ask each other
MOST_STEPS = 100


class Preempted(SystemExit):
    """The end of a run that SIGTERM asked for, after its state was saved."""

    def __init__(self):
        super().__init__(128 + signal.SIGTERM)


class StopSignal:
    """Scope in which SIGTERM is taken note of instead of ending the process; an own handler of the program stays.

    Attributes:
        received: whether it came.
    """

    def __init__(self):
        self.received = False
        self._is_ours = False

    def __enter__(self) -> "StopSignal":
        # TensorFlow's servers install a handler of their own, which Python does not know: None.
        free = signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None)
        self._is_ours = free and threading.current_thread() is threading.main_thread()
        if self._is_ours:
            signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *exception) -> None:
        if self._is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _receive(self, number, frame) -> None:
        self.received = True


@contextlib.contextmanager
def ending_on_sigterm(state: TrainingState) -> Iterator[list[keras.callbacks.Callback]]:
    """Scope of a `fit` that SIGTERM ends after a save; gives the callbacks for it, which come behind the state."""
    if state.save_strategy == "no":
        yield []
        return
    with StopSignal() as stop:
        yield [Preemption(state, stop)]


class Preemption(keras.callbacks.Callback):
    """Callback that saves and ends the run after the step, or the evaluation, in which SIGTERM came.

    Args:
        state: saves; it must come before this callback.
        stop: the signal.

    Raises:
        Preempted: on every worker, after the state was saved.
    """

    def __init__(self, state: TrainingState, stop: StopSignal):
        super().__init__()
        self.state, self.stop = state, stop

    def on_train_begin(self, logs=None):
        self._asked_at, self._steps, self._next = time.monotonic(), 0, 1

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        alone = not has_workers(self.model.distribute_strategy)
        if self.state.is_at_end_of_epoch or not (alone or self._steps >= self._next):
            return
        if self._is_wanted():
            self._end()

    def on_epoch_end(self, epoch, logs=None):
        if self._is_wanted():
            self._end()

    def _is_wanted(self) -> bool:
        """Whether any worker got the signal. They ask each other about once a second, after the same step."""
        strategy = self.model.distribute_strategy
        if not has_workers(strategy):
            return self.stop.received
        now = time.monotonic()
        milliseconds = min(int(1000 * (now - self._asked_at) / max(self._steps, 1)), 10**6)
        answers = on_all_workers(strategy, [int(self.stop.received), milliseconds])
        slowest = max(answer[1] for answer in answers)
        self._asked_at, self._steps = now, 0
        self._next = min(max(int(1000 * ASKED_EVERY) // max(slowest, 1), 1), MOST_STEPS)
        return any(answer[0] for answer in answers)

    def _end(self) -> None:
        state = self.state
        if state.asked != state.position:
            state.save()
        if is_chief(self.model):
            done = state.saved == state.position
            print(
                f"Ended by SIGTERM at step {state.position.global_step}: "
                + (f"the state is saved in {state.directory}, " if done else "its state could not be saved, ")
                + "start again to go on",
                file=sys.stderr,
                flush=True,
            )
        raise Preempted
