"""Evaluation while a model trains: every few updates, or after each epoch."""

from collections.abc import Callable, Mapping, Sequence

import keras

from tfheads.callbacks.progress_log import ProgressLog
from tfheads.callbacks.run_variables import assign_metrics, metric_values


class EvaluationCallback(keras.callbacks.Callback):
    """Callback that evaluates while the model trains and leaves the running averages of the epoch as they were.

    Args:
        dataset: what to evaluate on; or a function of the model that gives results by name, for measures that need
            more than `model.evaluate`.
        eval_steps: updates between two evaluations; None evaluates after each epoch, and the results join the epoch's
            logs under names that begin with "val_".
        on_start: whether to evaluate before the first update.
        trackers: callbacks that get the results within an epoch, under `val/`.

    Attributes:
        results: a dict for each evaluation: "step", "val_loss", ...

    Raises:
        ValueError: `eval_steps` < 1.
    """

    def __init__(
        self,
        dataset,
        eval_steps: int | None = None,
        *,
        on_start: bool = False,
        trackers: Sequence[ProgressLog] = (),
    ):
        super().__init__()
        if eval_steps is not None and eval_steps < 1:
            raise ValueError(f"eval_steps must be at least 1, got {eval_steps}")
        self.dataset = dataset
        self.eval_steps = eval_steps
        self.on_start = on_start
        self.trackers = list(trackers)
        self.results: list[dict] = []

    def on_train_begin(self, logs=None):
        self._evaluated_at = int(self.model.optimizer.iterations.numpy())
        self._is_due = self.on_start and self._evaluated_at == 0

    def on_train_batch_begin(self, batch, logs=None):
        if self._is_due:  # not in on_train_begin, where trackers may not have begun yet
            self._is_due = False
            self._evaluate(0, self.trackers)

    def on_train_batch_end(self, batch, logs=None):
        if self.eval_steps is None:
            return
        step = int(self.model.optimizer.iterations.numpy())
        if step // self.eval_steps > self._evaluated_at // self.eval_steps:
            self._evaluated_at = step
            self._evaluate(step, self.trackers)

    def on_epoch_end(self, epoch, logs=None):
        if self.eval_steps is None:
            found = self._evaluate(int(self.model.optimizer.iterations.numpy()), ())  # trackers read the epoch's logs
            if logs is not None:
                logs.update({name: value for name, value in found.items() if name != "step"})

    def _evaluate(self, step: int, trackers: Sequence[ProgressLog]) -> dict[str, float]:
        values = metric_values(self.model)
        found = results_of(self.model, self.dataset)
        assign_metrics(self.model, values)
        self.results.append({"step": step, **{f"val_{name}": value for name, value in found.items()}})
        for tracker in trackers:
            tracker.log_scalars({f"val/{name}": value for name, value in found.items()}, step)
        return self.results[-1]


def results_of(model, dataset_or_function: "Callable | object") -> dict[str, float]:
    """What a function of the model finds, or `model.evaluate` on a dataset."""
    if callable(dataset_or_function):
        found: Mapping = dataset_or_function(model)
    else:
        found = model.evaluate(dataset_or_function, verbose=0, return_dict=True)
    return {name: float(value) for name, value in found.items()}
