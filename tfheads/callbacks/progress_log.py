"""What is measured while a model trains, and at which step: the part that all trackers share."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from tfheads.callbacks.chief import is_chief

logger = logging.getLogger("tfheads")


def is_due(before: int, step: int, every: int, also: Sequence[int] = ()) -> bool:
    """Whether one of the updates after `before`, up to `step`, is one of every so many or one of those named."""
    return step // every > before // every or any(before < one <= step for one in also)


class ProgressLog(keras.callbacks.Callback):
    """Base of the tracking callbacks. A subclass says where numbers and texts go.

    The step is the number of updates that the optimizer has made, also where several run in one execution, after a
    restart, and where a loss scale has left updates out. Only the chief writes. An error of the tracker is reported
    once and never ends the training.

    Args:
        logging_steps: updates between two entries; with `steps_per_execution` there is at most one for an execution.
        logging_also: further updates after which there is an entry, such as the first.
        samples_per_step, tokens_per_step: rows and tokens of a batch over all replicas, for the throughput. Without
            the second, causal models count the labels.
        tokenizer, sample_prompts: texts that the model goes on with, or whose masks it fills, after each epoch.
        generate_kwargs: options of `model.generate` for them.
        finish: whether the tracking ends with the training; otherwise `end` ends it.

    Raises:
        ValueError: `logging_steps` < 1, or prompts without a tokenizer.
    """

    tracker: str

    def __init__(
        self,
        *,
        logging_steps: int = 1,
        logging_also: Sequence[int] = (),
        samples_per_step: int | None = None,
        tokens_per_step: int | None = None,
        tokenizer=None,
        sample_prompts: Sequence[str] = (),
        generate_kwargs: Mapping | None = None,
        finish: bool = True,
    ):
        super().__init__()
        if logging_steps < 1:
            raise ValueError(f"logging_steps must be at least 1, got {logging_steps}")
        if sample_prompts and tokenizer is None:
            raise ValueError("tokenizer must be given with sample_prompts, got None")
        self.logging_steps = logging_steps
        self.logging_also = tuple(logging_also)
        self.samples_per_step = samples_per_step
        self.tokens_per_step = tokens_per_step
        self.tokenizer = tokenizer
        self.sample_prompts = list(sample_prompts)
        self.generate_kwargs = {"max_new_tokens": 30, "seed": 0, **(generate_kwargs or {})}
        self.finish = finish
        self._reported = False

    def open(self) -> None:
        """Starts the tracking."""

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Takes numbers by name."""
        raise NotImplementedError

    def write_samples(self, rows: list[tuple[str, str]], step: int) -> None:
        """Takes (prompt, text) pairs."""

    def close(self) -> None:
        """Ends the tracking."""

    def log_scalars(self, scalars: Mapping[str, float], step: int | None = None) -> None:
        """Writes numbers by name at a step; None for the current one."""
        if is_chief(self.model):
            self._safely(self.write, scalars, self._iterations() if step is None else step)

    def end(self) -> None:
        """Ends the tracking; an error is reported as any other of the tracker."""
        if is_chief(self.model):
            self._safely(self.close)

    def on_train_begin(self, logs=None):
        self._step = self._logged_at = self._iterations()
        self._seconds, self._timed_steps = 0.0, 0
        self._is_first = True
        self._totals, self._window = None, np.zeros((2, 1))
        if is_chief(self.model):
            self._safely(self.open)

    def on_epoch_begin(self, epoch, logs=None):
        self._totals = None

    def on_test_begin(self, logs=None):
        self._collect()  # the evaluation of the epoch starts the running loss anew, before on_epoch_end
        self._totals = None

    def on_train_batch_begin(self, batch, logs=None):
        if self._totals is None:  # not when the epoch begins: a restarted run then gets its averages back
            self._totals = self._loss_totals()
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        before, self._step = self._step, self._iterations()
        if self._is_first:  # its time is that of the compiler
            self._is_first = False
        else:
            self._seconds += time.perf_counter() - self._began
            self._timed_steps += self._step - before
        if is_due(self._logged_at, self._step, self.logging_steps, self.logging_also):
            self.log_scalars(self._training_scalars(logs or {}), self._step)
            self._logged_at = self._step

    def on_epoch_end(self, epoch, logs=None):
        self._collect()
        numbers = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        scalars = {f"epoch/{name}": value for name, value in numbers.items() if not name.startswith("val_")}
        scalars |= {f"val/{name.removeprefix('val_')}": value for name, value in numbers.items() if name[:4] == "val_"}
        self.log_scalars({**scalars, "epoch/epoch": epoch + 1}, self._step)
        if self.sample_prompts and is_chief(self.model):
            self._safely(lambda: self.write_samples(self._samples(), self._step))

    def on_train_end(self, logs=None):
        if self.finish:
            self.end()

    def _training_scalars(self, logs: Mapping) -> dict[str, float]:
        others = {name: float(value) for name, value in logs.items() if name not in ("loss", "perplexity")}
        scalars = {f"train/{name}": value for name, value in others.items()}
        self._collect()
        seen, self._window = self._window, np.zeros((2, 1))
        loss = float(logs.get("loss", math.nan))
        if seen[1].any():
            loss = float(np.divide(seen[0], seen[1], out=np.zeros_like(seen[0]), where=seen[1] > 0).sum())
        scalars["train/loss"] = loss
        if getattr(self.model, "reports_perplexity", False):
            scalars["train/perplexity"] = math.exp(min(loss, 700.0))
        scalars["train/learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        steps = (self.params or {}).get("steps")
        if steps:
            scalars["train/epoch"] = self._step / steps
        return scalars | self._throughput(float(seen[1].sum()))

    def _throughput(self, labels: float) -> dict[str, float]:
        """Rates since the last entry, without the time between executions (evaluation, saving)."""
        if not self._timed_steps or not self._seconds:
            return {}
        rate = self._timed_steps / self._seconds
        tokens = self.tokens_per_step
        if tokens is None and getattr(self.model, "task", None) == "causal-lm" and labels:
            tokens = labels / max(1, self._step - self._logged_at)
        self._seconds, self._timed_steps = 0.0, 0
        found = {"steps": rate, "samples": self.samples_per_step and rate * self.samples_per_step}
        found["tokens"] = tokens and rate * tokens
        return {f"train/{name}_per_second": value for name, value in found.items() if value}

    def _collect(self) -> None:
        """Adds what the running loss has seen since the last time to what the next entry tells."""
        if self._totals is not None:
            now = self._loss_totals()
            self._window, self._totals = self._window + now - self._totals, now

    def _loss_totals(self) -> np.ndarray:
        """The model's running loss as sums and counts, so that the loss of some batches alone can be told."""
        if not getattr(self.model, "has_own_loss", False):
            return np.zeros((2, 1))
        tracker = self.model._loss_tracker
        return np.array([tracker.total.numpy(), tracker.count.numpy()], "float64")

    def _iterations(self) -> int:
        return int(self.model.optimizer.iterations.numpy())

    def _samples(self) -> list[tuple[str, str]]:
        """Each prompt and what the model makes of it."""
        if getattr(self.model.backbone, "causal", False) and hasattr(self.model, "generate"):
            return [(prompt, self._continued(prompt)) for prompt in self.sample_prompts]
        return [(prompt, self._filled(prompt)) for prompt in self.sample_prompts]

    def _continued(self, prompt: str) -> str:
        inputs = self.tokenizer(prompt, return_tensors="np", return_token_type_ids=False)
        return self.tokenizer.decode(self.model.generate(inputs, **self.generate_kwargs)[0], skip_special_tokens=True)

    def _filled(self, prompt: str) -> str:
        inputs = dict(self.tokenizer(prompt, return_tensors="np"))
        likeliest = np.asarray(self.model(inputs).logits).argmax(-1)
        ids = np.where(inputs["input_ids"] == self.tokenizer.mask_token_id, likeliest, inputs["input_ids"])
        return self.tokenizer.decode(ids[0], skip_special_tokens=True)

    def _safely(self, function: Callable, *arguments) -> None:
        try:
            function(*arguments)
        except Exception as error:  # whatever the tracker does, the training goes on
            if not self._reported:
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                logger.warning("%s failed, training goes on without it: %s", self.tracker, text)
            self._reported = True
