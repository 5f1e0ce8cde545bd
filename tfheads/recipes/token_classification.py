"""Labels of words: names, parts of speech, chunks."""

from collections.abc import Mapping

import datasets
import keras
import numpy as np

from tfheads.data.conll_files import read_conll
from tfheads.data.sources import ENDINGS, file_kind
from tfheads.data.token_classification import labels_of_words, token_classification_features
from tfheads.metrics.sequence_labelling import entity_measures
from tfheads.models import ForTokenClassification, TaskModel
from tfheads.recipes.arguments import TokenClassificationArguments
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.evaluation import TaskEvaluation, predict
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

USUAL_LENGTH = 512


def run_token_classification(arguments: TokenClassificationArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return run_on_devices(token_classification, arguments)


def token_classification(arguments: TokenClassificationArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, TypeError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer = load_padding_tokenizer(arguments, takes_words=True)
    splits = labelled_splits(arguments, read=_read)
    words, tags = _columns(arguments, next(iter(splits.values())))
    data_names, model_names = _names(arguments, splits, tags)
    keras.utils.set_random_seed(arguments.seed)  # before the model is made: its dropout draws a seed then
    head = head_config(arguments, tokenizer, **label_config(model_names))
    model = load_model(arguments, tokenizer, ForTokenClassification, **head)
    length = row_length(arguments, tokenizer, model, USUAL_LENGTH)

    def features(split: str) -> datasets.Dataset:
        rows = splits[split]
        labelled = not split.startswith(TEST)
        rows = _with_names(rows, tags) if labelled else rows
        return rows.map(
            token_classification_features,
            batched=True,
            remove_columns=rows.column_names,
            num_proc=arguments.preprocessing_num_workers,
            desc="Tokenizing",
            fn_kwargs={
                "tokenizer": tokenizer,
                "names": data_names,
                "max_length": length,
                "label_all_tokens": arguments.label_all_tokens,
                "tokens_column": words,
                "labels_column": tags if labelled else None,
            },
        )

    rows = {split: features(split) for split in sorted(splits, reverse=True)}
    sources = {split: padded_source(arguments, rows[split], tokenizer, model, length) for split in rows}
    return fine_tuning_run(
        arguments,
        model,
        tokenizer,
        train=sources.get(TRAIN),
        evaluation=_evaluation(arguments, sources, rows, model_names),
        prediction=_prediction(arguments, sources, splits, rows, words, tokenizer, model_names),
    )


def _read(files: list[str]) -> datasets.Dataset | None:
    """Files of words and labels line by line; None for tables, which everybody reads alike."""
    return None if file_kind(files) in {*ENDINGS.values()} - {"text"} else read_conll(files)


def _columns(arguments: TokenClassificationArguments, rows: datasets.Dataset) -> tuple[str, str | None]:
    """The columns with the words and with the labels."""
    lists = [name for name, feature in rows.features.items() if isinstance(feature, datasets.List)]
    words = arguments.text_column_name or ("tokens" if "tokens" in rows.column_names else next(iter(lists), None))
    usual = [f"{arguments.task_name}_tags", "tags", "labels", *(name for name in lists if name != words)]
    tags = arguments.label_column_name or next((name for name in usual if name in rows.column_names), None)
    for name, argument in ((words, "text_column_name"), (tags, "label_column_name")):
        if name is None and (argument == "text_column_name" or arguments.do_train or arguments.evaluates):
            raise ValueError(f"{argument} must be given, the columns are {', '.join(rows.column_names)}")
        if name is not None and name not in rows.column_names:
            raise KeyError(f"there is no column {name!r}, the columns are {', '.join(rows.column_names)}")
        if name is not None and name not in lists:
            raise ValueError(f"column {name!r} must hold a list for each row, it holds {rows.features[name]}")
    return words, tags


def _names(arguments, splits: Mapping[str, datasets.Dataset], tags: str | None) -> tuple[list[str], list[str]]:
    """The labels by their names in the data and in the model."""
    labelled = [rows for split, rows in splits.items() if not split.startswith(TEST)]
    if labelled:
        return classes_of(arguments, _names_in(labelled[0], tags))
    config = checkpoint_config(arguments)
    if config is None:
        raise ValueError("do_predict needs a model that was trained: give model_name_or_path, or set do_train")
    known = [config.id2label[number] for number in sorted(config.id2label)]
    return known, known


def _names_in(rows: datasets.Dataset, tags: str) -> list[str]:
    feature = rows.features[tags].feature
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    found = {value for labels in rows[tags][:] for value in labels} - {-100}
    # "O" is first, as usual
    return sorted(map(str, sorted(found)), key=lambda name: name != "O")


def _with_names(rows: datasets.Dataset, tags: str) -> datasets.Dataset:
    """The labels as names, which say what they are whatever the model's order is."""
    feature = rows.features[tags].feature
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
        return rows
    names = feature.names if isinstance(feature, datasets.ClassLabel) else None
    named = [[str(value) if names is None else names[value] for value in labels] for labels in rows[tags][:]]
    return rows.remove_columns(tags).add_column(tags, named)


def _evaluation(arguments, sources: Mapping, rows: Mapping, names: list[str]) -> TaskEvaluation | None:
    if VALIDATION not in sources:
        return None
    labels = rows[VALIDATION]["labels"][:]

    def measures(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        predictions = _real(outputs["logits"], list(map(len, labels)), sources[VALIDATION].pads_left)
        return entity_measures(
            *labels_of_words(predictions, labels, names), by_type=arguments.return_entity_level_metrics
        )

    return TaskEvaluation(sources[VALIDATION], arguments.rows_per_evaluation_step, measures)


def _real(outputs: np.ndarray, lengths: list[int], pads_left: bool) -> list[np.ndarray]:
    """Rows without what pads them."""
    width = outputs.shape[1]
    return [row[width - length :] if pads_left else row[:length] for row, length in zip(outputs, lengths, strict=True)]


def _prediction(arguments, sources, splits, rows, words: str, tokenizer, names: list[str]):
    """Writes the labels of the words of each row, one row on a line, in Hugging Face's form."""
    if TEST not in sources:
        return None

    def write(model: TaskModel) -> None:
        outputs, _ = predict(model, sources[TEST], arguments.rows_per_evaluation_step)
        lengths = list(map(len, rows[TEST]["input_ids"][:]))
        predictions = [row.argmax(-1) for row in _real(outputs["logits"], lengths, sources[TEST].pads_left)]
        lines = []
        for found, sentence in zip(predictions, splits[TEST][words][:], strict=True):
            encoded = tokenizer(sentence, is_split_into_words=True, truncation=True, max_length=len(found))
            first: dict[int, str] = {}
            for token, word in enumerate(encoded.word_ids()):
                if word is not None:
                    first.setdefault(word, names[found[token]])
            lines.append(" ".join(first.get(word, "O") for word in range(len(sentence))))
        write_predictions(arguments.output_dir, "predictions.txt", lines)

    return write
