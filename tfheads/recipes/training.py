"""One training run: optimizer, callbacks, fit, evaluation, results, and the model in Hugging Face's format."""

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import keras
import tensorflow as tf

from tfheads.callbacks import saved_state
from tfheads.callbacks.evaluation import EvaluationCallback, results_of
from tfheads.callbacks.progress_log import ProgressLog
from tfheads.callbacks.push_to_hub import PushToHubCallback
from tfheads.callbacks.resumable_fit import fit_resumable
from tfheads.callbacks.run_settings import run_settings
from tfheads.callbacks.saved_state import checkpoints
from tfheads.callbacks.tensorboard import TensorBoardCallback
from tfheads.callbacks.training_state import TrainingState
from tfheads.callbacks.wandb import RUN_FILE, WandbCallback
from tfheads.checkpoints.atomic import finish_interrupted_save
from tfheads.checkpoints.model_card import card_of
from tfheads.data.masking import TokenMasking
from tfheads.data.pipeline import BatchSource, StreamedBlocks
from tfheads.distribute import barrier, is_chief
from tfheads.distribute.batches import of_this_worker
from tfheads.models import TaskModel
from tfheads.optimizers import create_optimizer
from tfheads.recipes import best_model
from tfheads.recipes.arguments import TrainingArguments
from tfheads.recipes.best_model import DIRECTORY as BEST
from tfheads.recipes.best_model import BestModel
from tfheads.recipes.run_log import RunLog, evaluation_entry, write_results, write_state

logger = logging.getLogger("tfheads")

CURVES = "runs"  # TensorBoard's, in output_dir


