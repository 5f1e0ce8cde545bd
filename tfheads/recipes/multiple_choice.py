"""The right one of several texts: SWAG, and files of one's own."""

import dataclasses

import keras
import numpy as np

from tfheads.data.choices import choice_columns, choice_rows
from tfheads.models import ForMultipleChoice, TaskModel
from tfheads.recipes.arguments import FineTuningArguments
from tfheads.recipes.command_line import argument
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.evaluation import TaskEvaluation, predict
from tfheads.recipes.fine_tuning import (
    TEST,
    TRAIN,
    VALIDATION,
    fine_tuning_run,
    head_config,
    labelled_splits,
    load_padding_tokenizer,
    row_length,
    write_predictions,
)
from tfheads.recipes.models import load_model
from tfheads.recipes.training import TrainingRun, check_output_dir

USUAL_LENGTH = 128


@dataclasses.dataclass(kw_only=True)
class ChoiceArguments:
    """Which columns."""

    context_column_name: str | None = argument(None, "column with the text that comes first; default: sent1 or context")
    question_column_name: str | None = argument(
        None, "column with what comes before each choice; default: sent2 or question"
    )
    choices_column_name: str | None = argument(
        None, "column with lists of choices; default: the columns ending0, ending1, ..., or choices"
    )
    label_column_name: str = argument("label", "column with the right choice: its number from 0, or its text")


@dataclasses.dataclass(kw_only=True)
class MultipleChoiceArguments(ChoiceArguments, FineTuningArguments):
    """Trains a model to pick the right one of several texts: SWAG, or own files."""


def run_multiple_choice(arguments: MultipleChoiceArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return run_on_devices(multiple_choice, arguments)


def multiple_choice(arguments: MultipleChoiceArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer = load_padding_tokenizer(arguments)
    splits = labelled_splits(arguments)
    keras.utils.set_random_seed(arguments.seed)  # before the model is made: its dropout draws a seed then
    model = load_model(arguments, tokenizer, ForMultipleChoice, **head_config(arguments, tokenizer))
    length = row_length(arguments, tokenizer, model, USUAL_LENGTH)
    given = arguments.context_column_name, arguments.question_column_name, arguments.choices_column_name

    def source(split: str):
        return choice_rows(
            splits[split],
            tokenizer,
            choice_columns(splits[split].column_names, *given),
            length,
            label_column=None if split == TEST else arguments.label_column_name,
            split=split,
            input_names=model.accepted_inputs,
            buckets=arguments.bucket_lengths,
            pad_to_max_length=arguments.pad_to_max_length,
        )

    sources = {split: source(split) for split in sorted(splits, reverse=True)}  # the short ones first
    return fine_tuning_run(
        arguments,
        model,
        tokenizer,
        train=sources.get(TRAIN),
        evaluation=_evaluation(arguments, sources),
        prediction=_prediction(arguments, sources),
    )


def _evaluation(arguments, sources: dict) -> TaskEvaluation | None:
    if VALIDATION not in sources:
        return None
    source = sources[VALIDATION]

    def measures(outputs):
        return {"accuracy": float(np.mean(outputs["logits"].argmax(-1) == source.labels.numpy()))}

    return TaskEvaluation(source, arguments.rows_per_evaluation_step, measures)


def _prediction(arguments, sources: dict):
    if TEST not in sources:
        return None

    def write(model: TaskModel) -> None:
        outputs, _ = predict(model, sources[TEST], arguments.rows_per_evaluation_step)
        lines = [f"{row}\t{choice}" for row, choice in enumerate(outputs["logits"].argmax(-1))]
        write_predictions(arguments.output_dir, "predict_results.txt", ["index\tprediction", *lines])

    return write
