"""Summaries of texts, measured by ROUGE."""

import dataclasses
import logging

import datasets

from tfheads.data.source_target import rows_with_texts, set_languages, source_target_columns, source_target_texts
from tfheads.metrics.rouge import check_references, rouge_measures
from tfheads.recipes.command_line import argument
from tfheads.recipes.devices import run_on_devices
from tfheads.recipes.fine_tuning import TEST, VALIDATION, labelled_splits, load_padding_tokenizer
from tfheads.recipes.training import TrainingRun, check_output_dir
from tfheads.recipes.writing import WritingArguments, writing_run

logger = logging.getLogger("tfheads")

# The names that columns have in the usual datasets: XSum, CNN / Daily Mail, SAMSum, BillSum, Multi-News, arXiv, ...
TEXTS = ("document", "article", "dialogue", "text", "source")
SUMMARIES = ("summary", "highlights", "abstract", "target")


@dataclasses.dataclass(kw_only=True)
class SummaryArguments:
    """Which columns, and which language."""

    text_column: str | None = argument(
        None, f"column with the texts; default: {', '.join(TEXTS)}, or the first column of text"
    )
    summary_column: str | None = argument(
        None, f"column with the summaries; default: {', '.join(SUMMARIES)}, or the second column of text"
    )
    lang: str | None = argument(None, "language of texts and summaries, for tokenizers of several languages")


@dataclasses.dataclass(kw_only=True)
class SummarizationArguments(SummaryArguments, WritingArguments):
    """Trains a model to summarise texts: an encoder-decoder such as T5 and BART, or a decoder such as GPT-2."""


def run_summarization(arguments: SummarizationArguments) -> dict[str, float]:
    """Trains, evaluates and predicts; returns what all_results.json holds."""
    return run_on_devices(summarization, arguments)


def summarization(arguments: SummarizationArguments) -> TrainingRun:
    """The run with its model and its data, everything checked.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: what is wrong, in one sentence.
    """
    check_output_dir(arguments)
    tokenizer = load_padding_tokenizer(arguments)
    set_languages(tokenizer, arguments.lang, arguments.lang)
    texts = {split: _texts(arguments, rows, split) for split, rows in labelled_splits(arguments).items()}
    if VALIDATION in texts and arguments.predict_with_generate:
        check_references(texts[VALIDATION]["target"][:])
    return writing_run(arguments, tokenizer, texts, rouge_measures, "summarization")


def _texts(arguments: SummarizationArguments, rows: datasets.Dataset, split: str) -> datasets.Dataset:
    """Texts and summaries; rows that lack one of them are left out, except where each row is to get its line."""
    given = arguments.text_column, arguments.summary_column
    columns = source_target_columns(rows, *given, split != TEST, (TEXTS, SUMMARIES))
    if split == TEST:
        return source_target_texts(rows, *columns, split)
    kept = rows_with_texts(rows, columns)
    if len(kept) == 0:
        raise ValueError(f"{split} has no row with a text in both columns {columns[0]!r} and {columns[1]!r}")
    if len(kept) < len(rows):
        left_out = len(rows) - len(kept)
        logger.warning("%d of %d rows of %s lack a text or a summary and are left out", left_out, len(rows), split)
    return source_target_texts(kept, *columns, split)