@dataclass
class TrainingRun:
    """A model with its data, ready to be trained and evaluated as the arguments say.

    Attributes:
        arguments: of the run.
        model: gets compiled, so that an option that cannot be is known before the run begins.
        tokenizer: saved beside the model.
        batches: `batches(epoch, step)` gives training data from there on, without end; None if there is none.
        updates_per_epoch: updates in one pass over the training data; for a stream, in the whole run.
        evaluation: a function of the model that gives results by name, such as those of
            `tfheads.recipes.evaluation`; its `rows` says on how many. None if there is nothing to evaluate on.
        train_rows: how many rows there are to train on.
        dataset: what the model card calls the data.
        prediction: called with the model at the end, writes what it predicts into output_dir, and gives results by
            name if it can measure them; None if not wanted.
        callbacks: further ones for the training, beside those that the arguments ask for.
    """

    arguments: TrainingArguments
    model: TaskModel
    tokenizer: object
    batches: Callable[[int, int], tf.data.Dataset] | None
    updates_per_epoch: int
    evaluation: Callable[[TaskModel], dict[str, float]] | None
    train_rows: int
    dataset: list[str]
    prediction: Callable[[TaskModel], Mapping[str, float] | None] | None = None
    callbacks: list[keras.callbacks.Callback] = field(default_factory=list)

    def __post_init__(self):
        self._compile()

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
        self.push, self.best, self.measured = None, None, {}
        self.log = RunLog(arguments.output_dir, steps_per_epoch=self.updates_per_epoch, **self._logged_updates())
        self.trackers = self._make_trackers() if arguments.do_train else []
        if arguments.do_train:
            results.update(self._train())
        if arguments.do_eval:
            results.update(self._evaluate())
        if self.prediction is not None:
            results.update(self._predict())
        if arguments.do_train and is_chief():
            self._save()
        for tracker in self.trackers:  # after the save: one that hangs costs nothing
            if tracker.model is not None:  # there was something to train
                tracker.log_scalars({f"final/{name}": value for name, value in results.items()})
                tracker.end()
        barrier()  # no worker ends before the model is saved: the others would take it for dead
        return results

    def _compile(self) -> None:
        arguments = self.arguments
        if arguments.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self.model.compile(  # the optimizer is of the current strategy, which is the model's
            optimizer=self._optimizer() if arguments.do_train else None,
            jit_compile=arguments.jit_compile,
            steps_per_execution=arguments.steps_per_execution,
            gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        )

    def _optimizer(self) -> keras.optimizers.Optimizer:
        arguments = self.arguments
        return create_optimizer(
            arguments.learning_rate,
            num_train_steps=self.max_steps,
            warmup_ratio=arguments.warmup_ratio,
            warmup_steps=arguments.warmup_steps,
            lr_scheduler_type=arguments.lr_scheduler_type,
            lr_scheduler_kwargs=arguments.lr_scheduler_kwargs,
            weight_decay=arguments.weight_decay,
            adam_beta1=arguments.adam_beta1,
            adam_beta2=arguments.adam_beta2,
            adam_epsilon=arguments.adam_epsilon,
            max_grad_norm=arguments.max_grad_norm,
            optim=arguments.optim,
        )

    def _train(self) -> dict[str, float]:
        """Fits the model, from where an interrupted run in output_dir ends."""
        arguments, started = self.arguments, time.monotonic()
        if is_chief():
            finish_interrupted_save(arguments.output_dir)  # of the run before, which is this one's to go on with
            if arguments.overwrite_output_dir:
                forget_earlier_run(Path(arguments.output_dir))
        barrier()
        state = TrainingState(
            arguments.output_dir,
            save_strategy=arguments.save_strategy,
            save_steps=arguments.save_steps,
            save_total_limit=arguments.save_total_limit,
            settings={
                "the rows of an update (global_train_batch_size)": arguments.rows_per_step,
                "the seed of the order": arguments.order_seed,
            },
            kept={"log": self.log},
        )
        begin = _Begin(self, state)
        if is_chief() and self.model.distribute_strategy.num_replicas_in_sync > 1:
            print(_global_batch(arguments, self.model))
        fit_resumable(
            self.model,
            self.batches,
            state=state,
            epochs=math.ceil(self.max_steps / self.updates_per_epoch),
            steps_per_epoch=self.updates_per_epoch,
            max_steps=self.max_steps,
            checkpoint=arguments.resume_from_checkpoint,
            callbacks=[begin, *self._callbacks(), *self.callbacks],
            verbose=(1 if sys.stdout.isatty() else 2) if is_chief() else 0,
        )
        seconds, step = time.monotonic() - started, int(self.model.optimizer.iterations.numpy())
        if self.best is not None:
            self.best.load(self.model)
        if begin.step is None:  # the run was complete before: its own figures stay
            self.log.begin(step)
            return {}
        done = step - begin.step
        results = {
            "epoch": step / self.updates_per_epoch,
            "train_loss": float(self.log.totals[0] / max(self.log.totals[1], 1.0)),
            "train_runtime": round(seconds, 4),
            "train_samples": self.train_rows,
            "train_samples_per_second": round(done * self.arguments.rows_per_step / seconds, 3),
            "train_steps_per_second": round(done / seconds, 3),
        }
        if is_chief():
            write_results(arguments.output_dir, "train", results)
            write_state(arguments.output_dir, self.log, step, self.max_steps)
        return results

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks that the arguments ask for; each tracker gets the evaluations too."""
        arguments, found = self.arguments, [self.log, *self.trackers]
        if arguments.eval_strategy != "no" or arguments.eval_on_start:
            steps = {
                "no": self.max_steps + 1,  # on start alone
                "steps": arguments.eval_steps or arguments.logging_steps,
                "epoch": None,
            }[arguments.eval_strategy]
            options = {"on_start": arguments.eval_on_start, "trackers": list(found)}
            evaluation = EvaluationCallback(self.evaluation, steps, **options)
            # Before the log and the trackers, which read the results at the end of an epoch.
            found.insert(0, evaluation)
            if arguments.load_best_model_at_end:
                chosen = arguments.metric_for_best_model, arguments.greater_is_better
                self.best = BestModel(arguments.output_dir, evaluation, *chosen)
                found.insert(1, self.best)
        if arguments.push_to_hub:
            self.push = self._push_callback()
            found.append(self.push)
        return found

    def _logged_updates(self) -> dict:
        """After which updates the log and the trackers have an entry."""
        arguments = self.arguments
        strategies = {
            "no": (self.max_steps + 1, ()),
            "steps": (arguments.logging_steps, ()),
            "epoch": (self.updates_per_epoch, (self.max_steps,)),  # the last epoch may end early
        }
        every, also = strategies[arguments.logging_strategy]
        return {"logging_steps": every, "logging_also": (*also, *[1] * arguments.logging_first_step)}

    def _make_trackers(self) -> list[ProgressLog]:
        arguments = self.arguments
        options = {
            **self._logged_updates(),
            "samples_per_step": self.arguments.rows_per_step,
            "tokenizer": self.tokenizer,
            "sample_prompts": arguments.sample_prompts,
            "generate_kwargs": {"jit_compile": arguments.jit_compile},
            "finish": False,  # the last evaluation comes after the training
        }
        wanted, found = set(arguments.report_to), []
        if wanted & {"wandb", "all"}:
            name = arguments.run_name or Path(arguments.output_dir).resolve().name
            config, directory = arguments.public(), arguments.output_dir
            found.append(WandbCallback(name=name, config=config, directory=directory, **options))
        if wanted & {"tensorboard", "all"}:
            found.append(TensorBoardCallback(Path(arguments.output_dir, CURVES), **options))
        return found

    def _push_callback(self) -> PushToHubCallback:
        arguments = self.arguments
        return PushToHubCallback(
            arguments.output_dir,
            save_strategy="no" if arguments.hub_strategy == "end" else arguments.save_strategy,
            save_steps=arguments.save_steps,
            tokenizer=self.tokenizer,
            hub_model_id=arguments.hub_model_id,
            hub_token=arguments.hub_token,
            private=arguments.hub_private_repo,
            **self._facts(),
        )

    def _evaluate(self) -> dict[str, float]:
        """The results over the whole evaluation data."""
        started = time.monotonic()
        found = results_of(self.model, self.evaluation)
        seconds = time.monotonic() - started
        self.measured = evaluation_entry(found)
        results = {
            **self.measured,
            "eval_runtime": round(seconds, 4),
            "eval_samples": self.evaluation.rows,
            "eval_samples_per_second": round(self.evaluation.rows / seconds, 3),
        }
        if not is_chief():
            return results
        Path(self.arguments.output_dir).mkdir(parents=True, exist_ok=True)
        write_results(self.arguments.output_dir, "eval", results)
        print(_in_words("Evaluation", found))
        return results

    def _predict(self) -> dict[str, float]:
        """Writes the predictions; gives what they measure."""
        found = self.prediction(self.model)
        if not found:
            return {}
        results = {f"predict_{name}": float(value) for name, value in found.items()}
        if is_chief():
            write_results(self.arguments.output_dir, "predict", results)
            print(_in_words("Prediction", found))
        return results

    def _save(self) -> None:
        """Writes the model with its results, and uploads it."""
        output_dir = self.arguments.output_dir
        self.model.save_pretrained(output_dir, tokenizer=self.tokenizer, card=self._card())
        print(f"The model is in {output_dir}")
        if self.push is not None:
            self.push.uploads.submit(Path(output_dir), "End of training, with results")
            self.push.uploads.wait()
            if not self.push.uploads.failed:
                print(f"The model is at {self.push.commit_url}")

    def _facts(self) -> dict:
        """What the model card says of the run and the model does not know."""
        arguments = self.arguments
        dataset = {"dataset": self.dataset, "dataset_config": arguments.dataset_config_name}
        return {**dataset, "base_model": arguments.model_name_or_path}

    def _card(self) -> str:
        """The model card of the run."""
        arguments = self.arguments
        return card_of(
            self.model,
            arguments.hub_model_id or Path(arguments.output_dir).resolve().name,
            metrics=self.measured,
            history=[entry for entry in self.log.entries if "loss" not in entry],
            hyperparameters={
                **run_settings(self.model),
                "batch_size": self.arguments.rows_per_step,
                "seed": arguments.seed,
            },
            **self._facts(),
        )


class _Begin(keras.callbacks.Callback):
    """What happens once the model is restored and before the first step."""

    def __init__(self, run: TrainingRun, state: TrainingState):
        super().__init__()
        self.run, self.state, self.step = run, state, None

    def on_train_begin(self, logs=None):
        self.step = int(self.model.optimizer.iterations.numpy())
        self.run.log.begin(self.step, self.state.restored_part("log"))
        if self.step and is_chief():
            print(f"Going on from step {self.step} of {self.run.max_steps} in {self.run.arguments.output_dir}")


def forget_earlier_run(directory: Path) -> None:
    """Removes what a run goes on from: states, the best model, the id in Weights & Biases, TensorBoard's curves.

    All else in `runs` stays, which may be more than one run's: output_dir can be any directory.
    """
    left = [path.name for path in saved_state.named_as_checkpoints(directory) if not saved_state.remove(path)]
    if not best_model.remove(directory / BEST):
        left.append(BEST)
    if left:
        print(f"overwrite_output_dir left in {directory} what tfheads did not write: {', '.join(left)}")
    for path in (directory / RUN_FILE, *(directory / CURVES).glob("*.tfevents.*")):
        path.unlink(missing_ok=True)


def _global_batch(arguments: TrainingArguments, model: TaskModel) -> str:
    """The rows of an update, where their number comes from, and what is compiled."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    compiled = "XLA compiles forward and backward" if model.compiled_by_xla else "nothing is compiled"
    each = f"{arguments.per_device_train_batch_size} a device x {replicas} replicas"
    parts = f"= {each} x {arguments.gradient_accumulation_steps} accumulated"
    if arguments.global_train_batch_size:
        parts = f"on {replicas} replicas"
    return f"Global batch: {arguments.rows_per_step} rows {parts}; {compiled}"


