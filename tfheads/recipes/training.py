"""One training run: optimizer, callbacks, fit, evaluation, results, and the model in Hugging Face's format."""

import logging
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from tfheads.callbacks.training_state import TrainingState, checkpoints, fit_resumable
from tfheads.checkpoints.model_card import model_card
from tfheads.models import TaskModel
from tfheads.optimizers import create_optimizer
from tfheads.recipes.arguments import TrainingArguments
from tfheads.recipes.run_log import EvaluateBetween, RunLog, evaluation_entry, write_results, write_state

logger = logging.getLogger("tfheads")


@dataclass
class TrainingRun:
    """A model with its data, ready to be trained and evaluated as the arguments say.

    Attributes:
        arguments: of the run.
        model: not compiled yet.
        tokenizer: saved beside the model.
        batches: `batches(epoch, step)` gives training data from there on, without end; None if there is none.
        updates_per_epoch: updates in one pass over the training data; for a stream, in the whole run.
        evaluation: the whole evaluation data; None if there is none.
        samples: how many rows there are to train and to evaluate on, by "train" and "eval".
        dataset: what the model card calls the data.
    """

    arguments: TrainingArguments
    model: TaskModel
    tokenizer: object
    batches: Callable[[int, int], tf.data.Dataset] | None
    updates_per_epoch: int
    evaluation: tf.data.Dataset | None
    samples: dict[str, int]
    dataset: list[str]

    @property
    def max_steps(self) -> int:
        """How many updates the run has."""
        if self.arguments.max_steps > 0:
            return self.arguments.max_steps
        return math.ceil(self.arguments.num_train_epochs * self.updates_per_epoch)

    def run(self) -> dict[str, float]:
        """Trains, evaluates and saves.

        Returns:
            The results that all_results.json holds.
        """
        arguments, results = self.arguments, {}
        self._compile()
        self.log = RunLog(arguments.output_dir, arguments.logging_steps, self.updates_per_epoch)
        if arguments.do_train:
            results.update(self._train())
        if arguments.do_eval:
            results.update(self._evaluate())
        if arguments.do_train:
            self._save(results)
        if arguments.push_to_hub:
            self._push(results)
        return results

    def _compile(self) -> None:
        arguments = self.arguments
        optimizer = create_optimizer(
            arguments.learning_rate,
            num_train_steps=self.max_steps,
            warmup_ratio=arguments.warmup_ratio,
            warmup_steps=arguments.warmup_steps,
            lr_scheduler_type=arguments.lr_scheduler_type,
            weight_decay=arguments.weight_decay,
            adam_beta1=arguments.adam_beta1,
            adam_beta2=arguments.adam_beta2,
            adam_epsilon=arguments.adam_epsilon,
            max_grad_norm=arguments.max_grad_norm,
        )
        self.model.compile(
            optimizer=optimizer,
            jit_compile=arguments.jit_compile,
            steps_per_execution=arguments.steps_per_execution,
            gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        )

    def _train(self) -> dict[str, float]:
        """Fits the model, from where an interrupted run in output_dir ends."""
        arguments, started = self.arguments, time.monotonic()
        if arguments.overwrite_output_dir:
            for path in checkpoints(arguments.output_dir):
                shutil.rmtree(path)
        state = TrainingState(
            arguments.output_dir,
            save_strategy=arguments.save_strategy,
            save_steps=arguments.save_steps,
            save_total_limit=arguments.save_total_limit,
        )
        begin = _Begin(self)
        fit_resumable(
            self.model,
            self.batches,
            state=state,
            epochs=math.ceil(self.max_steps / self.updates_per_epoch),
            steps_per_epoch=self.updates_per_epoch,
            max_steps=self.max_steps,
            checkpoint=arguments.resume_from_checkpoint,
            callbacks=[begin, self.log, *self._callbacks()],
            validation_data=self.evaluation if arguments.eval_strategy == "epoch" else None,
            verbose=1 if sys.stdout.isatty() else 2,
        )
        seconds, step = time.monotonic() - started, int(self.model.optimizer.iterations)
        done = step - (begin.step if begin.step is not None else step)
        rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        results = {
            "epoch": step / self.updates_per_epoch,
            "train_loss": float(self.log.totals[0] / max(self.log.totals[1], 1.0)),
            "train_runtime": round(seconds, 4),
            "train_samples": self.samples["train"],
            "train_samples_per_second": round(done * rows / seconds, 3),
            "train_steps_per_second": round(done / seconds, 3),
        }
        if not done:  # the run was complete before: its own figures stay
            return {}
        write_results(arguments.output_dir, "train", results)
        write_state(arguments.output_dir, self.log, step, self.max_steps)
        return results

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        arguments, found = self.arguments, []
        if arguments.eval_strategy == "steps":
            eval_steps = arguments.eval_steps or arguments.logging_steps
            found.append(EvaluateBetween(self.evaluation, self.log, eval_steps))
        return found

    def _evaluate(self) -> dict[str, float]:
        """The loss and the perplexity over the whole evaluation data."""
        started = time.monotonic()
        found = self.model.evaluate(self.evaluation, verbose=0, return_dict=True)
        seconds = time.monotonic() - started
        results = {
            **evaluation_entry(found),
            "eval_runtime": round(seconds, 4),
            "eval_samples": self.samples["eval"],
            "eval_samples_per_second": round(self.samples["eval"] / seconds, 3),
        }
        Path(self.arguments.output_dir).mkdir(parents=True, exist_ok=True)
        write_results(self.arguments.output_dir, "eval", results)
        print(f"Evaluation: loss {results['eval_loss']:.4f}, perplexity {results['perplexity']:.2f}")
        return results

    def _save(self, results: dict) -> None:
        self.model.save_pretrained(self.arguments.output_dir, tokenizer=self.tokenizer, card=self._card(results))
        print(f"The model is in {self.arguments.output_dir}")

    def _card(self, results: dict) -> str:
        """The model card of the run."""
        arguments = self.arguments
        names = ("learning_rate", "weight_decay", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "seed")
        batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
        return model_card(
            arguments.hub_model_id or Path(arguments.output_dir).resolve().name,
            task=self.model.task,
            architecture=type(self.model).__name__,
            parameters=self.model.count_params(),
            base_model=arguments.model_name_or_path,
            dataset=self.dataset,
            dataset_config=arguments.dataset_config_name,
            metrics={name: results[name] for name in ("eval_loss", "perplexity") if name in results},
            history=[_without_step(entry) for entry in self.log.entries if "eval_loss" in entry],
            hyperparameters={
                **{name: getattr(arguments, name) for name in names},
                "train_batch_size": batch,
                "num_train_steps": self.max_steps,
                "precision": arguments.policy,
            },
        )

    def _push(self, results: dict) -> None:
        arguments = self.arguments
        address = self.model.push_to_hub(
            arguments.hub_model_id or Path(arguments.output_dir).resolve().name,
            private=arguments.hub_private_repo,
            token=arguments.hub_token,
            tokenizer=self.tokenizer,
            card=self._card(results),
        )
        print(f"The model is at {address}")


