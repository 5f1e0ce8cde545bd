"""Translations, measured by BLEU."""

import dataclasses
import functools
from typing import Literal

import datasets

from tfheads.data.source_target import set_languages, source_target_texts
from tfheads.metrics.bleu import bleu_measures
from tfheads.recipes.command_line import argument
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.fine_tuning import TEST, labelled_splits, load_padding_tokenizer
from tfheads.recipes.training import TrainingRun, check_output_dir
from tfheads.recipes.writing import WritingArguments, writing_run

PAIRS = "translation"  # the column of datasets that keep a text for each language in one


@dataclasses.dataclass(kw_only=True)
class LanguageArguments:
    """From which language into which."""

    source_lang: str | None = argument(
        None, "language that is read, such as en or en_XX: a key of the column translation, or a column of its own"
    )
    target_lang: str | None = argument(None, "language that is written, as source_lang")
    bleu_tokenizer: Literal["13a", "intl", "zh", "char", "none"] | None = argument(
        None, "how sacreBLEU divides texts into words; default: zh for Chinese, else 13a"
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("source_lang", "target_lang"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be given, such as en, de or ro_RO")


@dataclasses.dataclass(kw_only=True)
class TranslationArguments(LanguageArguments, WritingArguments):
    """Trains a model to translate: an encoder-decoder such as Marian, T5 and BART, or a decoder such as GPT-2."""


def run_translation(arguments: TranslationArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return run_on_devices(translation, arguments)


def translation(arguments: TranslationArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer = load_padding_tokenizer(arguments)
    set_languages(tokenizer, arguments.source_lang, arguments.target_lang)
    texts = {split: _texts(arguments, rows, split) for split, rows in labelled_splits(arguments).items()}
    source, target = map(_code, (arguments.source_lang, arguments.target_lang))
    usual = "zh" if target == "zh" else "13a"
    measure = functools.partial(bleu_measures, tokenizer=arguments.bleu_tokenizer or usual)
    return writing_run(arguments, tokenizer, texts, measure, f"translation_{source}_to_{target}")


def _texts(arguments: TranslationArguments, rows: datasets.Dataset, split: str) -> datasets.Dataset:
    """The texts of both languages; of the test data the source alone will do."""
    is_pair = isinstance(rows.features.get(PAIRS), datasets.Translation | dict)
    table = rows.select_columns([PAIRS]).flatten() if is_pair else rows
    names = {name.removeprefix(f"{PAIRS}."): name for name in table.column_names}
    found = []
    for language in (arguments.source_lang, arguments.target_lang):
        column = names.get(language, names.get(_code(language)))
        if column is None and not (split == TEST and found):
            where = f"the column {PAIRS}" if is_pair else "columns"
            raise KeyError(f"{split} has no text for the language {language!r}, {where} has {', '.join(names)}")
        found.append(column)
    return source_target_texts(table, *found, split)


def _code(language: str) -> str:
    """The language without its country or script: en of en_XX."""
    return language.split("_")[0]