def _in_words(title: str, found: Mapping[str, float]) -> str:
    return f"{title}: " + ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in found.items())


def check_output_dir(arguments: TrainingArguments) -> None:
    """Raises before any work if training would replace the result of another run.

    Raises:
        FileExistsError: output_dir holds a model, no state to go on from, and overwrite_output_dir is not set.
        NotADirectoryError: output_dir is a file.
        FileNotFoundError: there is no checkpoint to go on from at resume_from_checkpoint.
        ValueError: overwrite_output_dir would remove the checkpoint to go on from.
    """
    path, checkpoint = Path(arguments.output_dir), arguments.resume_from_checkpoint
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"output_dir must be a directory, {path} is a file")
    if not arguments.do_train:
        return
    if checkpoint and arguments.overwrite_output_dir and Path(checkpoint).resolve().parent == path.resolve():
        raise ValueError(
            f"resume_from_checkpoint {checkpoint} is in output_dir, from which overwrite_output_dir removes it: "
            "give one of the two"
        )
    if checkpoint and not Path(checkpoint).is_dir():
        raise FileNotFoundError(f"resume_from_checkpoint must be a directory, {checkpoint} does not exist")
    finished = (path / "config.json").is_file() and not checkpoints(path)
    if finished and not arguments.overwrite_output_dir:
        raise FileExistsError(f"output_dir {path} holds a model already: give another, or set overwrite_output_dir")


