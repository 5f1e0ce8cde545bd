"""Keeps a repository of the Hub up to date while a model trains."""

import inspect
import logging
import os
from pathlib import Path

import keras
import numpy as np

from tfheads.callbacks.background_uploads import BackgroundUploads
from tfheads.callbacks.chief import is_chief
from tfheads.callbacks.run_settings import run_settings
from tfheads.callbacks.training_state import TrainingState
from tfheads.checkpoints.model_card import card_of, model_card

logger = logging.getLogger("tfheads")


class PushToHubCallback(keras.callbacks.Callback):
    """Callback that saves the model and uploads it to the Hub while the training goes on.

    The model is written to `output_dir` before the training goes on, so that a save is of one moment; the upload runs
    in a thread. If one still runs at the next save, the newest save follows it and those between are left out. A
    network that fails is reported in one line and tried again at the next save; it never ends the training. When the
    training ends, or the program does, the last save is in `output_dir` and is uploaded before the program is over.
    Only the chief of several workers acts.

    Args:
        output_dir: where the model is saved; always a whole checkpoint.
        save_strategy: "epoch", "steps", or "no" for the end of the training only.
        save_steps: updates between two saves, for "steps".
        tokenizer: saved beside the model.
        hub_model_id: the repository, such as "me/my-model"; default: the last part of `output_dir`, under one's name.
        hub_token: token for the upload; default: the saved one.
        checkpoint: whether the state of the training is saved and uploaded too, to go on from elsewhere; or the
            `TrainingState` of the run, whose states in `output_dir` are then uploaded.
        private: whether a new repository is private; None for the account's default.
        model_card_args: facts for the model card, such as `dataset`, `language`, `license`, `tags`; arguments of
            `tfheads.checkpoints.model_card.model_card`.

    Raises:
        ValueError: `save_steps` is missing, or an unknown strategy.
        TypeError: an unknown argument.
    """

    def __init__(
        self,
        output_dir: "str | os.PathLike",
        save_strategy: str = "epoch",
        save_steps: int | None = None,
        tokenizer=None,
        hub_model_id: str | None = None,
        hub_token: "str | bool | None" = None,
        checkpoint: bool | TrainingState = False,
        private: bool | None = None,
        **model_card_args,
    ):
        super().__init__()
        save_strategy = str(getattr(save_strategy, "value", save_strategy)).lower()
        if save_strategy not in ("epoch", "steps", "no"):
            raise ValueError(f'save_strategy must be "epoch", "steps" or "no", got {save_strategy!r}')
        if save_strategy == "steps" and (not isinstance(save_steps, int) or save_steps < 1):
            raise ValueError(f'save_steps must be a whole number from 1 with save_strategy="steps", got {save_steps!r}')
        unknown = set(model_card_args) - set(inspect.signature(model_card).parameters)
        if unknown:
            raise TypeError(f"PushToHubCallback has no argument {', '.join(sorted(unknown))}")
        self.output_dir = Path(output_dir)
        self.save_strategy = save_strategy
        self.save_steps = save_steps
        self.tokenizer = tokenizer
        self.hub_model_id = hub_model_id or self.output_dir.absolute().name
        self.model_card_args = model_card_args
        self.training_history: list[dict] = []
        self.uploads = BackgroundUploads(self.hub_model_id, hub_token, private, bool(checkpoint))
        self._state = None
        if checkpoint is True:
            self._state = TrainingState(self.output_dir, save_strategy="no", save_total_limit=1)
        self._saved_at: int | None = None

    @property
    def commit_url(self) -> str | None:
        """The address of the newest commit; None before the first."""
        return self.uploads.commit_url

    def set_model(self, model):
        super().set_model(model)
        if self._state is not None:
            self._state.set_model(model)

    def set_params(self, params):
        super().set_params(params)
        if self._state is not None:
            self._state.set_params(params)

    def on_train_begin(self, logs=None):
        self.training_history = []
        self._step = self._saved_at = self._iterations()
        if self._state is not None:
            self._state.on_train_begin(logs)

    def on_epoch_begin(self, epoch, logs=None):
        if self._state is not None:
            self._state.on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch, logs=None):
        if self._state is not None:
            self._state.on_train_batch_end(batch, logs)
        if self.save_strategy == "steps":
            before, self._step = self._step, self._iterations()
            if self._step // self.save_steps > before // self.save_steps:
                self._save(f"Training in progress, step {self._step}")

    def on_epoch_end(self, epoch, logs=None):
        numbers = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
        self.training_history.append({"epoch": epoch + 1, **numbers})
        if self._state is not None:
            self._state.on_epoch_end(epoch, logs)
        if self.save_strategy == "epoch":
            self._save(f"Training in progress, epoch {epoch + 1}")

    def on_train_end(self, logs=None):
        self._collect()
        if not is_chief(self.model):
            return
        self.uploads.wait()
        if self._saved_at != self._iterations() or self.uploads.failed or self.save_strategy != "epoch":
            self._save_and_upload("End of training")
        self.uploads.wait()

    def _iterations(self) -> int:
        return int(self.model.optimizer.iterations.numpy())

    def _save(self, message: str) -> None:
        self._collect()
        if is_chief(self.model):
            self._save_and_upload(message)

    def _collect(self) -> None:
        """What the workers do together before the chief saves."""
        if self._state is not None:
            self._state.collect()

    def _save_and_upload(self, message: str) -> None:
        try:
            self.model.save_pretrained(self.output_dir, tokenizer=self.tokenizer, card=self._card())
            if self._state is not None:
                self._state.write()
            self.uploads.submit(self.output_dir, message)
            self._saved_at = self._iterations()
        except OSError as error:
            logger.error("the model could not be saved in %s, training goes on: %s", self.output_dir, error)

    def _card(self) -> str:
        last = self.training_history[-1] if self.training_history else {}
        results = {name.removeprefix("val_"): value for name, value in last.items() if name.startswith("val_")}
        details = {"metrics": results, "history": self.training_history, "hyperparameters": run_settings(self.model)}
        return card_of(self.model, self.hub_model_id, **(details | self.model_card_args))
