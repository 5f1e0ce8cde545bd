"""Classes and numbers for texts and pairs of texts: the tasks of GLUE, and files of one's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import datasets
import keras
import numpy as np

from tfheads.data.labelled_text import label_names, sentence_columns, tokenize_sentences, with_label_numbers
from tfheads.metrics.classification import OF_NUMBERS, measured, with_combined_score
from tfheads.metrics.glue import DATASET, TASKS
from tfheads.models import ForSequenceClassification, TaskModel
from tfheads.recipes.arguments import TextClassificationArguments
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.evaluation import JoinedEvaluation, TaskEvaluation, predict
from tfheads.recipes.fine_tuning import (
    TEST,
    TRAIN,
    VALIDATION,
    checkpoint_config,
    classes_of,
    fine_tuning_run,
    head_config,
    labelled_splits,
    load_padding_tokenizer,
    padded_source,
    row_length,
    write_predictions,
)
from tfheads.recipes.models import label_config, load_model
from tfheads.recipes.training import TrainingRun, check_output_dir

USUAL_LENGTH = 128


@dataclass(frozen=True)
class SentenceTask:
    """What the data says of the task.

    Attributes:
        columns: with the text.
        data_labels: the classes by their names in the data; None for a regression.
        model_labels: the same classes by their names in the model.
        measures: names of the measures.
        parts: suffixes of the validation and test splits, and what each adds to the names of the results.
    """

    columns: tuple[str, ...]
    data_labels: list[str] | None
    model_labels: list[str] | None
    measures: tuple[str, ...]
    parts: tuple[tuple[str, str], ...] = (("", ""),)

    @property
    def head(self) -> dict:
        """Config values of the head."""
        if self.model_labels is None:
            return {"num_labels": 1, "problem_type": "regression"}
        return {**label_config(self.model_labels), "problem_type": "single_label_classification"}

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """Classes or numbers `[rows]` from logits `[rows, classes]`."""
        return logits[:, 0] if self.data_labels is None else logits.argmax(-1)


def _usual_length(arguments, tokenizer, model: TaskModel) -> int:
    return row_length(arguments, tokenizer, model, USUAL_LENGTH)


def run_text_classification(arguments: TextClassificationArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return run_on_devices(text_classification, arguments)


def text_classification(
    arguments: TextClassificationArguments,
    model_class: type[TaskModel] = ForSequenceClassification,
    length_of: Callable[..., int] = _usual_length,
    **head,
) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Args:
        arguments: of the run.
        model_class: what is trained.
        length_of: from arguments, tokenizer and model to how many tokens a row may have.
        head: further config values of the head.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer = load_padding_tokenizer(arguments)
    glue = TASKS.get(arguments.task_name)
    suffixes = ("",) if glue is None else tuple(suffix for suffix, _ in glue.parts)
    named = None if glue is None or arguments.files else (DATASET, arguments.task_name)
    splits = labelled_splits(arguments, named, suffixes)
    task = _task(arguments, splits)
    keras.utils.set_random_seed(arguments.seed)  # before the model is made: its dropout draws a seed then
    head = head_config(arguments, tokenizer, **task.head, **head)
    model = load_model(arguments, tokenizer, model_class, **head)
    length = length_of(arguments, tokenizer, model)

    def source(split: str):
        rows = splits[split]
        if not split.startswith(TEST):
            rows = with_label_numbers(rows, task.data_labels, arguments.label_column_name, split)
        workers = arguments.preprocessing_num_workers
        tokens = tokenize_sentences(rows, tokenizer, sentence_columns(rows, task.columns), length, workers)
        return padded_source(arguments, tokens, tokenizer, model, length)

    sources = {split: source(split) for split in sorted(splits, reverse=True)}  # the short ones first
    return fine_tuning_run(
        arguments,
        model,
        tokenizer,
        train=sources.get(TRAIN),
        evaluation=_evaluation(arguments, task, sources, splits),
        prediction=_prediction(arguments, task, sources),
        dataset=DATASET if named else None,
    )


def _task(arguments: TextClassificationArguments, splits: dict[str, datasets.Dataset]) -> SentenceTask:
    """Columns, classes and measures: those of the task of GLUE, or what the data holds."""
    glue = TASKS.get(arguments.task_name)
    example = next(iter(splits.values()))
    given = [arguments.sentence1_column_name, arguments.sentence2_column_name]
    wanted = [name for name in given if name] or (() if glue is None else glue.columns)
    columns = sentence_columns(example, wanted, arguments.label_column_name)
    labelled = [rows for split, rows in splits.items() if not split.startswith(TEST)]
    if glue is not None:
        names = list(glue.labels) or None
    elif labelled:
        names = label_names(labelled[0], arguments.label_column_name)
    else:
        names = _names_of_checkpoint(arguments)
    measures = tuple(arguments.metric_name or (glue.measures if glue else _usual_measures(names)))
    _check_measures(measures, names)
    parts = (("", ""),) if glue is None else glue.parts
    if names is None:
        return SentenceTask(columns, None, None, measures, parts)
    data_names, model_names = _names(arguments, names, labelled)
    return SentenceTask(columns, data_names, model_names, measures, parts)


def _names(arguments, names: list[str], labelled: list[datasets.Dataset]) -> tuple[list[str], list[str]]:
    """The classes in the data and in the model."""
    data_names, model_names = classes_of(arguments, names)
    if arguments.task_name is not None and labelled and _are_numbers(labelled[0], arguments):
        numbers = {name: str(number) for number, name in enumerate(names)}  # files of GLUE do not name the classes
        data_names = [numbers.get(name, name) for name in data_names]
    return data_names, model_names


def _names_of_checkpoint(arguments) -> list[str] | None:
    """The classes where nothing but predictions is wanted."""
    config = checkpoint_config(arguments)
    if config is None:
        raise ValueError("do_predict needs a model that was trained: give model_name_or_path, or set do_train")
    return None if config.num_labels == 1 else [config.id2label[number] for number in sorted(config.id2label)]


def _are_numbers(rows: datasets.Dataset, arguments) -> bool:
    feature = rows.features.get(arguments.label_column_name)
    return isinstance(feature, datasets.Value) and feature.dtype.startswith("int")


def _usual_measures(names: Sequence[str] | None) -> tuple[str, ...]:
    return ("mse", "pearson", "spearmanr") if names is None else ("accuracy",)


def _check_measures(measures: Sequence[str], names: Sequence[str] | None) -> None:
    for name in measures:
        if (name in OF_NUMBERS) != (names is None):
            kind, labels = ("numbers", "classes") if name in OF_NUMBERS else ("classes", "numbers")
            raise ValueError(f"metric_name {name!r} measures {kind}, but the labels are {labels}")


def _evaluation(arguments, task: SentenceTask, sources: dict, splits: dict) -> JoinedEvaluation | None:
    """The evaluation over the validation split, or over both of a task that has two."""

    def part(split: str) -> TaskEvaluation:
        rows = with_label_numbers(splits[split], task.data_labels, arguments.label_column_name, split)
        labels = np.asarray(rows["labels"][:])

        def measures(outputs):
            return with_combined_score(measured(task.measures, task.predictions(outputs["logits"]), labels))

        return TaskEvaluation(sources[split], arguments.rows_per_evaluation_step, measures)

    endings = {VALIDATION + suffix: added for suffix, added in task.parts} | {VALIDATION: ""}
    found = {added: part(split) for split, added in endings.items() if split in sources}
    return JoinedEvaluation(found) if found else None


def _prediction(arguments, task: SentenceTask, sources: dict):
    """Writes the class or the number of each row of the test data, in Hugging Face's form."""
    wanted = [split for split in sources if split.startswith(TEST)]
    if not wanted:
        return None

    def write(model: TaskModel) -> None:
        for split in wanted:
            outputs, _ = predict(model, sources[split], arguments.rows_per_evaluation_step)
            values = task.predictions(outputs["logits"])
            shown = [f"{value:.3f}" if task.data_labels is None else task.model_labels[value] for value in values]
            lines = ["index\tprediction", *(f"{row}\t{text}" for row, text in enumerate(shown))]
            name = f"{arguments.task_name or 'text'}{split.removeprefix(TEST)}"
            write_predictions(arguments.output_dir, f"predict_results_{name}.txt", lines)

    return write