def updates_per_epoch(arguments: TrainingArguments, source: BatchSource | StreamedBlocks) -> int:
    """How many updates one pass over the training data has.

    Raises:
        ValueError: the data does not fill one batch, or `steps_per_execution` does not divide the updates.
    """
    executed = arguments.steps_per_execution
    if isinstance(source, StreamedBlocks):
        if arguments.max_steps % executed:
            raise ValueError(f"steps_per_execution must divide max_steps={arguments.max_steps}, got {executed}")
        return arguments.max_steps
    size = arguments.rows_per_step
    steps = source.steps_per_epoch(size)
    if steps == 0:
        raise ValueError(
            f"per_device_train_batch_size x gradient_accumulation_steps x replicas is {size} rows, more than the "
            f"training data of {source.rows} rows of {source.block_size} tokens"
        )
    if steps % executed:
        raise ValueError(f"steps_per_execution must divide the {steps} updates of an epoch, got {executed}")
    return steps


def training_batches(
    arguments: TrainingArguments, source: BatchSource | StreamedBlocks, masking: TokenMasking | None = None
) -> Callable[[int, int], tf.data.Dataset]:
    """`batches(epoch, step)` of a `TrainingRun`."""

    def batches(epoch: int, step: int) -> tf.data.Dataset:
        return of_this_worker(
            source,
            arguments.rows_per_step,
            seed=arguments.order_seed,
            epoch=epoch,
            start_step=step,
            epochs=None,
            masking=masking,
        )

    return batches
