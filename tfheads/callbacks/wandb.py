"""Tracking in Weights & Biases."""

import os
from collections.abc import Mapping
from pathlib import Path

from tfheads.callbacks.progress_log import ProgressLog
from tfheads.callbacks.run_settings import run_settings

RUN_FILE = "wandb_run_id"
MOST_ROWS = 1000  # of the table of samples, which is uploaded anew each time


class WandbCallback(ProgressLog):
    """Callback that tracks a run in Weights & Biases.

    Logged are loss, perplexity, learning rate and throughput under `train/`, results on validation data under `val/`,
    the averages of an epoch under `epoch/`, and a table of generated texts; the x axis of all is `train/global_step`,
    the number of updates. The config holds the model's config, how it was compiled, and what is given here. Works with
    `WANDB_MODE=offline` and `disabled`. A run that is active already is used and left open.

    Args:
        project, entity, name, tags: of the run, as in `wandb.init`.
        config: further values, such as the arguments of a recipe.
        directory: where the id of the run is kept, such as `output_dir`: a restarted training goes on in the same run.
        wandb_arguments: further arguments of `wandb.init`.
        options: `logging_steps`, `samples_per_step`, `tokens_per_step`, `tokenizer`, `sample_prompts`,
            `generate_kwargs`, `finish`: see `ProgressLog`.
    """

    tracker = "Weights & Biases"

    def __init__(
        self,
        project: str | None = None,
        *,
        entity: str | None = None,
        name: str | None = None,
        tags: "list[str] | None" = None,
        config: Mapping | None = None,
        directory: "str | os.PathLike | None" = None,
        wandb_arguments: Mapping | None = None,
        **options,
    ):
        super().__init__(**options)
        self.arguments = {"project": project, "entity": entity, "name": name, "tags": tags, **(wandb_arguments or {})}
        self.config = dict(config or {})
        self.directory = None if directory is None else Path(directory)
        self.run = None
        self._is_own = False
        self._rows: list[list] = []

    def open(self) -> None:
        import wandb

        if self.run is None:
            self.run = wandb.run
            if self.run is None:
                arguments = {"mode": os.environ.get("WANDB_MODE"), **self.arguments, **self._resumed()}
                self.run = wandb.init(**{name: value for name, value in arguments.items() if value is not None})
                self._is_own = True
                self._remember(self.run.id)
        model = {"class": type(self.model).__name__, "parameters": self.model.count_params()}
        if hasattr(self.model, "config"):
            model |= self.model.config.to_dict()
        config = {"model": model, "training": run_settings(self.model), **self.config}
        self.run.config.update(config, allow_val_change=True)
        # Not W&B's own step, which refuses what a restarted run does again.
        self.run.define_metric("train/global_step")
        self.run.define_metric("*", step_metric="train/global_step")

    def write(self, scalars, step):
        if self.run is not None:
            self.run.log({**scalars, "train/global_step": step})

    def write_samples(self, rows, step):
        if self.run is None:
            return
        import wandb

        self._rows = [*self._rows, *([step, prompt, text] for prompt, text in rows)][-MOST_ROWS:]
        table = wandb.Table(columns=["global_step", "prompt", "text"], data=self._rows)
        self.run.log({"samples": table, "train/global_step": step})

    def close(self) -> None:
        if self._is_own:
            self.run.finish()
        self.run, self._is_own = None, False

    def _resumed(self) -> dict:
        path = None if self.directory is None else self.directory / RUN_FILE
        if path is None or not path.is_file():
            return {}
        return {"id": path.read_text(encoding="utf-8").strip(), "resume": "allow"}

    def _remember(self, run_id: str) -> None:
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / RUN_FILE).write_text(f"{run_id}\n", encoding="utf-8")
