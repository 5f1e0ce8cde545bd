"""Tracking in TensorBoard."""

import os

import tensorflow as tf

from tfheads.callbacks.progress_log import ProgressLog


class TensorBoardCallback(ProgressLog):
    """Callback that writes what `WandbCallback` logs as TensorBoard event files, at the number of updates.

    Args:
        log_dir: where the event files go; a restarted run adds one.
        options: `logging_steps`, `samples_per_step`, `tokens_per_step`, `tokenizer`, `sample_prompts`,
            `generate_kwargs`, `finish`: see `ProgressLog`.
    """

    tracker = "TensorBoard"

    def __init__(self, log_dir: "str | os.PathLike", **options):
        super().__init__(**options)
        self.log_dir = os.fspath(log_dir)
        self._writer = None

    def open(self) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self.log_dir)

    def write(self, scalars, step):
        if self._writer is not None:
            with self._writer.as_default(step=step):
                for name, value in scalars.items():
                    tf.summary.scalar(name, value)

    def write_samples(self, rows, step):
        if self._writer is not None:
            with self._writer.as_default(step=step):
                tf.summary.text("samples", [[prompt, text] for prompt, text in rows])

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if self._writer is not None:  # the program may end before the tracking does
            self._safely(self._writer.flush)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
