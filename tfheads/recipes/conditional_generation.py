"""Texts that are written from other texts, by decoders and by encoder-decoders, measured by how many are right."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfheads.data.source_target import source_target_columns, source_target_texts
from tfheads.recipes.command_line import argument
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.fine_tuning import TEST, labelled_splits, load_padding_tokenizer
from tfheads.recipes.training import TrainingRun, check_output_dir
from tfheads.recipes.writing import WritingArguments, writing_run


@dataclasses.dataclass(kw_only=True)
class SourceTargetArguments:
    """Which columns."""

    text_column: str | None = argument(
        None, "column with the source; default: source, or the first text", also=["source_column"]
    )
    summary_column: str | None = argument(
        None, "column with the target; default: target, or the second text", also=["target_column"]
    )


@dataclasses.dataclass(kw_only=True)
class ConditionalGenerationArguments(SourceTargetArguments, WritingArguments):
    """Trains a model to write a text from another one: a summary, a translation, an answer."""


def run_conditional_generation(arguments: ConditionalGenerationArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return run_on_devices(conditional_generation, arguments)


def conditional_generation(arguments: ConditionalGenerationArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer, texts = load_padding_tokenizer(arguments), {}
    for split, rows in labelled_splits(arguments).items():
        columns = source_target_columns(rows, arguments.text_column, arguments.summary_column, split != TEST)
        texts[split] = source_target_texts(rows, *columns, split)
    return writing_run(arguments, tokenizer, texts, exact_match)


def exact_match(texts: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """`exact_match`: the part of the texts that are right, whatever their spaces."""
    same = [text.split() == target.split() for text, target in zip(texts, targets, strict=True)]
    return {"exact_match": float(np.mean(same))}