class _Begin(keras.callbacks.Callback):
    """What happens once the model is restored and before the first step."""

    def __init__(self, run: TrainingRun):
        super().__init__()
        self.run, self.step = run, None

    def on_train_begin(self, logs=None):
        self.step = int(self.model.optimizer.iterations)
        self.run.log.begin(self.step)
        if self.step:
            print(f"Going on from step {self.step} of {self.run.max_steps} in {self.run.arguments.output_dir}")
        elif self.run.arguments.eval_on_start:
            found = evaluation_entry(self.model.evaluate(self.run.evaluation, verbose=0, return_dict=True))
            self.run.log.add(0, found)


def check_output_dir(arguments: TrainingArguments) -> None:
    """Raises before any work if training would replace the result of another run.

    Raises:
        FileExistsError: output_dir holds a model, no state to go on from, and overwrite_output_dir is not set.
        NotADirectoryError: output_dir is a file.
    """
    path = Path(arguments.output_dir)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"output_dir must be a directory, {path} is a file")
    finished = (path / "config.json").is_file() and not checkpoints(path)
    if arguments.do_train and finished and not arguments.overwrite_output_dir:
        raise FileExistsError(f"output_dir {path} holds a model already: give another, or set overwrite_output_dir")


def _without_step(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if name != "eval_runtime"}
