"""Evaluation between two ends of epochs."""

from collections.abc import Sequence

import keras

from tfheads.callbacks.progress_log import ProgressLog


class EvaluationCallback(keras.callbacks.Callback):
    """Callback that evaluates every few updates and leaves the running averages of the epoch as they were.

    Args:
        dataset: what to evaluate on.
        eval_steps: updates between two evaluations.
        on_start: whether to evaluate before the first update.
        trackers: callbacks that get the results, under `val/`.

    Attributes:
        results: a dict for each evaluation: "step", "val_loss", ...

    Raises:
        ValueError: `eval_steps` < 1.
    """

    def __init__(self, dataset, eval_steps: int, *, on_start: bool = False, trackers: Sequence[ProgressLog] = ()):
        super().__init__()
        if eval_steps < 1:
            raise ValueError(f"eval_steps must be at least 1, got {eval_steps}")
        self.dataset = dataset
        self.eval_steps = eval_steps
        self.on_start = on_start
        self.trackers = list(trackers)
        self.results: list[dict] = []

    def on_train_begin(self, logs=None):
        self._evaluated_at = int(self.model.optimizer.iterations)
        self._is_due = self.on_start and self._evaluated_at == 0

    def on_train_batch_begin(self, batch, logs=None):
        if self._is_due:  # not in on_train_begin, where trackers may not have begun yet
            self._is_due = False
            self._evaluate(0)

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
        if step // self.eval_steps > self._evaluated_at // self.eval_steps:
            self._evaluated_at = step
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        variables = [variable for metric in self.model.metrics for variable in metric.variables]
        values = [variable.numpy() for variable in variables]
        found = self.model.evaluate(self.dataset, verbose=0, return_dict=True)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.results.append({"step": step, **{f"val_{name}": float(value) for name, value in found.items()}})
        for tracker in self.trackers:
            tracker.log_scalars({f"val/{name}": float(value) for name, value in found.items()}, step)
