"""Answers that stand in a text: SQuAD, with and without questions that have no answer."""

import json
from collections.abc import Mapping
from pathlib import Path

import datasets
import keras
import numpy as np

from tfheads.data.question_answering import answers_from_logits, evaluation_features, training_features
from tfheads.data.sources import file_kind
from tfheads.data.squad_files import read_squad
from tfheads.distribute import is_chief
from tfheads.metrics.question_answering import squad_measures, squad_v2_measures
from tfheads.models import ForQuestionAnswering, TaskModel
from tfheads.recipes.arguments import QuestionAnsweringArguments
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
    padded_source,
    row_length,
)
from tfheads.recipes.models import load_model
from tfheads.recipes.training import TrainingRun, check_output_dir

USUAL_LENGTH = 384
OUTPUTS = ("start_logits", "end_logits")


def run_question_answering(arguments: QuestionAnsweringArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return run_on_devices(question_answering, arguments)


def question_answering(arguments: QuestionAnsweringArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, TypeError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer = load_padding_tokenizer(arguments)
    splits = labelled_splits(arguments, read=_read)
    for split, rows in splits.items():
        _check_columns(split, rows)
    keras.utils.set_random_seed(arguments.seed)  # before the model is made: its dropout draws a seed then
    model = load_model(arguments, tokenizer, ForQuestionAnswering, **head_config(arguments, tokenizer, num_labels=2))
    length = row_length(arguments, tokenizer, model, USUAL_LENGTH)

    def features(split: str) -> datasets.Dataset:
        return splits[split].map(
            training_features if split == TRAIN else evaluation_features,
            batched=True,
            remove_columns=splits[split].column_names,
            num_proc=arguments.preprocessing_num_workers,
            desc="Tokenizing",
            fn_kwargs={"tokenizer": tokenizer, "max_length": length, "doc_stride": arguments.doc_stride},
        )

    rows = {split: features(split) for split in sorted(splits, reverse=True)}
    sources = {split: padded_source(arguments, rows[split], tokenizer, model, length) for split in rows}
    return fine_tuning_run(
        arguments,
        model,
        tokenizer,
        train=sources.get(TRAIN),
        evaluation=_evaluation(arguments, sources, splits, rows),
        prediction=_prediction(arguments, sources, splits, rows),
    )


def _read(files: list[str]) -> datasets.Dataset | None:
    """JSON files of SQuAD; None for tables and JSON lines, which everybody reads alike."""
    if file_kind(files) != "json":
        return None
    first = Path(files[0])
    with open(first, encoding="utf-8-sig") as file:
        beginning = file.readline()
    is_lines = first.suffix == ".jsonl" or (beginning.rstrip().endswith("}") and '"data"' not in beginning)
    return None if is_lines else read_squad(files)


def _check_columns(split: str, rows: datasets.Dataset) -> None:
    needed = ["id", "question", "context", *([] if split == TEST else ["answers"])]
    for name in needed:
        if name not in rows.column_names:
            raise KeyError(f"{split} has no column {name!r}, the columns are {', '.join(rows.column_names)}")


def _answers(arguments, split: str, splits: Mapping, rows: Mapping, outputs: Mapping[str, np.ndarray]):
    """The answers to all questions of a split, written beside their candidates in Hugging Face's form."""
    found = answers_from_logits(
        splits[split],
        rows[split],
        *(outputs[name] for name in OUTPUTS),
        version_2_with_negative=arguments.version_2_with_negative,
        n_best_size=arguments.n_best_size,
        max_answer_length=arguments.max_answer_length,
        null_score_diff_threshold=arguments.null_score_diff_threshold,
    )
    prefix = "eval" if split == VALIDATION else "predict"
    files = {"predictions": found.texts, "nbest_predictions": found.n_best}
    if arguments.version_2_with_negative:
        files["null_odds"] = found.null_odds
    directory = Path(arguments.output_dir)
    if not is_chief():
        return found
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (directory / f"{prefix}_{name}.json").write_text(text + "\n", encoding="utf-8")
    return found


def _evaluation(arguments, sources: Mapping, splits: Mapping, rows: Mapping) -> TaskEvaluation | None:
    if VALIDATION not in sources:
        return None
    right = {row["id"]: row["answers"]["text"] for row in splits[VALIDATION]}
    measured = squad_v2_measures if arguments.version_2_with_negative else squad_measures

    def measures(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        return measured(_answers(arguments, VALIDATION, splits, rows, outputs).texts, right)

    return TaskEvaluation(sources[VALIDATION], arguments.rows_per_evaluation_step, measures, OUTPUTS)


def _prediction(arguments, sources: Mapping, splits: Mapping, rows: Mapping):
    if TEST not in sources:
        return None

    def write(model: TaskModel) -> None:
        outputs, _ = predict(model, sources[TEST], arguments.rows_per_evaluation_step, OUTPUTS)
        _answers(arguments, TEST, splits, rows, outputs)
        if is_chief():
            print(f"The predictions are in {Path(arguments.output_dir, 'predict_predictions.json')}")

    return write
